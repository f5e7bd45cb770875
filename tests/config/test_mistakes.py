# What Circus reads without a word and hardly anybody means, and what it obeys in a plugin's section
# and a thread cannot have.

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from circus.config import get_config

from circusplug._config.ini_file import Findings, examine, load
from circusplug._config.ini_for_circusd import without_plugins
from circusplug._errors import ConfigError

Look = Callable[..., Findings]


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Write files, the main one first, and look at it."""
    monkeypatch.chdir(tmp_path)

    def write_and_look(text: str, **more: str) -> Findings:
        Path("circus.ini").write_text(text)
        for name, content in more.items():
            Path(f"{name}.ini").write_text(content)
        return examine("circus.ini", {})

    return write_and_look


# Sections that are almost a plugin's.


@pytest.mark.parametrize(
    ("section", "meant"),
    [
        ("plugins:x", "plugin:x"),
        ("Plugin:X", "plugin:X"),
        ("PLUGIN:x", "plugin:x"),
        ("plugin x", "plugin:x"),
        (" plugin:x", "plugin:x"),
        ("pulgin:x y", "plugin:x y"),
        ("plugin.x", "plugin:x"),
        ("plugin", "plugin:NAME"),
    ],
)
def test_a_section_that_is_almost_a_plugin_s_does_not_pass_a_look(
    look: Look, section: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = look(f"[{section}]\nuse = a.B\n")
    said = f"circus.ini:1: [{section}]: this is no plugin's section (did you mean [{meant}]?)"
    assert found.problems == [said]
    # Circus reads it, so a host does, and says so.
    assert load("circus.ini", {}).plugins == ()
    assert said in caplog.text


@pytest.mark.parametrize(
    "text", ["[plugins:x]\nfile = a.B\n", "[watcher:x]\nuse = a.B\n", "[other]\nuse = a.B\n"]
)
def test_a_section_of_others_is_left_alone(look: Look, text: str) -> None:
    found = look(text)
    assert (found.problems, found.warnings) == ([], [])


# What is there twice.


def test_a_key_or_a_section_that_is_there_twice_is_warned_of(
    look: Look, caplog: pytest.LogCaptureFixture
) -> None:
    found = look("[plugin:a]\nuse = a.B\nx = 1\nx = 1\n[w]\n[plugin:a]\ny = 1\nx = 2\n")
    assert found.problems == []
    assert found.warnings == [
        "circus.ini:4: [plugin:a]: 'x' is set at circus.ini:3 already, and that counts; remove one "
        "of them",
        "circus.ini:6: [plugin:a]: this section begins at circus.ini:1 already; of a key that is "
        "in both, the first counts",
        "circus.ini:8: [plugin:a]: 'x' is set at circus.ini:3 already, and that counts; remove one "
        "of them",
    ]
    assert dict(found.plugins[0].config) == {"name": "plugin:a", "x": "1", "y": "1"}
    load("circus.ini", {})
    assert [record.getMessage() for record in caplog.records] == found.warnings


def test_an_include_may_repeat_what_is_there_but_not_contradict_it(look: Look) -> None:
    found = look(
        "[circus]\ninclude = more.ini\ncheck_delay = 1\n[w]\na = 1\n",
        more="# more\n[circus]\ncheck_delay = 2\n\n\n[w]\na = 1\n",
    )
    assert found.warnings == [
        "more.ini:3: [circus]: 'check_delay' is set at circus.ini:3 already, and that counts; "
        "remove one of them"
    ]


def test_a_file_that_includes_itself_repeats_nothing(look: Look) -> None:
    found = look("[circus]\ninclude = *.ini\n[plugin:a]\nuse = a.B\nx = 1\n[w]\nb = 1\n[w]\n")
    assert found.problems == []
    (told,) = found.warnings
    assert told.startswith("circus.ini:8: [w]: this section begins at circus.ini:6 already")


# The host's options without their prefix.


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("critical", "host.critical"),
        ("max_restarts", "host.max_restarts"),
        ("nice", "host.nice"),
        ("graceful_timeout", "host.graceful_timeout"),
        ("host_critical", "host.critical"),
        ("Host.critical", "host.critical"),
        ("isolte", "isolate"),
        ("Isolate", "isolate"),
        ("isolated", "isolate"),
    ],
)
def test_an_option_of_the_host_without_prefix_is_warned_of(
    look: Look, key: str, meant: str
) -> None:
    found = look(f"[plugin:a]\nuse = a.B\n{key} = 3\n")
    assert found.problems == []
    assert found.warnings == [
        f"circus.ini:3: [plugin:a]: '{key}' goes to the plugin (did you mean '{meant}'?)"
    ]
    assert found.plugins[0].config[key] == "3"


def test_options_of_plugins_and_of_circus_are_not_taken_for_the_host_s(look: Look) -> None:
    # The first is Circus's Flapping's own, the last ones count for an isolated plugin.
    found = look(
        "[plugin:a]\nuse = a.B\nmax_retry = 3\nretry_in = 3\nactive = yes\ntranslate = x\n"
        "priority = 3\nsingleton = yes\nhost.max_errors = 2\nhostname = x\n"
        "[plugin:b]\nuse = a.B\nisolate = yes\ngraceful_timeout = 3\nstop_signal = TERM\n"
    )
    assert (found.problems, found.warnings) == ([], [])


def test_an_option_with_its_prefix_in_another_case_is_told_once(look: Look) -> None:
    found = look("[plugin:a]\nuse = a.B\nhost.Critical = yes\n")
    assert found.problems == [
        "circus.ini:3: [plugin:a]: 'host.Critical' is no host option (did you mean "
        "'host.critical'?)"
    ]
    assert found.warnings == []


# What needs a process of its own.

PROCESS_OPTIONS = {
    "uid": "0",
    "gid": "0",
    "working_dir": "/",
    "copy_env": "yes",
    "rlimit_nofile": "100",
    "rlimit_core": "0",
}


@pytest.mark.parametrize("key", PROCESS_OPTIONS)
def test_what_circus_obeys_and_a_thread_cannot_have_says_isolate(look: Look, key: str) -> None:
    section = f"[plugin:a]\nuse = a.B\n{key} = {PROCESS_OPTIONS[key]}\n"
    refused = look(section)
    assert refused.warnings == []
    (problem,) = refused.problems
    assert problem.startswith(f"circus.ini:3: [plugin:a]: '{key}' is for a process of its own")
    assert "add 'isolate = true'" in problem
    found = look(f"{section}isolate = true\n")
    assert (found.problems, found.warnings) == ([], [])
    done = found.plugins[0].host.to_dict()
    if key.startswith("rlimit_"):
        assert done == {"rlimits": {key[7:]: int(PROCESS_OPTIONS[key])}}
    else:
        assert done.keys() == {key}


def test_all_that_is_wrong_in_one_section_is_told(look: Look) -> None:
    lines = [f"{key} = {value}" for key, value in PROCESS_OPTIONS.items()]
    lines += ["host.nice = 3", "host.on_stall = RESTART", "host.max_errors = 0", "active = perhaps"]
    found = look("[plugin:a]\nuse = a.B\n" + "\n".join(lines))
    keys = [line.split(" = ")[0] for line in lines]
    assert len(found.problems) == len(keys)
    for number, key in enumerate(keys, 3):
        told = [line for line in found.problems if line.startswith(f"circus.ini:{number}: ")]
        assert len(told) == 1, key
        assert key in told[0]


# Environments of plugins.


def test_an_env_section_is_an_isolated_plugin_s_environment(look: Look) -> None:
    found = look(
        "[circusplug]\nhost.env.A = all\nhost.env.E = all\n"
        "[plugin:a]\nuse = a.B\nisolate = yes\nhost.env.C = mine\n"
        "[plugin:b]\nuse = a.B\nisolate = yes\n"
        "[env:plugin:a]\nA = 1\nC = 2\n[env:web, plugin:*]\nB = x y\n[env:*]\nD = watchers'\n"
    )
    assert found.problems == []
    assert [dict(spec.host.env) for spec in found.plugins] == [
        {"A": "1", "B": "x y", "C": "mine", "E": "all"},
        {"A": "all", "B": "x y", "E": "all"},
    ]
    assert "A" not in found.plugins[0].config


@pytest.mark.parametrize("pattern", ["plugin:a", "plugin:*", "web,plugin:?"])
def test_an_env_section_of_a_plugin_on_a_thread_says_isolate(look: Look, pattern: str) -> None:
    text = f"[plugin:a]\nuse = a.B\n[env:{pattern}]\nA = 1\n"
    assert look(text).problems == [
        f"circus.ini:3: [env:{pattern}]: an environment of its own needs a process of its own; "
        "add 'isolate = true' to [plugin:a]"
    ]
    with pytest.raises(ConfigError, match="isolate = true"):
        load("circus.ini", {})


def test_an_env_section_without_a_variable_asks_for_nothing(look: Look) -> None:
    assert look("[plugin:a]\nuse = a.B\n[env:plugin:a]\n").problems == []


def test_a_plugin_whose_isolate_is_misspelt_is_not_told_to_isolate(look: Look) -> None:
    found = look("[plugin:a]\nuse = a.B\nisolate = ture\nuid = 0\n[env:plugin:a]\nA = 1\n")
    assert found.problems == ["circus.ini:3: [plugin:a]: 'isolate': 'ture' is not yes or no"]


@pytest.mark.parametrize("pattern", ["*", "web", "plugin:b", "p*"])
def test_an_env_section_of_others_is_nothing_to_a_plugin(look: Look, pattern: str) -> None:
    found = look(f"[plugin:a]\nuse = a.B\n[env:{pattern}]\nA = 1\n")
    assert (found.problems, found.warnings) == ([], [])


# What circusd gets.


def test_an_include_in_the_default_section_brings_no_plugins_to_circusd(
    look: Look, tmp_path: Path
) -> None:
    look(
        "[DEFAULT]\ninclude = more.ini\ninclude_dir = sub\n[circus]\n[watcher:w]\ncmd = x\n",
        more="[plugin:p]\nuse = a.B\n",
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "s.ini").write_text("[plugin:q]\nuse = a.B\n")
    assert [spec.name for spec in load("circus.ini", {}).plugins] == ["p", "q"]
    # Where circusd's file is, the includes can be found as well.
    (tmp_path / "flat.conf").write_text(without_plugins("circus.ini"))
    circus = get_config("flat.conf")
    assert circus["plugins"] == []
    assert [watcher["name"] for watcher in circus["watchers"]] == ["w"]


def test_an_env_section_of_plugins_is_nothing_to_circusd(look: Look) -> None:
    look("[env:plugin:a]\nA = 1\n[env:web,plugin:a]\nB = 1\n[plugin:a]\nuse = a.B\n[w]\nx = 1\n")
    assert without_plugins("circus.ini") == "[env:web,plugin:a]\nB = 1\n[w]\nx = 1\n"
