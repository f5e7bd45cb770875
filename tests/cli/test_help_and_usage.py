# What the commands say of themselves: their help, their version, and the usage after an error.

from __future__ import annotations

import re

import pytest
from fixture_types import Main

import circusplug


def test_help_names_every_command_and_what_to_try_first(main: Main) -> None:
    status, out, _ = main("--help")
    assert status == 0
    for command in ("run", "up", "check", "plugin", "migrate"):
        assert re.search(rf"^ +{command} ", out, re.MULTILINE)
    assert "Try 'circusplug check circus.ini' first" in out


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        ("run", ["Ctrl-C or SIGTERM stops", "SIGHUP reads the file again", "'isolate = true'"]),
        ("up", ["without its plugin sections", "pip install 'circusplug[circusd]'"]),
        ("check", ["every problem at once", "exits with status 1", "--no-import"]),
        ("migrate", ["[plugin:circusplug]", "backup", "--undo"]),
        ("plugin", ["key:value:::key:value", "JSON object", "Example: circusplug plugin --config"]),
    ],
)
def test_the_help_of_a_command_teaches_its_use(main: Main, command: str, taught: list[str]) -> None:
    status, out, _ = main(command, "--help")
    text = " ".join(out.split())
    assert status == 0
    assert [part for part in taught if part not in text] == []


def test_every_option_has_a_help_text(main: Main) -> None:
    for command in ("run", "up", "check", "plugin", "migrate"):
        _, out, _ = main(command, "--help")
        options = re.findall(r"^  (-.*)\n(.*)", out.partition("options:")[2], re.MULTILINE)
        for option, next_line in options:
            assert re.search(r"\S  +\S", option) or next_line.startswith(" " * 20), option


@pytest.mark.parametrize("arguments", [["--version"], ["plugin", "--version"]])
def test_the_version_is_the_package_s(main: Main, arguments: list[str]) -> None:
    assert main(*arguments) == (0, f"circusplug {circusplug.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["bogus"], "invalid choice: 'bogus'"),
        (["run"], "the following arguments are required: circus.ini"),
        (["check"], "the following arguments are required: circus.ini"),
        (["plugin"], "the following arguments are required: plugin"),
        (["run", "x.ini", "--bogus"], "unrecognized arguments: --bogus"),
        (["run", "x.ini", "--log-level", "loud"], "--log-level: invalid choice: 'loud'"),
        (["run", "x.ini", "--endpoint", "foo"], "--endpoint: 'foo' is no ZMQ endpoint; write tcp"),
        (["run", "x.ini", "--pubsub", "tcp://h"], "--pubsub: 'tcp://h' needs a host and a port"),
        (["plugin", "a.B", "--endpoint", "foo"], "--endpoint: 'foo' is no ZMQ endpoint"),
        (["plugin", "a.B", "--check-delay", "soon"], "'soon' is not a number of seconds"),
        (["plugin", "a.B", "--check-delay", "nan"], "'nan' is not a number of seconds"),
        (["plugin", "a.B", "--check-delay", "inf"], "'inf' is not a number of seconds"),
        (["plugin", "a.B", "--check-delay", "-1"], "argument --check-delay: "),
    ],
)
def test_a_usage_error_shows_the_usage_and_exits_with_status_2(
    main: Main, arguments: list[str], said: str
) -> None:
    status, out, err = main(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("usage: circusplug")
    assert said in err.splitlines()[-1]
