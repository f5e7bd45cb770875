# What `load` says of a circus.ini that is wrong, or cannot be read.

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from fixture_types import Write
from ini_files import problems

from circusplug._config.ini_includes import read_ini
from circusplug._errors import ConfigError


def test_all_problems_of_all_files_are_raised_at_once(write: Write) -> None:
    write("[plugin:x]\nuse = a.B\nhost.max_errors = 0", "extra.ini")
    path = write(
        """
        [circus]
        include = extra.ini
        endpoint = 5555
        pubsub_endpoint = tcp://localhost
        check_delay = often
        [plugin:logger]
        use = a.B
        host.restrat = always
        host.uid = 0
        active = maybe
        [plugin:none]
        x = 1
        [plugin:typo]
        use a.B
        isolate = ture
        """
    )
    assert problems(path) == (
        "circus.ini:14: [plugin:typo]: 'use a.B' is no option; write KEY = VALUE",
        (
            "circus.ini:3: [circus]: 'endpoint': '5555' is no ZMQ endpoint; "
            "write tcp://HOST:PORT or ipc://PATH"
        ),
        (
            "circus.ini:4: [circus]: 'pubsub_endpoint': 'tcp://localhost' needs a host and a port "
            "from 1 to 65535, tcp://127.0.0.1:5555"
        ),
        "circus.ini:5: [circus]: 'check_delay': 'often' is not a number",
        (
            "circus.ini:8: [plugin:logger]: 'host.restrat' is no host option "
            "(did you mean 'host.restart'?)"
        ),
        (
            "circus.ini:9: [plugin:logger]: 'host.uid' needs a process of its own; "
            "add 'isolate = true'"
        ),
        "circus.ini:10: [plugin:logger]: 'active': 'maybe' is not yes or no",
        "circus.ini:11: [plugin:none]: 'use' is missing; give the dotted name of a plugin class",
        "circus.ini:15: [plugin:typo]: 'isolate': 'ture' is not yes or no",
        "extra.ini:3: [plugin:x]: 'host.max_errors': '0' is less than 1",
    )


def test_a_problem_of_the_default_section_is_placed_there(write: Write) -> None:
    path = write("[DEFAULT]\nactive = perhaps\n[plugin:p]\nuse = a.B\n")
    assert problems(path) == ("circus.ini:2: [plugin:p]: 'active': 'perhaps' is not yes or no",)


def test_two_sections_that_end_up_with_one_name_are_a_problem(write: Write) -> None:
    path = write("[plugin:p]\nuse = a.B\n[plugin:plugin:p]\nuse = a.B")
    assert problems(path) == (
        "circus.ini: [plugin:plugin:p]: two plugins are named 'p'; give each its own 'name'",
    )


def test_a_line_before_any_section_is_a_problem_and_said_once(write: Write) -> None:
    assert problems(write("# hello\nendpoint = x\ny = z\n[circus]\n")) == (
        "circus.ini:2: 'endpoint = x' stands before any [section]; put it under one",
    )


def test_a_byte_order_mark_is_named_as_such(write: Write) -> None:
    assert problems(write("\ufeff[circus]\n")) == (
        "circus.ini:1: starts with a byte order mark; save it as UTF-8 without one",
    )


def test_a_long_line_is_shown_shortened(write: Write) -> None:
    (problem,) = problems(write("[x]\n" + "secret" * 50))
    assert len(problem) < 120


def test_a_missing_file_is_said_in_one_line(write: Write) -> None:
    assert problems("etc/none.ini") == ("etc/none.ini: no such file",)


def test_a_directory_is_said_in_one_line(tmp_path: Path) -> None:
    assert problems(tmp_path) == (f"{tmp_path}: is a directory; give the ini file in it",)


def test_a_path_that_can_be_none_is_said_in_one_line() -> None:
    assert problems("a\0b") == ("'a\\x00b': cannot be read: embedded null byte",)


def test_a_file_that_must_not_be_read_is_said_in_one_line() -> None:
    def read(path: str) -> str:  # root may read everything, so that no real file will do
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    with pytest.raises(ConfigError) as caught:
        read_ini("circus.ini", {}, read)
    assert caught.value.problems == ("circus.ini: cannot be read: Permission denied",)


def test_a_path_through_a_file_is_said_in_one_line(write: Write) -> None:
    write("[circus]")
    assert problems("circus.ini/x") == ("circus.ini/x: cannot be read: Not a directory",)


def test_a_file_that_is_not_utf_8_is_said_with_its_line(write: Write) -> None:
    path = write("")
    path.write_bytes(b"[circus]\n# caf\xe9\n")
    assert problems(path) == ("circus.ini:2: is not UTF-8 (byte 0xe9); save it as UTF-8",)


def test_an_included_file_that_is_not_utf_8_is_a_problem_beside_others(write: Write) -> None:
    path = write("[circus]\ninclude = x.ini\nendpoint =")
    Path("x.ini").write_bytes(b"\xff")
    assert [problem[:9] for problem in problems(path)] == ["x.ini:1: ", "circus.in"]
