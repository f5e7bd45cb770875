# The test kit as pytest fixtures; an entry point makes pytest load this file in every test run
# of everybody who has circusplug installed. So it imports the kit only when a fixture is used.

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from circusplug.testing import FakeCircusd, Replayed, RunningPlugin


@pytest.fixture
def fake_circusd() -> Iterator[FakeCircusd]:
    """A running `circusplug.testing.FakeCircusd` without watchers."""
    from circusplug.testing import FakeCircusd

    with FakeCircusd() as circusd:
        yield circusd


@pytest.fixture
def run_plugin(fake_circusd: FakeCircusd) -> Iterator[Callable[..., RunningPlugin]]:
    """A function that runs a plugin on `fake_circusd` until the test ends.

    It takes a plugin class and what else `circusplug.testing.run_plugin` takes, and returns a
    `circusplug.testing.RunningPlugin`.
    """
    from circusplug import testing

    with contextlib.ExitStack() as stack:

        def run(plugin_class: type, /, **options: Any) -> RunningPlugin:
            return stack.enter_context(testing.run_plugin(plugin_class, fake_circusd, **options))

        yield run


@pytest.fixture
def replay() -> Callable[..., Replayed]:
    """`circusplug.testing.replay`: runs a plugin class against a recording."""
    from circusplug import testing

    return testing.replay
