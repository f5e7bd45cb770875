# The command, for tests that wait until it has waited in vain.

from __future__ import annotations

import sys

#: `circusplug`, but for a host that goes on soon without a circusd, and soon without a plugin that
#: does not end in the time that is its own.
HASTY = [
    sys.executable,
    "-c",
    "import functools\n"
    "from circusplug._plugin import plugin_thread as thread\n"
    "thread.PARK_WAIT = thread._SHORT_WAIT = 0.05\n"
    "from circusplug._cli import main\n"
    "from circusplug._host import runner_factory as made\n"
    "made.Link = functools.partial(made.Link, connect_wait=0.1)\n"
    "main.run()",
]
