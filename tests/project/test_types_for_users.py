# What a user's type checker says of a program that uses the package as the README does.

from __future__ import annotations

from pathlib import Path

from type_check import check_types

PROGRAM = """
from typing import Any

from circusplug import Arbiter, CircusPlugin, get_arbiter


class Printer(CircusPlugin):
    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        print(self.parse_event(data).watcher)


def before(**_: Any) -> bool:
    return True


watchers: list[dict[str, Any]] = [
    {"name": "web", "cmd": "serve", "hooks": {"before_start": (before, False)}},
    {"cmd": "work"},
]
with Arbiter([Printer, {"use": "a.B"}], watchers=watchers, circusd={"statsd": True}) as host:
    names: list[str] = host.client.call("list", timeout=3, waiting=True)["watchers"]
    host.client.cast("incr", name="web")

arbiter = get_arbiter([{"cmd": "serve", "numprocesses": 3}], plugins=[Printer], loglevel="info")
try:
    arbiter.start()
finally:
    arbiter.stop()
"""


PLUGIN = """
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circusplug import CircusPlugin, SpecError
from circusplug.options import Command, Names, Regex, Seconds, Secret, declare, option


@dataclass(frozen=True)
class ProbeOptions:
    url: str = option(meaning="what to fetch")
    period: Seconds = option("1 min", above=0, meaning="how often", per_watcher=True)
    method: Literal["GET", "HEAD"] = option("GET", meaning="how to ask")
    watchers: Names = option("*", meaning="which")
    pattern: Regex = option(".*", meaning="what is well")
    run: Command = option("", meaning="what to run")
    log: Path | None = option(None, meaning="where")
    password: Secret = option("", meaning="for the login")

    def __post_init__(self) -> None:
        if self.period > 100:
            raise SpecError("too long", key="period")


class Probe(CircusPlugin):
    options = declare(ProbeOptions)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.half: float = self.options.period / 2
        self.method: Literal["GET", "HEAD"] = self.options.method
        self.argv: list[str] = [*self.options.run, self.options.password]

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        own: ProbeOptions = self.options_for(self.parse_event(data).watcher)
        period: float = own.period
        found: re.Match[str] | None = own.pattern.match(own.url)
        print(period, found, own.log.name if own.log else "")


class Free(CircusPlugin):
    def handle_recv(self, data: tuple[bytes, bytes]) -> None: ...
"""

WRONG = """

def misuse(probe: Probe, free: Free) -> None:
    probe.options.period + "x"
    probe.options.perod
    probe.options.url = "y"
    free.options_for("web")
"""


def test_programs_and_declared_options_are_typed_without_a_cast_and_a_wrong_use_is_told(
    tmp_path: Path,
) -> None:
    programs = {"program.py": PROGRAM, "options.py": PLUGIN, "wrong.py": PLUGIN + WRONG}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
    done = check_types(tmp_path, *programs)
    assert done.stderr == ""
    *told, _ = done.stdout.splitlines()
    assert {line.partition(":")[0] for line in told} == {"wrong.py"}, told
    codes = ["operator", "attr-defined", "misc", "misc"]
    assert [line.rpartition("  ")[2] for line in told] == [f"[{code}]" for code in codes], told
