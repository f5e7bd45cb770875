# What `load` makes of a circus.ini, rule by rule, and what it says when a file is wrong.
# test_ini_file_beside_circus.py holds the same rules against Circus itself.

from __future__ import annotations

import errno
import logging
import os
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from circusplug._config.ini_file import load
from circusplug._config.ini_for_circusd import without_plugins
from circusplug._config.ini_includes import read_ini
from circusplug._config.specs import HostConfig, PluginSpec
from circusplug._errors import ConfigError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write files into the current directory, so that messages name them as a user would."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str, name: str = "circus.ini") -> Path:
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8", newline="")
        return path

    return write_file


@pytest.fixture
def plugin(write: Write) -> Callable[..., PluginSpec]:
    """Read the one plugin of a file from the lines of its section."""

    def read(lines: str, rest: str = "", environ: Mapping[str, str] | None = None) -> PluginSpec:
        path = write("[plugin:p]\nuse = a.B\n" + textwrap.dedent(lines) + "\n" + rest)
        return load(path, environ or {}).plugins[0]

    return read


@pytest.fixture
def config(plugin: Callable[..., PluginSpec]) -> Callable[..., dict[str, Any]]:
    """The same, and return what the plugin gets, without its name."""

    def read(*args: Any, **kwargs: Any) -> dict[str, Any]:
        found = dict(plugin(*args, **kwargs).config)
        assert found.pop("name") == "plugin:p"
        return found

    return read


Config = Callable[..., dict[str, Any]]


def problems(path: Path | str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


def names(host: HostConfig) -> list[str]:
    return [spec.name for spec in host.plugins]


# -- lines ------------------------------------------------------------------------------------


def test_an_equals_sign_and_a_colon_both_set_a_key(config: Config) -> None:
    assert config("a = 1\nb: 2\nc=3\nd :4") == {"a": "1", "b": "2", "c": "3", "d": "4"}


def test_the_first_separator_counts_and_the_rest_is_value(config: Config) -> None:
    assert config("a = b=c:d\ne: f=g") == {"a": "b=c:d", "e": "f=g"}


def test_keys_keep_their_case(config: Config) -> None:
    assert config("Key = 1\nkey = 2") == {"Key": "1", "key": "2"}


def test_a_key_set_twice_keeps_its_first_value(config: Config) -> None:
    assert config("key = first\nkey = second") == {"key": "first"}


def test_what_continues_the_second_setting_of_a_key_continues_the_first(config: Config) -> None:
    assert config("key = first\nkey = second\n  more") == {"key": "first\nmore"}


def test_a_section_that_comes_again_adds_to_the_first(config: Config) -> None:
    assert config("a = 1", "[x]\n[plugin:p]\na = 2\nb = 3") == {"a": "1", "b": "3"}


@pytest.mark.parametrize("comment", ["# x = 1", "; x = 1", "rem x = 1", "REM", "Rem\tx", "   "])
def test_comment_lines_and_empty_ones_are_skipped(config: Config, comment: str) -> None:
    assert config(f"a = 1\n{comment}\nb = 2") == {"a": "1", "b": "2"}


def test_a_word_that_starts_with_rem_is_no_comment(config: Config) -> None:
    assert config("remark = 1") == {"remark": "1"}


def test_a_comment_and_an_empty_line_do_not_end_a_value(config: Config) -> None:
    assert config("a = 1\n# comment\n\n  2") == {"a": "1\n2"}


def test_an_indented_line_continues_the_value_above(config: Config) -> None:
    assert config("a = 1\n  2\n\t3\nb = 4") == {"a": "1\n2\n3", "b": "4"}


def test_an_indented_comment_sign_is_part_of_the_value(config: Config) -> None:
    assert config("a = 1\n  # 2\n  ; 3") == {"a": "1\n# 2\n; 3"}


def test_a_semicolon_after_white_space_starts_a_comment(config: Config) -> None:
    assert config("a = 1 ; note\nb = 1;2\nc = 1\t;note") == {"a": "1", "b": "1;2", "c": "1"}


def test_only_the_first_semicolon_of_a_value_can_start_a_comment(config: Config) -> None:
    assert config("a = 1;2 ; note") == {"a": "1;2 ; note"}


def test_a_hash_sign_within_a_value_is_data(config: Config) -> None:
    assert config("a = http://host/#frag\nb = c # d") == {"a": "http://host/#frag", "b": "c # d"}


def test_a_continuation_has_no_comments(config: Config) -> None:
    assert config("a = 1\n  2 ; 3") == {"a": "1\n2 ; 3"}


def test_two_quotes_or_nothing_mean_an_empty_value(config: Config) -> None:
    assert config("a = \"\"\nb =\nc = ''") == {"a": "", "b": "", "c": ""}


def test_two_quotes_that_go_on_are_an_empty_first_line(config: Config) -> None:
    assert config('a = ""\n  b') == {"a": "\nb"}


def test_percent_signs_are_left_alone(config: Config) -> None:
    assert config("a = %(b)s\nb = 100%") == {"a": "%(b)s", "b": "100%"}


def test_windows_line_endings_are_read_like_others(config: Config) -> None:
    assert config("a = 1\r\nb = 2\r\n  3\r\n") == {"a": "1", "b": "2\n3"}


def test_options_of_the_default_section_reach_every_plugin(config: Config) -> None:
    assert config("a = 1", "[DEFAULT]\na = 2\nb = 3") == {"a": "1", "b": "3"}


# -- values that a plugin gets ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"a b"', "a b"),
        ("'a b'", "a b"),
        ('" a "', " a "),
        ('"a ;b"', '"a'),
        (r'"say \"hi\" \\ \d"', r'say "hi" \ \d'),
        (r"'\d \\'", r"\d \\"),
        ("""'"x"'""", '"x"'),
        (r"a\ b", "a b"),
        (r"a\\b", r"a\b"),
        (r"it\'s", "it's"),
    ],
)
def test_a_value_written_for_the_shell_split_means_one_word(
    config: Config, written: str, meant: str
) -> None:
    assert config(f"key = {written}") == {"key": meant}


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "it's",
        '{"a": 1}',
        '"a" "b"',
        'a"b c"d',
        '"a"b',
        r"\d+\.log",
        r"C:\temp",
        "a:::b",
        "a:",
        ":::",
        "x:1:::y:2",
        "$HOME `id` *",
    ],
)
def test_a_value_that_circus_would_lose_arrives_as_written(config: Config, value: str) -> None:
    assert config(f"key = {value}\nnext = 1") == {"key": value, "next": "1"}


