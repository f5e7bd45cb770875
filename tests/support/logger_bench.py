# What the tests of Logger share: numbered events, and the fields of an entry for journald.

from __future__ import annotations

from bundled import MOMENT

from circusplug.testing import RunningPlugin


def some(running: RunningPlugin, first: int, last: int) -> None:
    """Publish numbered events, and wait until they are handled."""
    for number in range(first, last):
        running.publish("web", "reap", process_pid=number, exit_code=0, time=MOMENT)
    running.wait_handled(last)


def journal_fields(message: bytes) -> dict[str, str]:
    """Decode journald's own protocol."""
    found, rest = {}, message
    while rest:
        head, _, rest = rest.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, end, rest = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n"
        found[name.decode()] = value.decode()
    return found
