# Circus itself is the judge here: what its own parser, its own command line, the shell split
# and its own reader of that command line make of a file is what `load` has to make of it.
# Files come from a collection of rules, each alone and in pairs, and from hypothesis.
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

from circusplug._config.ini_file import load
from circusplug._config.ini_for_circusd import without_plugins
from circusplug._config.specs import HostConfig
from circusplug._errors import ConfigError

USE = "circus.plugins.CircusPlugin"
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


# -- the judge --------------------------------------------------------------------------------


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


# -- a collection of rules --------------------------------------------------------------------

# Each is (lines within the plugin's section, the rest of the main file, an included file).
RULES: dict[str, tuple[str, str, str]] = {
    "equals": ("a1 = one\na2=two\na3   =   three", "", ""),
    "colon": ("b1: one\nb2 :two\nb3 : a=b", "", ""),
    "equals in the value": ("c1 = a=b:c\nc2 = ==", "", ""),
    "case of keys": ("Case = upper\ncase = lower\nCASE = all", "", ""),
    "first value of a key": ("dup = first\ndup = second", "", ""),
    "second value continued": ("dup2 = first\ndup2 = second\n  more", "", ""),
    "continuation": ("multi = one\n  two\n\tthree", "", ""),
    "continuation after a blank line": ("gap = one\n\n\n  two", "", ""),
    "comment within a value": ("split = one\n# comment\n  two\n; comment\nrem x\n  three", "", ""),
    "indented comment is data": ("data = one\n  # two\n  ; three", "", ""),
    "quoted continuation": ('qc = "one\n  two"', "", ""),
    "comment lines": ("# c = 1\n; c = 2\nrem c = 3\nREM c = 4\nrem\nremark = 5", "", ""),
    "hash is data": ("url = http://host/#frag\nhash = a # b", "", ""),
    "semicolon": (
        "s1 = a ; comment\ns2 = a;b\ns3 = a;b ; c\ns4 = ;x\ns5 = ;x \ns6 = a\t;b",
        "",
        "",
    ),
    "two empty quotes": ('e1 = ""\ne2 = "" ; nothing\ne3 =\ne4 :\ne5 = \'\'', "", ""),
    "percent": ("p1 = %(a1)s\np2 = 100%\np3 = %%", "", ""),
    "double quotes": ('dq1 = "a b"\ndq2 = "a \\"b\\" \\\\ \\c"\ndq3 = " a "', "", ""),
    "single quotes": ("sq1 = 'a b'\nsq2 = 'a \"b\" \\'", "", ""),
    "quotes within": ('qw1 = {"a": 1}\nqw2 = "a" "b"\nqw3 = a"b c"d\nqw4 = "a"b', "", ""),
    "one quote": ("oq = it's", "", ""),
    "backslashes": ("bs1 = C:\\temp\nbs2 = a\\\\b\nbs3 = a\\ b\nbs4 = \\d+\\.\nbs5 = x\\", "", ""),
    "backslash first": ("bf1 = \\ a\nbf2 = \\a\nbf3 = \\\\ a", "", ""),
    "dollar": ("d1 = $HOME\nd2 = `id`\nd3 = ~/x\nd4 = *\nd5 = $WID", "", ""),
    "triple colon": ("tc1 = a:::b\ntc2 = a:\ntc3 = ::a\ntc4 = :a", "", ""),
    "white space": ("ws1 = a b\nws2 =   a   b   \nws3 = \u00a0a\u00a0", "", ""),
    "not ascii": ("ü = ä\nn2 = \u2028x\x85y", "", ""),
    "no key": ("= nothing\n: x", "", ""),
    "indented first line": ("", "[plugin:indent]\n  use = x\nuse = " + USE + "\n a = 1", ""),
    "priority": ("priority = 007", "", ""),
    "name": ("name = mine\n__name__ = yours", "", ""),
    "reserved name continued": ("__name__ = a\n  b", "", ""),
    "watcher options": (
        (
            "priority = 5\nwarmup_delay = 1\nstop_signal = QUIT\nsingleton = True\nmax_retry = 3\n"
            "stdout_stream.class = FileStream\nstdout_stream.filename = x.log\nactive = no"
        ),
        "",
        "",
    ),
    "environment": (
        (
            "v1 = $(circus.env.PLUG_HOME)/x\nv2 = ((circus.env.plug_home))"
            "\nv3 = $(CIRCUS.ENV.Plug_Home)\nv4 = $(circus.env.no_such)\nv5 = $(circus.plug_home)"
            "\nv6 = $(env.plug_home)"
            "\nv7 = $(circus.env.plug.dotted-name)\nv8 = $(circus.circus.env.plug_home)"
            "\nv9 = $(circus.env.PLUG_HOME\nv10 = $(circus.env.)\nv11 = $(circus.env)"
            "\nv12 = $(circus.env.__name__)\nv13 = $(circus.wid)\nv14 = $PLUG_HOME"
        ),
        "",
        "",
    ),
    "environment with spaces": (
        (
            "vs1 = $(circus.env.PLUG_SPACED)\nvs2 = '$(circus.env.PLUG_SPACED)'"
            "\nvs3 = $(circus.env.PLUG_QUOTED)\nvs4 = $(circus.env.PLUG_NESTED)"
        ),
        "",
        "",
    ),
    "env section": (
        (
            "w1 = $(circus.env.new)\nw2 = $(circus.env.plug_home)\nw3 = $(circus.env.chain)"
            "\nw4 = $(circus.env.other)\nw5 = $(circus.env.__name__)"
        ),
        (
            "[env]\nNEW = new\nplug_home = /elsewhere\n"
            "chain = $(circus.env.NEW)$(circus.env.plug_home)"
            "\nother = $(circus.env.plug_nested)"
        ),
        "",
    ),
    "env section with another case": (
        "x1 = $(circus.env.shade)",
        "[env]\nshade = lower\nSHADE = upper\n",
        "",
    ),
    "env pattern": ("y1 = $(circus.env.only)", "[env:*]\nonly = watchers\n", ""),
    "section repeated": ("z1 = one", "[plugin:p]\nz1 = again\nz2 = two\n", ""),
    "sections in disorder": (
        "",
        f"[plugin:zz]\nuse = {USE}\n[plugin:B]\nuse: {USE}\n[plugin:aa]\nuse ={USE}\n",
        "",
    ),
    "section names": (
        "",
        (
            f"[plugin:two words] tail\nuse = {USE}\n[plugin:a]b]\nuse = {USE}\n"
            f"[ plugin:spaced ]\nuse = {USE}\n[Plugin:upper]\nx = 1\n[plugins]\ny = 2\n"
        ),
        "",
    ),
    "empty section": ("", "[plugin:empty]\n# nothing\n[watcher:none]\n[plugin:empty2]\n", ""),
    "other sections": (
        "",
        (
            "[watcher:w]\ncmd = sleep $(circus.env.plug_home)\nnumprocesses = 2\n"
            "[socket:s]\nhost = localhost\nport = 0\n[env:w]\nA = b\n[anything]\nx = y\n"
            "[circusplug]\n"
            "stop_timeout = 3\n"
        ),
        "",
    ),
    "default section": (
        "df2 = own",
        "[DEFAULT]\ndf1 = all\ndf2 = default\n[watcher:d]\ncmd = x\n[plugin:nothing]\nuse = "
        + USE
        + "\n",
        "",
    ),
    "default section as environment": (
        "de1 = $(circus.env.df3)$(circus.env.use)",
        "[DEFAULT]\ndf3 = all\n[env]\nx = 1\n",
        "",
    ),
    "include": ("", "[circus]\ninclude = extra.ini\n", f"[plugin:extra]\nuse = {USE}\nx = 1\n"),
    "include continued": (
        "i1 = main",
        "[circus]\ninclude = nothing.ini\n  # really\n extra.*\n",
        f"[plugin:p]\ni1 = include\ni2 = include\n  more\nuse = {USE}\n[watcher:i]\ncmd = y\n",
    ),
    "include directory": (
        "",
        "[circus]\ninclude_dir = $(circus.env.PLUG_INCLUDE).d no.d\n",
        "[env]\nFROM = include\n[circus]\nloglevel = DEBUG\n[watcher:i]\ncmd = z\ncopy_env = 1\n",
    ),
    "include by [env] is no include": (
        "",
        "[env]\nWHERE = extra.ini\n[circus]\ninclude = $(circus.env.WHERE)\n",
        f"[plugin:extra]\nuse = {USE}\n",
    ),
    "include within an include": (
        "",
        "[circus]\ninclude = extra.ini\n",
        "[circus]\ninclude = main.ini\ninclude_dir = .\n",
    ),
    "include of itself": ("", "[circus]\ninclude_dir = .\n", "[watcher:self]\ncmd = x\n"),
    "include in the default section": (
        "",
        "[DEFAULT]\ninclude = extra.ini\n[circus]\nloglevel = error\n[watcher:v]\ncmd = v\n",
        "[watcher:w]\ncmd = w\n",
    ),
    "continued in an include": (
        "ci = one",
        "[circus]\ninclude = extra.ini\n",
        "[plugin:p]\nci = two\n  three\n",
    ),
    "circus options": (
        "",
        (
            "[circus]\nendpoint = tcp://127.0.0.1:7777\npubsub_endpoint = ipc://x.sock\n"
            "check_delay = 1.5\nloglevel = WARNING\n"
            "logoutput = $(circus.env.PLUG_HOME)/log ; here\n"
            "statsd = yes\numask = 022\npidfile = pid\nfqdn_prefix = x\n"
        ),
        "",
    ),
    "no option": ("nothing here", "", ""),
    "unclosed section": ("", "[plugin:open\nx = 1\n[]\n", ""),
    "line endings": ("le1 = a\r\nle2 = b\rle3 = c\r\n  d", "", ""),
    "other line breaks": ("lb1 = a\x0bb\nlb2 = a\x0cb\x1cc\n\x0blb3 = d", "", ""),
}


def write_rules(folder: Path, *names: str) -> Path:
    rules = [RULES[name] for name in names]
    inside = "".join(f"{inside}\n" for inside, _, _ in rules)
    outside = "".join(f"{outside}\n" for _, outside, _ in rules)
    path = folder / "main.ini"
    included = "".join(f"{included}\n" for _, _, included in rules)
    (folder / "extra.d").mkdir(exist_ok=True)
    text = f"[plugin:p]\nuse = {USE}\n{inside}{outside}"
    path.write_text(text, encoding="utf-8", newline="")
    for place in (folder / "extra.ini", folder / "extra.d" / "inner.ini"):
        place.write_text(included, encoding="utf-8", newline="")
    return path


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


# -- files that nobody wrote ------------------------------------------------------------------

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
