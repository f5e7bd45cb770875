"""A test kit for plugins.

`FakeCircusd` is a circusd that does what a test says; `run_plugin` runs a plugin under the
real host against one; `replay` runs one against what `circusplug record` has recorded. All come
as pytest fixtures too, `fake_circusd`, `run_plugin` and `replay`, which pytest finds by itself,
and the first two in `PluginTestMixin` for unittest.
"""

from ._fake import FakeCircusd
from ._hold import Hold
from ._recording import RecordingError
from ._replay import replay
from ._replayed import Deed, Replayed
from ._run import RunningPlugin, run_plugin
from ._script import Command
from ._unittest import PluginTestMixin

__all__ = [
    "Command",
    "Deed",
    "FakeCircusd",
    "Hold",
    "PluginTestMixin",
    "RecordingError",
    "Replayed",
    "RunningPlugin",
    "replay",
    "run_plugin",
]
