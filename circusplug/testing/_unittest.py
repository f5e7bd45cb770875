# The fixtures for the standard library's unittest, also where its tests are coroutines.

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ._fake import FakeCircusd
from ._run import RunningPlugin, run_plugin

if TYPE_CHECKING:
    from unittest import TestCase as _Base
else:
    _Base = object


class PluginTestMixin(_Base):
    """Gives each test a fake circusd and a function to run plugins on it, until the test ends.

    To be put in front of `unittest.TestCase` or `unittest.IsolatedAsyncioTestCase`. What waits
    for the plugin blocks the test, and not the plugin, which has a thread of its own.

    Attributes:
        fake_circusd: A running `FakeCircusd` without watchers.
    """

    def setUp(self) -> None:
        """Start the fake circusd."""
        super().setUp()
        self._stack = contextlib.ExitStack()
        self.addCleanup(self._stack.close)
        self.fake_circusd = self._stack.enter_context(FakeCircusd())

    def run_plugin(self, plugin_class: type, /, **options: Any) -> RunningPlugin:
        """Run a plugin until the test ends; see `circusplug.testing.run_plugin`."""
        return self._stack.enter_context(run_plugin(plugin_class, self.fake_circusd, **options))
