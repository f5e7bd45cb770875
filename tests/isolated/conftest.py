from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import Host, circusd_on_unix_sockets, hosts
from scene import Scene, scene

from circusplug.testing import FakeCircusd


@pytest.fixture
def stage() -> Iterator[Scene]:
    """The scene, at whose end the siblings have to work."""
    with scene() as stage:
        yield stage
        stage.assert_siblings_work()


@pytest.fixture
def soon_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hosts wait no longer than a moment for what does not answer, or a signal does not end.

    For tests in which nothing is to come of these waits.
    """
    for name in (
        "_isolated.process_runner._ANSWER_WAIT",
        "_isolated.process_runner._SIGNAL_WAIT",
        "_host.managed_plugin._ANSWER_WAIT",
        "_host.supervisor._REFRESH_WAIT",
    ):
        monkeypatch.setattr(f"circusplug.{name}", 0.05)


@pytest.fixture
def circusd(request: pytest.FixtureRequest) -> Iterator[FakeCircusd]:
    leaves = request.node.get_closest_marker("circusd_leaves") is not None
    with circusd_on_unix_sockets(["web"]) if leaves else FakeCircusd(["web"]) as circusd:
        yield circusd


@pytest.fixture
def host(circusd: FakeCircusd) -> Iterator[Host]:
    """Runs plugins until the test ends: isolated ones, each given as a class and its options."""
    with hosts(circusd) as start:
        yield lambda *plugins, **options: start(
            *({"isolate": True, **plugin} for plugin in plugins), **options
        )
