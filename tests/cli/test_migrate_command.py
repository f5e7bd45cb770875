# `circusplug migrate`: what it shows, what it asks and whom, and what it says if it cannot be done.
# What it does to files is in tests/migrate.

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, Running, plugin, run, run_here
from fixture_types import Main


def test_migrate_shows_the_changes_and_asks_for_a_yes(tmp_path: Path, ini: Any) -> None:
    path = ini(plugin("one"))
    before = path.read_bytes()
    done = run_here(tmp_path, "migrate", "circus.ini")
    assert done.returncode == 1
    assert "+use = circusplug.Host" in done.stdout.splitlines()
    assert done.stdout.endswith("nothing was changed\n")
    assert done.stderr == "not a terminal: add --yes to do it\n"
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["circus.ini", "tellers.py"]


def test_migrate_masks_secrets_and_prints_warnings_apart(tmp_path: Path, ini: Any) -> None:
    path = ini(
        plugin("dog", "circus.plugins.watchdog.WatchDog", api_token="hunter2"), plugin("b", a="1")
    )
    done = run_here(tmp_path, "migrate", path)
    assert "+api_token = ****" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "[plugin:dog]: watchers_regex = .* takes in [plugin:circusplug]" in warning


def test_migrate_does_it_and_undo_puts_it_back(tmp_path: Path, ini: Any) -> None:
    path = ini(plugin("one", greeting="hello"))
    before = path.read_bytes()
    done = run_here(tmp_path, "migrate", "circus.ini", "--yes", "--to", "my plugins.ini")
    assert (done.returncode, done.stderr) == (0, "")
    assert "'circusplug migrate --undo circus.ini' undoes" in done.stdout
    checked = run_here(tmp_path, "check", "--json", "my plugins.ini")
    assert json.loads(checked.stdout)["plugins"]["one"]["config"]["greeting"] == "hello"
    undone = run_here(tmp_path, "migrate", "--undo", "circus.ini")
    assert (undone.returncode, undone.stderr) == (0, "")
    assert path.read_bytes() == before


def test_migrate_takes_a_yes_at_a_terminal(tmp_path: Path, ini: Any) -> None:
    path = ini(plugin("one"))
    before = path.read_bytes()
    ours, theirs = os.openpty()
    try:
        os.write(ours, b"y\n")
        done = run(tmp_path, "migrate", "circus.ini", stdin=theirs)
    finally:
        os.close(theirs)
        os.close(ours)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_bytes() != before


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"])
def test_migrate_takes_what_is_no_yes_at_a_terminal_for_a_no(
    main: Main, ini: Any, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    path = ini(plugin("one"))
    before = path.read_bytes()
    ours, theirs = os.openpty()
    try:
        os.write(ours, answer.encode())
        with open(theirs, closefd=False) as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            status, out, err = main("migrate", "circus.ini")
            monkeypatch.undo()
    finally:
        os.close(theirs)
        os.close(ours)
    assert (status, err) == (1, "")
    assert out.endswith("Do it? [y/N] nothing was changed\n")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.ini"], "absent.ini: no such file"),
        (["--undo", "circus.ini"], "circus.ini"),
        (["circus.ini", "--to", "no/such/dir.ini"], "no/such"),
        (["circus.ini", "--to", "tellers.py"], "tellers.py: exists already"),
        (["nul.ini"], "has no plugin section"),
    ],
)
def test_a_migration_that_cannot_be_done_is_one_line(
    main: Main, ini: Any, arguments: list[str], said: str
) -> None:
    ini(plugin("one"))
    Path("nul.ini").write_text("[circus]\ninclude = a\0b\n")
    status, out, err = main("migrate", *arguments)
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("circusplug: ")
    assert said in err


@pytest.mark.parametrize("arguments", [["--undo", "--to", "x.ini"]])
def test_options_of_migrate_that_do_not_go_together_are_refused(
    main: Main, ini: Any, arguments: list[str]
) -> None:
    status, _, err = main("migrate", ini(plugin("one")), *arguments)
    assert status == 2
    assert "leave out --to" in err


def test_migrate_does_not_ask_where_nobody_can_answer(tmp_path: Path, ini: Any) -> None:
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND]
    done = run(tmp_path, "migrate", ini(plugin("one")), program=shell)
    assert (done.returncode, done.stderr) == (1, "not a terminal: add --yes to do it\n")


def test_ctrl_c_at_a_question_ends_with_status_130(tmp_path: Path, ini: Any) -> None:
    ini(plugin("one"))
    ours, theirs = os.openpty()
    try:
        with Running(tmp_path, "migrate", "circus.ini", stdin=theirs) as command:
            command.wait_for("+use = circusplug.Host")
            command.interrupt()
            # Python notes a signal that comes right before it begins to read, and acts on it when
            # the read is over.
            os.write(ours, b"\n")
            assert command.end() == 130
    finally:
        os.close(theirs)
        os.close(ours)
    assert "Traceback" not in command.output
