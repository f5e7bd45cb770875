# `circusplug describe`: what it prints, and that what it prints is right.

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from circusd_real import free_endpoints
from command import run_here, write_ini

import circusplug.plugins

MODULE = """
from dataclasses import dataclass
from typing import Literal
from circusplug import CircusPlugin
from circusplug.options import Seconds, Secret, declare, option

@dataclass(frozen=True)
class ProbeOptions:
    url: str = option(meaning="what to fetch", example="http://localhost/")
    period: Seconds = option("1 min", above=0, meaning="how often", per_watcher=True)
    method: Literal["GET", "HEAD"] = option("GET", meaning="how to ask, GET | HEAD")
    password: Secret = option("hush", meaning="for the login")
    pin: Secret = option("", meaning="for more")
    most: int | None = option(None, unit="failures", meaning="how many")

class Probe(CircusPlugin):
    '''Fetches a page
    now and then.

    More of it.
    '''
    name = "probe"
    options = declare(ProbeOptions)
    def handle_recv(self, data): pass

class Free(CircusPlugin):
    def handle_recv(self, data): pass
"""


def describe(directory: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    (directory / "probes.py").write_text(MODULE)
    return run_here(directory, "describe", *arguments, COLUMNS="100")


def test_a_plugin_is_a_purpose_a_table_and_a_section(tmp_path: Path) -> None:
    done = describe(tmp_path, "probes.Probe")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == """\
probes.Probe
  Fetches a page now and then.

  option    default     meaning
  url       (required)  what to fetch
  period    60          how often (seconds, more than 0); also for single watchers
  method    GET         how to ask, GET | HEAD (one of GET, HEAD)
  password  ****        for the login (text, env:NAME or file:PATH)
  pin                   for more (text, env:NAME or file:PATH)
  most                  how many (failures)

[plugin:probe]
use = probes.Probe
url = http://localhost/
# period = 60
# method = GET
# password = ****
# pin =
# most =
"""
    )


def test_markdown_is_a_table_and_a_section_as_well(tmp_path: Path) -> None:
    lines = describe(tmp_path, "probes.Probe", "--markdown").stdout.splitlines()
    assert lines[:3] == ["### `probes.Probe`", "", "Fetches a page now and then."]
    assert "| `url` | (required) | what to fetch |" in lines
    assert r"| `method` | `GET` | how to ask, GET \| HEAD (one of GET, HEAD) |" in lines
    assert lines[lines.index("```ini") + 1] == "[plugin:probe]"
    assert lines[-1] == "```"


def test_json_has_all_that_is_declared(tmp_path: Path) -> None:
    (about,) = json.loads(describe(tmp_path, "probes.Probe", "--json").stdout)
    assert about["use"] == "probes.Probe"
    assert about["options"][1] == {
        "name": "period",
        "required": False,
        "default": "60",
        "fits": "seconds, more than 0",
        "choices": [],
        "meaning": "how often",
        "example": "",
        "secret": False,
        "per_watcher": True,
    }
    assert about["options"][2]["choices"] == ["GET", "HEAD"]


def test_all_that_there_are_are_those_of_circusplug_and_registered_ones(tmp_path: Path) -> None:
    info = tmp_path / "probes-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: probes\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[circusplug.plugins]\nprobe = probes:Probe\nfree = probes:Free\ngone = probes:Gone\n"
    )
    done = describe(tmp_path, "--json")
    uses = [about["use"] for about in json.loads(done.stdout)]
    ours = [f"circusplug.plugins.{name}" for name in circusplug.plugins.__all__]
    assert uses == [*ours, "free", "probe"]
    assert done.returncode == 1
    assert done.stderr == "'use' names gone, but module probes has no 'Gone'\n"
    assert "free: declares no options\n" in describe(tmp_path).stdout


@pytest.mark.parametrize(
    ("use", "told"),
    [
        ("probes.Prob", "'use' names probes.Prob, but module probes has no 'Prob'"),
        ("no.such.Plugin", "'use' names no.such.Plugin, but there is no module 'no'"),
        ("prob", "'use' names 'prob', which is no dotted name"),
    ],
)
def test_what_cannot_be_imported_is_one_line(tmp_path: Path, use: str, told: str) -> None:
    done = describe(tmp_path, use)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith(f"circusplug: {told}")


def test_what_declares_nothing_is_one_line(tmp_path: Path) -> None:
    done = describe(tmp_path, "probes.Free")
    assert (done.returncode, done.stdout) == (0, "probes.Free: declares no options\n")


@pytest.mark.parametrize("commented", [True, False])
def test_the_sections_of_the_bundled_plugins_pass_the_check(
    tmp_path: Path, commented: bool
) -> None:
    sections = [about["section"] for about in json.loads(describe(tmp_path, "--json").stdout)]
    if not commented:
        sections = [section.replace("# ", "") for section in sections]
    path = write_ini(tmp_path, *free_endpoints(2), *sections)
    done = run_here(tmp_path, "check", path.name)
    assert (done.returncode, done.stderr) == (0, "")
