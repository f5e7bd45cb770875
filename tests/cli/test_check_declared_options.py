# What `circusplug check` finds wrong with options that plugins declare, in plugins' sections and
# in watchers', and what it keeps to itself.

from __future__ import annotations

from pathlib import Path

import pytest
from circusd_real import free_endpoints
from command import plugin, run_here, write_ini

from circusplug._secrets import declared_secrets

MODULE = """
from dataclasses import dataclass
from circusplug import CircusPlugin
from circusplug.options import Seconds, Secret, declare, option

@dataclass(frozen=True)
class ProbeOptions:
    url: str = option(meaning="what to fetch")
    period: Seconds = option(10, above=0, meaning="how often", per_watcher=True)
    dial_in: Secret = option("", meaning="how to get in")

class Probe(CircusPlugin):
    name = "probe"
    options = declare(ProbeOptions)
    def handle_recv(self, data): pass
"""


def check(directory: Path, *sections: str, **env: str) -> tuple[int, str, list[str]]:
    """Check a file beside a module `probes`; returns the status, the output and the problems."""
    (directory / "probes.py").write_text(MODULE)
    path = write_ini(directory, *free_endpoints(2), *sections)
    done = run_here(directory, "check", path.name, **env)
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_all_that_is_wrong_in_all_sections_is_told_at_once(tmp_path: Path) -> None:
    status, _, told = check(
        tmp_path,
        plugin("a", "probes.Probe", period="0", ulr="x"),
        plugin("b", "probes.Probe", url="x", dial_in="env:NO_SUCH"),
        plugin("c", "circusplug.plugins.Logger", format="xml", filname="x"),
        "[watcher:w]\ncmd = x\nprobe.period = often\nprobe.url = y\nother.period = z\n",
    )
    assert status == 1
    assert told == [
        "circus.ini: [plugin:a]: 'url' is missing; give what to fetch",
        "circus.ini: [plugin:a]: 'period': '0' must be more than 0",
        "circus.ini: [plugin:a]: there is no option 'ulr' (did you mean 'url'?)",
        "circus.ini:24: [watcher:w]: 'probe.period': 'often' is not a number of seconds; write 90, "
        "1.5 min or 2h",
        "circus.ini:25: [watcher:w]: 'probe.url' is the same for all watchers; it goes to the "
        "plugin",
        "circus.ini: [plugin:b]: 'dial_in': there is no environment variable NO_SUCH, or it is "
        "empty",
        "circus.ini: [plugin:c]: 'format': 'xml' is none of text, json, logfmt",
        "circus.ini: [plugin:c]: there is no option 'filname' (did you mean 'filename'?)",
    ]


def test_a_watcher_s_options_are_read_as_a_host_reads_them(tmp_path: Path) -> None:
    watcher = '[watcher:w]\ncmd = x\nprobe.period = "$(circus.env.EVERY)"\n'
    sections = plugin("a", "probes.Probe", url="x"), watcher
    assert check(tmp_path, *sections, EVERY="5 min")[::2] == (0, [])
    (told,) = check(tmp_path, *sections, EVERY="often")[2]
    assert "'probe.period': 'often' is not a number of seconds" in told


@pytest.mark.parametrize("apart", ["", "host.python_path = .\n"])
def test_a_declared_secret_is_not_shown_whatever_its_name(tmp_path: Path, apart: str) -> None:
    declared_secrets.discard("dial_in")  # as in a process of its own
    section = plugin("a", "probes.Probe", url="seen", dial_in="hush")
    if apart:
        section += f"isolate = yes\n{apart}"
    status, out, told = check(tmp_path, section)
    assert (status, told) == (0, [])
    assert "hush" not in out
    assert "seen" in out
    assert "dial_in = '****'" in out


def test_a_secret_may_come_from_the_environment_that_the_plugin_will_have(tmp_path: Path) -> None:
    section = plugin("a", "probes.Probe", url="x", dial_in="env:DIAL", isolate="yes")
    assert check(tmp_path, section)[0] == 1
    assert check(tmp_path, section, DIAL="hush")[0] == 0
    status, out, _ = check(tmp_path, section + "host.env.DIAL = hush\n")
    assert status == 0
    assert "'DIAL': '****'" in out or "hush" in out  # the host's option is shown by its own name
