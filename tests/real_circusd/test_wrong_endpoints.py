# A file that names wrong endpoints of a circusd that runs: what is told, and that it is told once.

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from circusd_real import RealCircusd
from command import Running, plugin, write_ini

#: `circusplug`, which soon tells of a socket that stands alone.
HASTY = [
    sys.executable,
    "-c",
    "from circusplug._cli import main; from circusplug._host import endpoint_check; "
    "endpoint_check.ALONE_WAIT = 1.0; main.run()",
]


#: By its name: the endpoints that a file names, and what is told. An endpoint at which nobody is is
#: no port, which a circusd may take.
WRONG: dict[str, tuple[str, str, str]] = {
    "endpoint": (
        "FREE",
        "PUBSUB",
        "events are published at PUBSUB, but nobody takes commands at FREE: 'endpoint' is wrong; "
        "write that of circusd's file",
    ),
    "pubsub_endpoint": (
        "ENDPOINT",
        "FREE",
        "circusd takes commands at ENDPOINT, but publishes no events at FREE: 'pubsub_endpoint' "
        "is wrong; write that of circusd's file",
    ),
    "the same twice": (
        "ENDPOINT",
        "ENDPOINT",
        "circusd takes commands at ENDPOINT, but publishes no events at ENDPOINT, where something "
        "else is: 'pubsub_endpoint' is wrong",
    ),
    "swapped": (
        "PUBSUB",
        "ENDPOINT",
        "'endpoint' (PUBSUB) and 'pubsub_endpoint' (ENDPOINT) look swapped: ",
    ),
    "nobody and another": (
        "PUBSUB",
        "FREE",
        "'endpoint' is wrong: PUBSUB is no such socket of circusd's",
    ),
}


def test_a_wrong_endpoint_is_told_once_for_all_plugins(tmp_path: Path) -> None:
    sections = [plugin("one"), plugin("two"), plugin("isolated", isolate="yes")]
    with RealCircusd({"web": {}}) as circusd, contextlib.ExitStack() as stack:
        real = {
            "FREE": "ipc:///nonexistent/nobody",
            "ENDPOINT": circusd.endpoint,
            "PUBSUB": circusd.pubsub_endpoint,
        }
        hosts = {}
        for name, (endpoint, pubsub_endpoint, _) in WRONG.items():
            directory = tmp_path / name
            directory.mkdir()
            path = write_ini(directory, real[endpoint], real[pubsub_endpoint], *sections)
            hosts[name] = stack.enter_context(Running(directory, "run", path, program=HASTY))
        for name, command in hosts.items():
            said = WRONG[name][-1]
            for word, meaning in real.items():
                said = said.replace(word, meaning)
            assert "circusplug[" in command.wait_for(said), name
            command.wait_for_all(*(f"plugin:{each}: init" for each in ("one", "two", "isolated")))
            command.interrupt()
        for name, command in hosts.items():
            assert command.end() == 0, name
            assert command.output.count("[ERROR]") == 1, name
            assert "no circusd at" not in command.output, name
