# A file that names wrong endpoints of a circusd that runs: what is told, and that it is told once.

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from circusd_real import RealCircusd
from command import Running, plugin, write_ini

#: `circusplug`, which soon tells of a socket that stands alone.
HASTY = [
    sys.executable,
    "-c",
    "from circusplug._cli import main; from circusplug._host import endpoint_check; "
    "endpoint_check.ALONE_WAIT = 1.0; main.run()",
]


@pytest.fixture(scope="module")
def circusd() -> Iterator[RealCircusd]:
    with RealCircusd({"web": {}}) as circusd:
        yield circusd


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            lambda right, free: (free, right[1]),
            "events are published at {right[1]}, but nobody takes commands at {free}: 'endpoint' "
            "is wrong; write that of circusd's file",
        ),
        (
            lambda right, free: (right[0], free),
            "circusd takes commands at {right[0]}, but publishes no events at {free}: "
            "'pubsub_endpoint' is wrong; write that of circusd's file",
        ),
        (
            lambda right, free: (right[0], right[0]),
            "circusd takes commands at {right[0]}, but publishes no events at {right[0]}, where "
            "something else is: 'pubsub_endpoint' is wrong",
        ),
        (
            lambda right, free: right[::-1],
            "'endpoint' ({right[1]}) and 'pubsub_endpoint' ({right[0]}) look swapped: ",
        ),
        (
            lambda right, free: (right[1], free),
            "'endpoint' is wrong: {right[1]} is no such socket of circusd's",
        ),
    ],
    ids=["endpoint", "pubsub_endpoint", "the same twice", "swapped", "nobody and another"],
)
def test_a_wrong_endpoint_is_told_once_for_all_plugins(
    tmp_path: Path, circusd: RealCircusd, wrong: object, said: str
) -> None:
    free = "ipc:///nonexistent/nobody"  # and not a port, which a circusd may take
    right = circusd.endpoint, circusd.pubsub_endpoint
    sections = [plugin("one"), plugin("two"), plugin("isolated", isolate="yes")]
    path = write_ini(tmp_path, *wrong(right, free), *sections)  # type: ignore[operator]
    with Running(tmp_path, "run", path, program=HASTY) as command:
        line = command.wait_for(said.format(right=right, free=free))
        assert "circusplug[" in line
        command.wait_for_all(*(f"plugin:{name}: init" for name in ("one", "two", "isolated")))
        command.interrupt()
        assert command.end() == 0
    assert command.output.count("[ERROR]") == 1
    assert "no circusd at" not in command.output
