# Imported by the forkserver alone, before it forks: what every isolated plugin needs is
# loaded once, and moved out of the garbage collector's sight, so that the children go on
# sharing those pages.

from __future__ import annotations

import gc
import os
import signal

from .._signals import ignore, take_signal
from . import child_main as child_main
from . import forkserver as forkserver

# They come to the whole group of a terminal or a service, and only the host decides then. What
# is forked, here or for another user of this program's forkserver, has them as usual again.
# SIGINT stays blocked, as the host has left it; multiprocessing ignores it only later.
for _number in (signal.SIGTERM, signal.SIGHUP):
    take_signal(_number, ignore)
os.register_at_fork(
    after_in_child=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
)

gc.collect()
gc.freeze()
