# When a command that circusd refused, because it was busy with another one, is sent again.
#
# Both ways to send a command ask here: client.py, which waits on the plugin's thread, and
# open_calls.py, where the plugin's loop waits.
#
# Owner: none, it holds nothing.

from __future__ import annotations

#: How long to wait before the second try, in seconds, and before any later one at most. circusd
#: is busy for some milliseconds as a rule, for seconds when processes stop slowly.
FIRST_DELAY = 0.05
_LONGEST_DELAY = 0.5


def next_try(delay: float, patient_until: float, now: float) -> float | None:
    """When to send it again, by the clock that says *now*; None: not any more."""
    moment = now + delay
    return moment if moment < patient_until else None


def longer(delay: float) -> float:
    """The delay, in seconds, after one that was not long enough."""
    return min(2 * delay, _LONGEST_DELAY)
