# The two programs that Supervisor runs for the bench: an event listener, as its manual has them,
# and one that makes events.

from __future__ import annotations

import os
import signal
import sys
import time
from typing import NoReturn

PAYLOAD = '{"process_pid": 12345, "time": 1762345678.1234567}'


def listen(report: str, block: str) -> None:
    """Count events, until stopped; notes what `plugins.Member` notes."""
    from supervisor import childutils

    received = 0

    def note(what: str) -> None:
        with open(report, "a") as file:
            file.write(f"{what} {time.monotonic()} {received}\n")

    def stop(*_: object) -> NoReturn:
        note("stop")
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    note("ready")
    while True:
        childutils.listener.wait()
        received += 1
        if received == 1:
            time.sleep(float(block))
        childutils.listener.ok()


def produce(count: str, rate: str) -> None:
    """Make events, so many a second; then end."""
    due = time.monotonic()
    for _ in range(int(count)):
        due += 1 / float(rate)
        time.sleep(max(0.0, due - time.monotonic()))
        sys.stdout.write(f"<!--XSUPERVISOR:BEGIN-->{PAYLOAD}<!--XSUPERVISOR:END-->")
        sys.stdout.flush()


if __name__ == "__main__":
    {"listen": listen, "produce": produce}[sys.argv[1]](*sys.argv[2:])
