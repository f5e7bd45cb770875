"""A test kit for plugins.

`FakeCircusd` is a circusd that does what a test says; `run_plugin` runs a plugin under the
real host against one. Both come as pytest fixtures too, `fake_circusd` and `run_plugin`,
which pytest finds by itself.
"""

from ._fake import FakeCircusd
from ._hold import Hold
from ._run import RunningPlugin, run_plugin
from ._script import Command

__all__ = ["Command", "FakeCircusd", "Hold", "RunningPlugin", "run_plugin"]
