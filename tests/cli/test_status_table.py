# The table that `circusplug status` prints.

from __future__ import annotations

from circusplug._cli import steer


def test_the_table_shortens_what_is_long() -> None:
    counters = {"handled": 1_234_567, "errors": 3, "restarts": 1, "lag": 0.0123}
    row = {"state": "running", "isolated": False, "pid": 1, "cpu": 12.34, **counters}
    plugins = {
        "a": {**row, "uptime": 59.9, "last_error": "first\nsecond " + "x" * 100},
        "b": {**row, "uptime": 3600.0, "last_error": None, "cpu": "N/A"},
        "c": {**row, "uptime": 90_000.0, "last_error": ""},
        "d": {**row, "uptime": None, "pid": None, "last_error": ""},
        "e": {**row, "uptime": 61.0, "last_error": ""},
    }
    lines = steer.table(plugins).splitlines()
    assert "59s  1,234,567" in lines[1]
    assert lines[1].endswith("...")
    assert "first second" in lines[1]
    assert "1h 00m" in lines[2]
    assert "-" in lines[2].split()
    assert "1d 1h" in lines[3]
    assert "12.3 %" in lines[3]
    assert "1m 01s" in lines[5]
