# The host's options for one plugin: what each is read from and becomes, what a message says.

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from circusplug import CircusPlugError, HostConfig, HostOptions, PluginSpec, SpecError
from circusplug._config.host_options import ISOLATED_ONLY, OPTIONS
from circusplug._config.values import did_you_mean, to_bool
from circusplug._secrets import is_secret


def host_options(isolate: bool = True, **options: Any) -> HostOptions:
    """What a section with these ``host.`` options comes to; ``env__A`` stands for ``env.A``."""
    given = {f"host.{key.replace('__', '.')}": value for key, value in options.items()}
    return PluginSpec.from_options({"use": "a.B", "isolate": isolate, **given}).host


@pytest.mark.parametrize("value", [True, 1, "yes", "True", " ON ", "1"])
def test_yes_is_said_as_in_circus(value: Any) -> None:
    assert to_bool(value) is True


@pytest.mark.parametrize("value", [False, 0, "no", "FALSE", " off ", "0"])
def test_no_is_said_as_in_circus(value: Any) -> None:
    assert to_bool(value) is False


@pytest.mark.parametrize("value", ["", "maybe", "2", 2, None, [], 0.5])
def test_what_is_neither_yes_nor_no_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is not yes or no"):
        to_bool(value)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("start_timeout", "2.5", 2.5),
        ("graceful_timeout", "0", 0.0),
        ("restart", " ALWAYS ", "always"),
        ("restart_delay", "1e2", 100.0),
        ("max_restarts", "-1", -1),
        ("max_errors", " 3 ", 3),
        ("on_error", "Stop", "stop"),
        ("critical", "yes", True),
        ("on_stall", "restart", "restart"),
        ("nice", "-20", -20),
        ("stop_signal", "int", int(signal.SIGINT)),
        ("stop_signal", "SIGKILL", int(signal.SIGKILL)),
        ("stop_signal", "15", int(signal.SIGTERM)),
        ("stop_signal", signal.SIGHUP, int(signal.SIGHUP)),
        ("uid", "0", 0),
        ("uid", "root", 0),
        ("gid", "0", 0),
        ("working_dir", "/", "/"),
        ("python_path", f"/{os.pathsep}/usr{os.pathsep}", ("/", "/usr")),
        ("python_path", ["/", "/usr"], ("/", "/usr")),
        ("max_message", "250K", 250 * 1024),
        ("max_message", " 16 mb ", 16 * 1024**2),
        ("max_message", "1G", 1024**3),
        ("max_message", "1000", 1000),
        ("loglevel", "Debug", "debug"),
        ("nice", "19", 19),
        ("stdout", "-", ""),
        ("stderr", "", ""),
    ],
)
def test_a_host_option_is_read_from_text_or_given_as_it_is(key: str, text: Any, value: Any) -> None:
    options = host_options(**{key: text})
    assert getattr(options, key) == value
    assert type(getattr(options, key)) is type(value)
    # What was read may be given again.
    assert host_options(**{key: getattr(options, key)}) == options


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("start_timeout", "soon", "'soon' is not a number of seconds"),
        ("start_timeout", "-1", "'-1' is not a number of seconds of 0 or more"),
        ("start_timeout", "nan", "'nan' is not a number of seconds of 0 or more"),
        ("start_timeout", 10**400, "is not a number of seconds"),
        ("start_timeout", None, "None is not a number of seconds"),
        ("restart", "sometimes", "'sometimes' is none of on-failure, always, never"),
        ("restart", "allways", "(did you mean 'always'?)"),
        ("max_restarts", "many", "'many' is not a whole number"),
        ("max_restarts", "-2", "'-2' is less than -1"),
        ("max_restarts", float("inf"), "inf is not a whole number"),
        ("max_errors", "0", "'0' is less than 1"),
        ("critical", "perhaps", "'perhaps' is not yes or no"),
        ("nice", "-21", "'-21' is less than -20"),
        ("nice", "99", "'99' is more than 19"),
        ("max_message", "0K", "'0K' is not a size of 1 byte or more; write 250K or 16M"),
        ("max_message", "16X", "'16X' is not a size"),
        ("max_message", -1, "-1 is not a size"),
        ("max_message", None, "None is not a size"),
        ("loglevel", "loud", "'loud' is none of debug, info, warning, error, critical"),
        ("on_error", "explode", "'explode' is none of continue, restart, stop"),
        ("python_path", "/usr:/no/such", "'/no/such': there is no such directory"),
        ("stop_signal", "SIGNOTHING", "'SIGNOTHING' is not a signal"),
        ("stop_signal", "999", "'999' is not a signal"),
        ("uid", "no such user", "no user 'no such user' here"),
        ("uid", 10**30, "here"),
        ("gid", "no such group", "no group 'no such group' here"),
        ("working_dir", "/no/such/directory", "'/no/such/directory' is not a directory"),
        ("working_dir", 7, "7 does not fit"),
        ("stdout", "/no/such/directory/file", "is not a file in an existing directory"),
        ("stdout", "/", "is not a file in an existing directory"),
        ("python_path", 7, "7 does not fit"),
        ("rlimit_nofile", "few", "'few' is not a whole number"),
        ("rlimit_nofiles", "7", "no such limit (did you mean 'nofile'?)"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_section_and_option(
    key: str, value: Any, message: str
) -> None:
    section = {"use": "a.B", "isolate": True, f"host.{key}": value}
    with pytest.raises(SpecError) as caught:
        PluginSpec.from_options(section, where="circus.ini: [plugin:b]")
    error = caught.value
    assert str(error).startswith(f"circus.ini: [plugin:b]: 'host.{key}': ")
    assert message in str(error)
    assert (error.where, error.key) == ("circus.ini: [plugin:b]", f"host.{key}")
    assert isinstance(error, CircusPlugError)


@pytest.mark.parametrize("value", ["inf", "Infinity", 1e300, 10**12])
def test_a_time_without_end_is_one_that_every_wait_can_take(value: Any) -> None:
    from threading import TIMEOUT_MAX

    assert 86400 * 365 < host_options(start_timeout=value).start_timeout <= TIMEOUT_MAX
    assert HostConfig(stop_timeout=value).stop_timeout <= TIMEOUT_MAX


def test_environment_and_limits_are_collected() -> None:
    options = host_options(
        env__PATH="/bin",
        env__N=7,
        rlimit_nofile="100",
        rlimit_CORE="unlimited",
        rlimit_as=-1,
        rlimit_data=None,
    )
    assert options.env == {"PATH": "/bin", "N": "7"}
    endless = resource.RLIM_INFINITY
    assert options.rlimits == {
        "nofile": 100, "core": endless, "as": endless, "data": endless,
    }  # fmt: skip


def test_code_may_be_imported_from_a_zip_file(tmp_path: Path) -> None:
    (tmp_path / "code.zip").touch()
    path = str(tmp_path / "code.zip")
    assert host_options(python_path=path).python_path == (path,)


def test_a_word_that_nobody_would_type_is_not_compared_with_others() -> None:
    assert did_you_mean("restrat", ["restart"]) == " (did you mean 'restart'?)"
    assert did_you_mean("restart" * 20, ["restart" * 20]) == ""


def test_a_misspelt_option_gets_a_hint_and_an_unknown_one_the_list() -> None:
    with pytest.raises(
        SpecError, match=r"'host\.restrat' is no host option \(did you mean 'host\.restart'\?\)"
    ):
        host_options(restrat="never")
    with pytest.raises(SpecError, match=r"no host option \(did you mean 'isolate'\?\)"):
        PluginSpec.from_options({"use": "a.B", "host.isolate": True})
    with pytest.raises(SpecError, match=r"there are host\.start_timeout, .*host\.env\.NAME"):
        host_options(zzz="never")


def test_every_option_takes_its_own_default_and_has_a_help_text() -> None:
    for name, option in OPTIONS.items():
        assert option.metadata["help"], name
        if option.default is not None:
            assert option.metadata["parse"](option.default) == option.default, name
    assert host_options() == HostOptions()
    assert HostOptions().to_dict() == {}


def test_to_dict_tells_what_differs_from_the_defaults() -> None:
    options = host_options(restart="never", env__A="1", nice="5")
    assert options.to_dict() == {"restart": "never", "env": {"A": "1"}, "nice": 5}


@pytest.mark.parametrize("key", sorted(ISOLATED_ONLY | {"env.A", "rlimit_nofile"}))
def test_what_needs_a_process_is_refused_without_one(key: str) -> None:
    values = {"on_stall": "restart", "working_dir": "/", "stop_signal": "TERM", "python_path": "/"}
    value = values.get(key, "0")
    with pytest.raises(SpecError, match=r"needs a process of its own.*add 'isolate = true'"):
        PluginSpec.from_options({"use": "a.B", f"host.{key}": value})


@pytest.mark.parametrize("value", ["restart", "RESTART", " Restart "])
def test_a_value_that_needs_a_process_is_refused_without_one_in_any_case(value: str) -> None:
    with pytest.raises(SpecError, match=r"needs a process of its own; add 'isolate = true'"):
        PluginSpec.from_options({"use": "a.B", "host.on_stall": value})
    assert host_options(on_stall=value).on_stall == "restart"
    spec = PluginSpec.from_options({"use": "a.B", "host.on_stall": "REPORT"})
    assert spec.host.on_stall == "report"


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("nice", 3, "host.nice"),
        ("env.A", "1", "host.env.A"),
        ("on_stall", "restart", "host.on_stall = restart"),
    ],
)
def test_what_needs_a_process_is_named_as_it_is_written(key: str, value: Any, shown: str) -> None:
    with pytest.raises(SpecError) as caught:
        PluginSpec.from_options({"use": "a.B", f"host.{key}": value}, where="x")
    assert str(caught.value) == f"x: '{shown}' needs a process of its own; add 'isolate = true'"
    assert caught.value.key == f"host.{key}"