def test_a_priority_is_a_number_and_then_text_again(config: Config) -> None:
    assert config("priority = 007") == {"priority": "7"}


def test_a_priority_that_is_no_number_stays_as_it_is(config: Config) -> None:
    assert config("priority = high") == {"priority": "high"}


def test_the_name_of_the_section_is_the_plugins_name_whatever_the_section_says(
    plugin: Callable[..., PluginSpec],
) -> None:
    spec = plugin("name = mine\n__name__ = yours")
    assert spec.name == "p"
    assert dict(spec.config) == {"name": "plugin:p"}


def test_watcher_options_of_a_plugin_section_reach_the_plugin(config: Config) -> None:
    lines = {"singleton": "yes", "max_retry": "3", "stdout_stream.class": "FileStream"}
    assert config("\n".join(f"{key} = {value}" for key, value in lines.items())) == lines


def test_host_options_do_not_reach_the_plugin(plugin: Callable[..., PluginSpec]) -> None:
    spec = plugin("isolate = yes\nhost.restart = always\nhost.env.A = b\nactive = no")
    assert dict(spec.config) == {"name": "plugin:p", "active": "no"}
    assert (spec.use, spec.isolate, spec.active) == ("a.B", True, False)
    assert (spec.host.restart, dict(spec.host.env)) == ("always", {"A": "b"})


def test_a_specification_says_where_it_comes_from(plugin: Callable[..., PluginSpec]) -> None:
    assert plugin("").where == "circus.ini: [plugin:p]"


# -- variables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    ["$(circus.env.HOME_DIR)", "((circus.env.HOME_DIR))", "$(CIRCUS.Env.home_dir)"],
)
def test_a_variable_is_taken_from_the_environment_in_any_case(config: Config, written: str) -> None:
    assert config(f"key = {written}/x", environ={"Home_Dir": "/srv"}) == {"key": "/srv/x"}


def test_names_of_variables_may_hold_dots_and_dashes(config: Config) -> None:
    assert config("key = $(circus.env.a.b-c)", environ={"A.B-C": "1"}) == {"key": "1"}


@pytest.mark.parametrize(
    "value",
    ["$(circus.env.NONE)", "$(env.A)", "$(circus.A)", "$(circus.env.A", "$A", "$(circus.wid)"],
)
def test_what_is_no_known_variable_stays(config: Config, value: str) -> None:
    assert config(f"key = {value}", environ={"A": "1"}) == {"key": value}


def test_the_env_section_extends_the_environment_and_wins(config: Config) -> None:
    found = config(
        "a = $(circus.env.NEW)\nb = $(circus.env.OLD)",
        "[env]\nNEW = 1\nOLD = 2",
        environ={"OLD": "0"},
    )
    assert found == {"a": "1", "b": "2"}


def test_values_of_the_env_section_see_the_outer_environment_only(config: Config) -> None:
    found = config(
        "a = $(circus.env.PATHS)\nb = $(circus.env.LOOP)",
        "[env]\nPATHS = $(circus.env.PATHS):/more\nX = 1\nLOOP = $(circus.env.X)",
        environ={"PATHS": "/usr"},
    )
    assert found == {"a": "/usr:/more", "b": "$(circus.env.X)"}


