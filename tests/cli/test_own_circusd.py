# The circusd of `circusplug up`, as far as it does not take a real one.

from __future__ import annotations

import contextlib
from collections.abc import Callable
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


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], OwnCircusd]:
    """Makes the circusd of a file with something in it, but starts none."""
    monkeypatch.setenv("CIRCUS_USER", "operator")

    def make(text: str) -> OwnCircusd:
        path = tmp_path / "circus.ini"
        path.write_text(text)
        ini = read_ini(path)
        return OwnCircusd(ini, ini_file.build(ini))

    return make


def test_it_is_told_what_the_file_says_of_it(made: Callable[[str], OwnCircusd]) -> None:
    circusd = made(
        "[circus]\nendpoint = ipc:///file\nendpoint_owner = $(circus.env.CIRCUS_USER)\n"
        "[circusplug]\ncircusd_timeout = 77\n"
    )
    assert circusd.endpoint_owner == "operator"
    assert circusd._process._start_timeout == 77
    assert circusd._process._hold > 0  # the first events of its watchers would be missed
    text = circusd._process._ini
    assert text.startswith(f"[circus]\nendpoint = {circusd.private_endpoint}\n")
    assert text.index(str(circusd.private_endpoint)) < text.index("ipc:///file")


def test_without_the_door_it_has_the_file_s_endpoint(
    made: Callable[[str], OwnCircusd],
) -> None:
    circusd = made("[circus]\nendpoint = ipc:///file\n[circusplug]\ndoor = no\n")
    assert circusd.private_endpoint is None
    assert circusd.endpoint_owner == ""
    assert circusd._process._ini.startswith("[circus]\nendpoint = ipc:///file\n")


def test_its_socket_goes_when_it_has_ended_and_its_end_is_the_host_s(
    made: Callable[[str], OwnCircusd], monkeypatch: pytest.MonkeyPatch
) -> None:
    circusd = made("[circus]\n")
    socket = Path(str(circusd.private_endpoint).removeprefix("ipc://"))
    told: list[Any] = []

    class Process:
        """Makes its socket."""

        pid = 7

        def __enter__(self) -> None:
            socket.touch()

        def __exit__(self, *_: object) -> None:
            assert socket.exists()
            told.append("ended")

        def on_exit(self, callback: Callable[[int | None], None]) -> None:
            callback(-9)

    monkeypatch.setattr(circusd, "_process", Process())
    with contextlib.ExitStack() as stack:
        circusd.start(stack, SimpleNamespace(fail=told.append))  # type: ignore[arg-type]
        assert told == ["circusd was killed by SIGKILL"]
    assert told[1:] == ["ended"]
    assert not socket.exists()
