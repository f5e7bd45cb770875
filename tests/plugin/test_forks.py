# A plugin that forks (os.fork): the child ends where the plugin's code does, with the status
# that Python would give it, and hosts nothing.

from __future__ import annotations

from pathlib import Path

import pytest
from forkers import ENDS, Forker
from hosts import hosts
from patience import PATIENCE

from circusplug.testing import FakeCircusd

PLACES = [
    "__init__",
    "handle_init",
    "async handle_init",
    "handle_connect",
    "handle_recv",
    "async handle_recv",
    "callback",
    "periodic",
    "handle_stop",
]


@pytest.mark.parametrize(
    ("place", "isolate"),
    [*((place, False) for place in PLACES), ("handle_recv", True), ("handle_stop", True)],
)
def test_a_forked_child_ends_where_the_plugins_code_ends(
    place: str,
    isolate: bool,
    fake_circusd: FakeCircusd,
    unhurried: None,
    unhurried_end: None,
    tmp_path: Path,
) -> None:
    astray = tmp_path / "astray"
    with hosts(fake_circusd, stop_timeout=PATIENCE) as start:
        arbiter = start(
            *(
                {
                    "use": Forker,
                    "name": end,
                    "end": end,
                    "place": place,
                    "isolate": isolate,
                    "astray": str(astray),
                }
                for end in ENDS
            )
        )
        for _ in range(2):  # of which the child of the first one handles none
            fake_circusd.publish("web", "spawn")
        arbiter.wait(
            lambda now: all(status.counters.handled == 2 for status in now.values()), PATIENCE
        )
        if place in ("callback", "periodic"):
            for end in ENDS:
                fake_circusd.wait_command("say", timeout=PATIENCE, what="forked", plugin=end)
    stopped = {
        command.properties["plugin"]: command.properties["status"]
        for command in fake_circusd.commands
        if command.properties.get("what") == "stopped"
    }
    assert stopped == {end: status for end, (_, status) in ENDS.items()}
    assert not astray.exists()
