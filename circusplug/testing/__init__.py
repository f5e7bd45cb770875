"""A test kit for plugins.

`FakeCircusd` is a circusd that does what a test says; `run_plugin` runs a plugin under the
real host against one. Both come as pytest fixtures too, `fake_circusd` and `run_plugin`,
which pytest finds by itself. `replay` runs a plugin against what `circusplug record` has
recorded.
"""

from ._fake import FakeCircusd
from ._hold import Hold
from ._recording import RecordingError
from ._replay import replay
from ._replayed import Deed, Replayed
from ._run import RunningPlugin, run_plugin
from ._script import Command

__all__ = [
    "Command",
    "Deed",
    "FakeCircusd",
    "Hold",
    "RecordingError",
    "Replayed",
    "RunningPlugin",
    "replay",
    "run_plugin",
]