def test_an_environment_variable_needs_a_name() -> None:
    with pytest.raises(SpecError, match=r"'host\.env\.' is no host option"):
        PluginSpec.from_options({"use": "a.B", "isolate": True, "host.env.": "1"})


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options = host_options(working_dir="~", stdout="~/out", python_path="~")
    home = str(tmp_path)
    assert (options.working_dir, options.stdout) == (home, f"{home}/out")
    assert options.python_path == (home,)


def test_sizes_and_levels_are_for_threads_too() -> None:
    spec = PluginSpec.from_options(
        {"use": "a.B", "host.max_message": "1K", "host.loglevel": "error"}
    )
    assert (spec.host.max_message, spec.host.loglevel) == (1024, "error")
    assert (HostOptions().max_message, HostOptions().loglevel) == (16777216, None)


@pytest.mark.parametrize(
    "name",
    [
        *("password", "smtp_passwd", "API_TOKEN", "client-secret", "aws_key", "credentials"),
        *("notify", "alert.notify"),  # URLs of apprise
    ],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["filename", "keys", "watcher", "user", "endpoint", "notify_on"])
def test_other_names_are_no_secrets(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("stdout", "out.log", "{0}/out.log"),
        ("stderr", "logs/err.log", "{0}/logs/err.log"),
        ("working_dir", "logs", "{0}/logs"),
        ("python_path", "logs:.", ("{0}/logs", "{0}")),
    ],
)
def test_a_relative_path_is_one_of_the_hosts_own_directory(
    key: str, value: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin's process goes to another directory before it opens them."""
    (tmp_path / "logs").mkdir()
    monkeypatch.chdir(tmp_path)
    if isinstance(expected, tuple):
        expected = tuple(path.format(tmp_path) for path in expected)
    else:
        expected = expected.format(tmp_path)
    assert getattr(host_options(**{key: value}), key) == expected
