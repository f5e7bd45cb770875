# The pages of the reference: what they quote is what the code says, and their examples work.

from __future__ import annotations

import ast
import importlib
import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from circusd_real import free_endpoints
from command import run_here
from test_readme import FILE, README, running, with_ports

import circusplug
from circusplug import HostConfig, testing
from circusplug._cli.docs import print_page, topics
from circusplug._cli.hosting import SWITCH_INTERVAL
from circusplug._config.control import AUTO
from circusplug._config.host_options import OPTIONS
from circusplug._config.ini_file import OWN_OPTIONS
from circusplug.testing import FakeCircusd, RunningPlugin

PAGES = Path(circusplug.__file__).parent / "docs"
_QUOTED = re.compile(r"^### `(.*)`$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"%(\.?\d*[gf]|[sdr])|…")


def page(topic: str) -> str:
    return (PAGES / f"{topic}.md").read_text(encoding="utf-8")


def messages() -> list[str]:
    """All texts of the package's code, with … for what is put in."""
    found = []
    for path in PAGES.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                ]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return [_PLACEHOLDER.sub("…", text) for text in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the files of the README and of all pages."""
    for text in (README, *map(page, topics())):
        for _, name, content in FILE.findall(text):
            (tmp_path / name).write_text(textwrap.dedent(content), encoding="utf-8")
    return tmp_path


def test_each_message_that_is_quoted_is_one_of_the_codes() -> None:
    said = messages()

    def is_said(quoted: str) -> bool:
        pattern = re.compile(".*".join(re.escape(part) for part in quoted.split("…")))
        return any(pattern.search(text) for text in said)

    quoted = _QUOTED.findall(page("troubleshooting"))
    assert len(quoted) > 20
    assert [each for each in quoted if not is_said(each)] == []


@pytest.mark.parametrize("topic", topics())
def test_a_page_is_named_in_the_readme_and_links_to_what_is_there(topic: str) -> None:
    assert f"(circusplug/docs/{topic}.md)" in README
    for target in re.findall(r"\]\((?!http)([^)#]+)", page(topic)):
        assert (PAGES / target).is_file(), target


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (PAGES.parent.parent / target).is_file(), target


def test_docs_lists_the_pages_and_prints_one(tmp_path: Path) -> None:
    listed = run_here(tmp_path, "docs")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(topics())
    printed = run_here(tmp_path, "docs", "Options").stdout
    assert "<!--" in page("options")
    assert printed == re.sub(r"(?m)^<!--.*-->\n", "", page("options"))
    assert printed == run_here(tmp_path, "docs", "options.md").stdout


def test_a_page_is_shown_a_screen_at_a_time_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("pydoc.pager", shown.append)
        patch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
        assert print_page("operating") == 0
    assert shown == [re.sub(r"(?m)^ *<!--.*-->\n", "", page("operating"))]


def test_a_page_that_there_is_not_is_one_line(tmp_path: Path) -> None:
    done = run_here(tmp_path, "docs", "optoins")
    assert done.returncode == 1
    assert done.stderr == "circusplug: docs: there is no page 'optoins' (did you mean 'options'?)\n"


def test_the_tables_of_options_say_what_is_declared() -> None:
    tables = runpy.run_path(str(PAGES.parent.parent / "scripts" / "option_tables.py"))
    for topic in ("options", "plugins"):
        blocks = list(tables["_BLOCK"].finditer(page(topic)))
        assert blocks
        for block in blocks:
            assert tables["table"](block[2]) in block[0], topic


def test_the_defaults_of_the_host_itself_are_those_on_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S*) ?\|", page("options"), re.MULTILINE)
    told = dict(rows)
    # What is not said is so small, and `auto`, for the commands alone.
    values = {"switch_interval": SWITCH_INTERVAL, "control": AUTO, "python_path": ""}
    for name in OWN_OPTIONS:
        value = values.get(name, getattr(HostConfig(), name))
        shown = {True: "yes", False: "no"}.get(value, value)
        assert told[name] == (f"{shown:g}" if isinstance(shown, float) else shown), name


def test_every_option_of_the_host_is_on_its_page() -> None:
    for name in (*OPTIONS, "env.NAME", "rlimit_NAME"):
        assert f"`host.{name}`" in page("options")


@pytest.mark.parametrize("name", testing.__all__)
def test_every_public_name_of_the_test_kit_is_on_its_page(name: str) -> None:
    assert f"`{name}" in page("testing")
    public = getattr(testing, name)
    if public in (FakeCircusd, RunningPlugin):
        for member in vars(public):
            assert member.startswith("_") or f"`{member}" in page("testing"), member


SECTIONS = [
    name
    for text in (README, page("plugins"), page("writing"))
    for _, name, _ in FILE.findall(text)
    if name.endswith(".ini")
]


@pytest.mark.parametrize("name", SECTIONS)
def test_the_sections_on_the_pages_have_no_problem(name: str, folder: Path) -> None:
    path = folder / name
    path.write_text(path.read_text().replace("/etc/circus/plugins.ini", "circus.ini"))
    checked = run_here(folder, "check", name)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_tests_of_the_readme_and_on_the_pages_pass(folder: Path) -> None:
    text = README + page("testing") + page("recordings")
    names = [name for _, name, _ in FILE.findall(text) if name.startswith("test_")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *names],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.findall(r"^(\w+\.py)::[\w:]+ PASSED", done.stdout, re.MULTILINE)
    assert "test_events.py" in names  # the readme's
    assert {*passed} == {*names}


def test_the_plugin_with_declared_options_runs(
    folder: Path, fake_circusd: FakeCircusd, run_plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    fake_circusd.add_watcher("web", **{"probe.attempts": "5"})
    plugin = run_plugin(importlib.import_module("probes").Probe, url="http://localhost/")
    assert plugin.plugin.left == 3
    assert plugin.plugin.options_for("web").attempts == 5


def test_the_program_with_watchers_runs(folder: Path) -> None:
    with_ports(folder / "program.py", *free_endpoints(2))
    with running([sys.executable, "program.py"], folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        process.stdout.close()
        assert process.wait() == 0
    assert lines == ["2", "events.DeathLog running 0", "caged running 0"]
