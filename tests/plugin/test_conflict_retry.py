# When a command that circusd was too busy for is sent again.

from __future__ import annotations

import pytest

from circusplug._plugin.conflict_retry import FIRST_DELAY, longer, next_try


def test_the_delays_double_up_to_half_a_second() -> None:
    delays = [FIRST_DELAY]
    while len(delays) < 7:
        delays.append(longer(delays[-1]))
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5])


def test_there_is_no_try_for_which_patience_would_not_last() -> None:
    assert next_try(10.0, patient_until=50.0, now=45.0) is None
    assert next_try(10.0, patient_until=1000.0, now=45.0) == 55.0
