# The circusd of `circusplug up`, as far as it does not take a real one.

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circusplug import CallError
from circusplug._cli.own_circusd import OwnCircusd
from circusplug._config import ini_file
from circusplug._config.ini_includes import read_ini


def test_a_reload_that_circusd_has_refused_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def call(command: str, **properties: Any) -> None:
        asked.append(command)
        if len(asked) == 1:
            raise CallError(command, properties, "it is busy")

    arbiter: Any = SimpleNamespace(client=SimpleNamespace(call=call))
    file = tmp_path / "circus.ini"
    file.write_text("[circus]\n[watcher:x]\ncmd = sleep 1\n")
    ini = read_ini(file)
    circusd = OwnCircusd(ini, ini_file.build(ini))
    monkeypatch.setattr(circusd._process, "rewrite", lambda _: None)
    file.write_text("[circus]\n[watcher:x]\ncmd = sleep 2\n")
    with pytest.raises(CallError):
        circusd.reload(read_ini(file), arbiter)
    assert circusd.reload(read_ini(file), arbiter) == ["circusd has read the watchers again"]
    assert circusd.reload(read_ini(file), arbiter) == []
    assert asked == ["reloadconfig"] * 2
