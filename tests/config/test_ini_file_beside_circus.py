# Circus itself is the judge here: what its own parser, its own command line, the shell split
# and its own reader of that command line make of a file is what `load` has to make of it.
# Files come from the collection of rules in ini_rules.py, each alone and in pairs, and from
# hypothesis.
#
# CIRCUSPLUG_EXAMPLES sets how many files hypothesis makes per test, and has all pairs of rules
# tried; by default there are the same 30 each time, and every fourth pair in one of its orders.

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from configparser import Error as CircusParserError
from pathlib import Path
from typing import Any

import pytest
from circus.config import get_config
from circus.plugins import _str2cfg, get_plugin_cmd
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ini_rules import RULES, USE, write_rules

from circusplug._config.ini_file import load
from circusplug._config.ini_for_circusd import without_plugins
from circusplug._config.specs import HostConfig
from circusplug._errors import ConfigError

ENVIRONMENT = {
    "PLUG_HOME": "/srv/plug",
    "Plug_Mixed": "mixed",
    "plug.dotted-name": "dotted",
    "PLUG_SPACED": "two words",
    "PLUG_QUOTED": '"two words"',
    "PLUG_NESTED": "$(circus.env.PLUG_HOME)",
    "PLUG_INCLUDE": "extra",
}
many = settings(max_examples=int(os.environ.get("CIRCUSPLUG_EXAMPLES", "30")))


# Circus warns of a fruitless include by a logger method that is deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ini")


def command_line(config: dict[str, Any]) -> list[str]:
    """What follows ``--config`` on a plugin's command line, as the plugin's process gets it."""
    command = get_plugin_cmd({"use": USE, **config}, "tcp://e:1", "tcp://p:1", 5.0, None)
    arguments = shlex.split(command)
    return arguments[arguments.index("--config") + 1 :]


def written_ways(word: str) -> set[str]:
    """How one writes a word so that the shell split returns it and nothing is lost."""
    return {
        word,
        "'" + word + "'",
        '"' + word.replace('"', '\\"') + '"',
        '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"',
        re.sub(r"""([ \t\r\n"'\\])""", r"\\\1", word),
    }


def received(value: Any) -> str | None:
    """What a plugin gets of one value through Circus; None if Circus loses some of it."""
    try:
        arguments = command_line({"key": value})
    except ValueError:  # no closing quotation
        return None
    config = _str2cfg(arguments[0])
    if arguments[1:] != [USE] or list(config) != ["key"]:
        return None
    word = config["key"]
    return word if str(value) in written_ways(word) else None


def is_stripped(value: str, word: str) -> bool:
    r"""Whether Circus loses only the white space around a word: ``\ a`` says that there is some."""
    try:
        return word != word.strip() and shlex.split(value) == [word]
    except ValueError:
        return False


def check_plugin(ours: dict[str, str], circus: dict[str, Any]) -> None:
    """Compare one section: option by option, and as a whole where nothing is lost."""
    circus = {k: v for k, v in circus.items() if k.strip() != "use" and k != "__name__"}
    assert ours.keys() == {key.strip() for key in circus}
    for key, value in sorted(circus.items()):
        if key != key.strip() and key.strip() in circus:
            continue  # the bare key is the one that arrives
        word = received(value)
        mine = ours[key.strip()]
        if word is not None:
            assert mine == word, f"{key} = {value!r}"
        elif value[:1] not in ("'", '"') and not is_stripped(value, mine):
            assert mine == str(value), f"{key} = {value!r} is lost by Circus, kept here"
    try:
        arguments = command_line(circus)
    except ValueError:
        return
    kept = {key.strip(): received(value) for key, value in sorted(circus.items())}
    if _str2cfg(arguments[0]) == kept:
        assert ours == kept


def check_file(path: Path) -> HostConfig | None:
    """Compare everything that `load` and `without_plugins` make of a file with Circus."""
    try:
        circus = get_config(str(path))
    except (CircusParserError, AttributeError):
        # A line that cannot be read, or a continuation that kills circusd.
        with pytest.raises(ConfigError):
            load(path)
        with pytest.raises(ConfigError):
            without_plugins(path)
        return None
    if any("use" not in map(str.strip, plugin) for plugin in circus["plugins"]):
        with pytest.raises(ConfigError, match="'use' is missing"):
            load(path)
        return None
    mine = load(path)
    assert mine.endpoint == circus["endpoint"]
    assert mine.pubsub_endpoint == circus["pubsub_endpoint"]
    assert mine.check_delay == circus["check_delay"]
    assert mine.loglevel == (circus["loglevel"] or "info").lower()
    assert mine.logoutput == (circus["logoutput"] or "-")
    assert [spec.config["name"] for spec in mine.plugins] == [p["name"] for p in circus["plugins"]]
    for spec, plugin in zip(mine.plugins, circus["plugins"], strict=True):
        assert spec.use == plugin["use"]
        check_plugin(dict(spec.config), plugin)
    check_rest(path, circus)
    return mine