def test_an_env_section_for_watchers_is_nothing_to_plugins(config: Config) -> None:
    assert config("a = $(circus.env.X)", "[env:*]\nX = 1") == {"a": "$(circus.env.X)"}


def test_variables_are_replaced_before_quotes_are_taken_off(config: Config) -> None:
    assert config("a = '$(circus.env.X)'", environ={"X": "1 2"}) == {"a": "1 2"}


def test_the_process_environment_is_the_default(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUG_DEFAULT", "x")
    path = write("[plugin:p]\nuse = $(circus.env.PLUG_DEFAULT)")
    assert load(path).plugins[0].use == "x"


# -- sections ---------------------------------------------------------------------------------


def test_the_circus_section_gives_the_hosts_values(write: Write) -> None:
    path = write(
        """
        [circus]
        endpoint = tcp://$(circus.env.WHERE):5555
        pubsub_endpoint: ipc://events.sock
        check_delay = 1.5
        ssh_server = me@there:22
        loglevel = DEBUG
        logoutput = host.log ; not standard error
        statsd = true
        [env]
        where = 10.0.0.1
        """
    )
    assert load(path, {}) == HostConfig(
        (), "tcp://10.0.0.1:5555", "ipc://events.sock", 1.5, "me@there:22", "debug", "host.log"
    )


def test_without_a_circus_section_circuss_defaults_hold(write: Write) -> None:
    host = load(write("[DEFAULT]\nendpoint = tcp://1.2.3.4:5"), {})
    assert host == HostConfig()
    assert host.source == "circus.ini"


def test_an_empty_value_there_means_the_default(write: Write) -> None:
    assert load(write('[circus]\nlogoutput = ""\nloglevel =\nssh_server ='), {}) == HostConfig()


def test_an_empty_file_is_a_host_without_plugins(write: Write) -> None:
    assert load(write(""), {}).plugins == ()


def test_a_level_that_circus_does_not_know_means_info_and_is_warned_of(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    assert load(write("[circus]\nloglevel = chatty"), {}).loglevel == "info"
    assert "circus.ini:2: [circus]: 'loglevel': 'chatty'" in caplog.text


def test_plugins_start_in_the_alphabetical_order_of_their_sections(write: Write) -> None:
    sections = "".join(f"[plugin:{name}]\nuse = a.B\n" for name in ("b", "a", "B", "a10", "a2"))
    assert names(load(write(sections), {})) == ["B", "a", "a10", "a2", "b"]


def test_an_empty_plugin_section_is_skipped(write: Write) -> None:
    assert names(load(write("[plugin:a]\n# use = x\n[plugin:b]\nuse = a.B"), {})) == ["b"]


def test_sections_of_other_programs_are_nothing_to_us(write: Write) -> None:
    path = write("[watcher:w]\ncmd\t= x\n[socket:s]\nport = many\n[x y z]\n[ plugin:p ]\na = 1")
    assert load(path, {}) == HostConfig()


def test_names_of_sections_may_hold_anything(write: Write) -> None:
    path = write("[plugin:my log.ger]\nuse = a.B\n[plugin:a]b] rest\nuse = a.B")
    assert names(load(path, {})) == ["a]b", "my log.ger"]


# -- [circusplug] -----------------------------------------------------------------------------


def test_the_circusplug_section_holds_the_hosts_own_options(write: Write) -> None:
    host = load(write("[circusplug]\nstop_timeout = $(circus.env.T)\n[env]\nT = 2.5"), {})
    assert host.stop_timeout == 2.5


def test_host_options_there_are_defaults_for_every_plugin(write: Write) -> None:
    path = write(
        """
        [circusplug]
        host.restart = never
        host.max_restarts = 1
        [plugin:a]
        use = a.B
        [plugin:b]
        use = a.B
        host.restart = always
        """
    )
    a, b = load(path, {}).plugins
    assert (a.host.restart, a.host.max_restarts) == ("never", 1)
    assert (b.host.restart, b.host.max_restarts) == ("always", 1)


def test_defaults_for_processes_are_for_isolated_plugins_only(write: Write) -> None:
    path = write(
        """
        [circusplug]
        host.nice = 5
        host.env.A = b
        host.rlimit_nofile = 100
        host.on_stall = restart
        [plugin:isolated]
        use = a.B
        isolate = true
        host.env.B = c
        [plugin:thread]
        use = a.B
        """
    )
    isolated, thread = load(path, {}).plugins
    assert isolated.host.to_dict() == {
        "nice": 5,
        "env": {"A": "b", "B": "c"},
        "rlimits": {"nofile": 100},
        "on_stall": "restart",
    }
    assert thread.host.to_dict() == {}


def test_an_isolated_plugins_circus_options_win_over_the_defaults(write: Write) -> None:
    text = "[circusplug]\nhost.graceful_timeout = 1\n[plugin:p]\nuse = a.B\ngraceful_timeout = 3\n"
    assert load(write(text + "isolate = yes"), {}).plugins[0].host.graceful_timeout == 3
    assert load(write(text), {}).plugins[0].host.graceful_timeout == 1


def test_quotes_are_taken_off_the_hosts_own_options_as_off_a_plugins(write: Write) -> None:
    text = "[circusplug]\nstop_timeout = '2.5'\nhost.loglevel = \"error\"\n[plugin:p]\nuse = a.B"
    host = load(write(text), {})
    assert (host.stop_timeout, host.plugins[0].host.loglevel) == (2.5, "error")


def test_the_default_section_says_nothing_to_the_circusplug_section(write: Write) -> None:
    assert load(write("[DEFAULT]\nx = 1\n[circusplug]\nstop_timeout = 1"), {}).stop_timeout == 1


def test_an_unknown_option_there_is_a_problem_with_a_guess(write: Write) -> None:
    text = "[circusplug]\nstop_timout = 1\nhost.restrat = x\nrestart = y\nshape = z\n"
    assert problems(write(text)) == (
        (
            "circus.ini:2: [circusplug]: 'stop_timout' is no option here "
            "(did you mean 'stop_timeout'?)"
        ),
        "circus.ini:4: [circusplug]: 'restart' is no option here (did you mean 'host.restart'?)",
        "circus.ini:5: [circusplug]: 'shape' is no option here (there are stop_timeout, "
        "switch_interval, exit_when_done, circusd_timeout, python_path, log_format, control, "
        "control_pubsub, door, host.*)",
        (
            "circus.ini:3: [circusplug]: 'host.restrat' is no host option "
            "(did you mean 'host.restart'?)"
        ),
    )


def test_a_wrong_value_there_is_reported_once_and_there(write: Write) -> None:
    text = "[circusplug]\nstop_timeout = long\nhost.nice = very\n[plugin:a]\nuse = a.B\n"
    assert problems(write(text + "isolate = 1\n[plugin:b]\nuse = a.B")) == (
        "circus.ini:2: [circusplug]: 'stop_timeout': 'long' is not a number of seconds; "
        "write 90, 1.5 min or 2h",
        "circus.ini:3: [circusplug]: 'host.nice': 'very' is not a whole number",
    )


# -- includes ---------------------------------------------------------------------------------


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


# -- problems ---------------------------------------------------------------------------------


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


def test_a_path_object_is_as_good_as_text(write: Write) -> None:
    path = write("[plugin:p]\nuse = a.B")
    assert load(path, {}) == load(str(path), {})


# -- without_plugins --------------------------------------------------------------------------


def test_without_plugins_the_rest_is_left_as_it_was(write: Write) -> None:
    write("# more\n[watcher:b]\ncmd = b\n[plugin:q]\nuse = c.D\n[circusplug]\nx = 1", "extra.ini")
    path = write(
        """
        # main
        [circus]
        include = extra.ini
          none.ini
        # still here
        endpoint: tcp://1.2.3.4:5
        include_dir = none
        [plugin:p]
        # gone
        use = a.B
          more
        [watcher:a]
        cmd = a ; "comment"
        env = x = y
        """
    )
    assert without_plugins(path) == textwrap.dedent(
        """\
        # main
        [circus]
        # still here
        endpoint: tcp://1.2.3.4:5
        [watcher:a]
        cmd = a ; "comment"
        env = x = y
        # more
        [watcher:b]
        cmd = b
        """
    )


def test_without_plugins_line_endings_stay(write: Write) -> None:
    write("[a]\rb = 1", "extra.ini")
    path = write("[circus]\r\ninclude = extra.ini\r\n[plugin:p]\r\nuse = a.B\r\n[x]\r\ny = z")
    assert without_plugins(path) == "[circus]\r\n[x]\r\ny = z\n[a]\rb = 1\n"


def test_without_plugins_takes_no_include_that_only_an_include_asks_for(write: Write) -> None:
    write("[circus]\ninclude = third.ini\nloglevel = error", "extra.ini")
    assert without_plugins(write("[circus]\ninclude = extra.ini")) == (
        "[circus]\n[circus]\nloglevel = error\n"
    )


def test_without_plugins_plugins_may_be_wrong_but_lines_must_not(write: Write) -> None:
    assert without_plugins(write("[plugin:p]\nhost.x = y")) == ""
    with pytest.raises(ConfigError, match=r"circus\.ini:2: \[x\]: 'nothing' is no option"):
        without_plugins(write("[x]\nnothing"))
