# What tests of the ssh tunnel share: the stand-in for ssh, in the PATH.

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_stand_in import StandIn


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    (tmp_path / "bin").mkdir()
    stand_in = StandIn(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.RETRY_DELAY", 0.001)
    yield stand_in
    stand_in.close()
