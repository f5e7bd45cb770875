# Files that a circus.ini includes: which ones are read, and what wins.

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from fixture_types import Write
from ini_files import names, problems

from circusplug._config.ini_file import load


def test_includes_are_globs_relative_to_the_main_file(write: Write) -> None:
    write("[plugin:a]\nuse = a.B", "etc/parts.ini")
    write("[plugin:b]\nuse = a.B", "etc/more.conf")
    path = write("[circus]\ninclude = p*.ini\n  more.conf", "etc/circus.ini")
    host = load(path, {})
    assert names(host) == ["a", "b"]
    assert host.plugins[0].where == "etc/parts.ini: [plugin:a]"


def test_an_include_directory_brings_its_ini_files(write: Write) -> None:
    write("[plugin:a]\nuse = a.B", "d/a.ini")
    write("[plugin:b]\nuse = a.B", "d/b.conf")
    assert names(load(write("[circus]\ninclude_dir = d"), {})) == ["a"]


def test_an_absolute_include_is_taken_as_it_is(write: Write, tmp_path: Path) -> None:
    write("[plugin:a]\nuse = a.B", "d/a.ini")
    assert names(load(write(f"[circus]\ninclude = {tmp_path}/d/a.ini"), {})) == ["a"]


def test_what_came_first_wins_over_an_include(write: Write) -> None:
    write("[plugin:p]\na = 2\nb = 3\n[circus]\ncheck_delay = 9\nloglevel = error", "extra.ini")
    path = write("[circus]\ninclude = extra.ini\ncheck_delay = 1\n[plugin:p]\nuse = a.B\na = 1")
    host = load(path, {})
    assert dict(host.plugins[0].config) == {"name": "plugin:p", "a": "1", "b": "3"}
    assert (host.check_delay, host.loglevel) == (1.0, "error")


def test_an_included_files_own_includes_are_not_followed(write: Write) -> None:
    write("[circus]\ninclude = c.ini\ninclude_dir = .", "b.conf")
    write("[plugin:c]\nuse = a.B", "c.ini")
    assert load(write("[circus]\ninclude = b.conf"), {}).plugins == ()


def test_includes_see_the_environment_but_not_the_env_section(write: Write) -> None:
    write("[plugin:a]\nuse = a.B", "a.conf")
    write("[plugin:b]\nuse = a.B", "b.conf")
    path = write("[circus]\ninclude = $(circus.env.PART).conf\n[env]\npart = b")
    assert names(load(path, {"PART": "a"})) == ["a"]


def test_an_include_that_matches_nothing_is_warned_of(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write("[circus]\ninclude = none.ini\n[plugin:p]\nuse = a.B")
    assert names(load(path, {})) == ["p"]
    assert [(r.name, r.levelno) for r in caplog.records] == [("circusplug", logging.WARNING)]
    assert "circus.ini:2: [circus]: 'include': none.ini matches no file" in caplog.text


def test_an_included_directory_is_passed_over_with_a_warning(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("", "d/a.ini")
    assert load(write("[circus]\ninclude = d"), {}).plugins == ()
    assert "d: included by circus.ini, but cannot be read: Is a directory" in caplog.text


def test_a_value_continued_in_another_file_than_its_own_is_a_problem(write: Write) -> None:
    write("[plugin:p]\na = 2\n  3", "extra.ini")
    path = write("[circus]\ninclude = extra.ini\n[plugin:p]\nuse = a.B\na = 1")
    assert problems(path) == (
        (
            "extra.ini:3: [plugin:p]: cannot continue 'a', which circus.ini:5 has set already; "
            "remove it in one place"
        ),
    )