def check_rest(path: Path, circus: dict[str, Any]) -> None:
    (path.parent / "flat").mkdir(exist_ok=True)
    flat = path.parent / "flat" / "watchers.conf"
    flat.write_text(without_plugins(path), encoding="utf-8", newline="")
    assert get_config(str(flat)) == {**circus, "plugins": []}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_alone_gives_what_circus_gives(rule: str, folder: Path) -> None:
    check_file(write_rules(folder, rule))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_with_every_other_gives_what_circus_gives(rule: str, folder: Path) -> None:
    number = [*RULES].index(rule)
    others = [*RULES][:number]
    everything = "CIRCUSPLUG_EXAMPLES" in os.environ
    for at, other in enumerate(others if everything else others[number % 4 :: 4]):
        orders = [(rule, other), (other, rule)]
        for pair in orders if everything else orders[at % 2 :][:1]:
            check_file(write_rules(folder, *pair))


tricky = st.text(
    alphabet=" \t:;=#'\"\\$()%[]{}.,-_aBü\u00a0\u2028\x0b\x1c0", max_size=12
) | st.sampled_from(
    [
        "a b",
        '"a b"',
        "'a b'",
        '""',
        "a ; b",
        "a:::b",
        "\\d",
        "\\\\",
        "$(circus.env.PLUG_HOME)",
        "((circus.env.plug_spaced))",
        "$(circus.env.inner)",
        "$(circus.env.a)",
        "$(circus.env.PLUG_NESTED)",
    ]
)
keys = st.sampled_from(["a", "B", "b", "a.b", "ü", "key with spaces", "", "#a", "-x", " a"])
option = st.builds("{}{}{}".format, keys, st.sampled_from(["=", " = ", ": ", ":"]), tricky)
continuation = st.builds("{}{}".format, st.sampled_from(["  ", "\t"]), tricky)
other_line = st.sampled_from(["", "   ", "# comment", "; a = b", "rem a = b", "REM"])
header = st.sampled_from(["[plugin:p]", "[plugin:q]", "[plugin:P q]", "[env]", "[w]", "[DEFAULT]"])
body_line = option | option | continuation | other_line
line = option | option | continuation | other_line | header
ending = st.sampled_from(["\n", "\n", "\r\n", "\r"])


def used(lines: list[str], ending: str) -> str:
    # Plugins that Circus would refuse for want of a 'use' are no matter of reading.
    start = [f"[plugin:{name}]{ending}use = {USE}" for name in ("p", "q", "P q")]
    return ending.join([*start, *lines])


@many
@given(lines=st.lists(line, max_size=25), end=ending)
@example(lines=["a = ;x ", "a=;"], end="\n")
@example(lines=["a = 1", "[plugin:q]", "  a = 2"], end="\r\n")
def test_any_file_gives_what_circus_gives(folder: Path, lines: list[str], end: str) -> None:
    path = folder / "main.ini"
    path.write_text(used(lines, end), encoding="utf-8", newline="")
    check_file(path)


@many
@given(main=st.lists(body_line, max_size=8), extra=st.lists(line, max_size=12), end=ending)
def test_any_file_with_an_include_gives_what_circus_gives(
    folder: Path, main: list[str], extra: list[str], end: str
) -> None:
    path = folder / "main.ini"
    text = end.join(["[circus]", "include = extra.ini", used(main, end)])
    path.write_text(text, encoding="utf-8", newline="")
    text = end.join(["[env]", *extra])
    (folder / "extra.ini").write_text(text, encoding="utf-8", newline="")
    check_file(path)


@many
@given(lines=st.lists(line | tricky, max_size=10))
def test_what_circus_cannot_read_is_an_error_and_nothing_else_is(
    folder: Path, lines: list[str]
) -> None:
    path = folder / "main.ini"
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    try:
        get_config(str(path))
    except (CircusParserError, AttributeError):
        with pytest.raises(ConfigError):
            without_plugins(path)
    else:
        without_plugins(path)
