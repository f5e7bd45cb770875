# What `load` makes of a circus.ini, rule by rule: its lines, values, variables and sections.
# test_ini_file_beside_circus.py holds the same rules against Circus itself.

from __future__ import annotations

from collections.abc import Callable

import pytest
from fixture_types import Write
from ini_files import Config, names

from circusplug._config.ini_file import load
from circusplug._config.specs import HostConfig, PluginSpec


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


def test_a_path_object_is_as_good_as_text(write: Write) -> None:
    path = write("[plugin:p]\nuse = a.B")
    assert load(path, {}) == load(str(path), {})
