# The section [circusplug] of a circus.ini: the host's own options, and defaults for its plugins.

from __future__ import annotations

from fixture_types import Write
from ini_files import problems

from circusplug._config.ini_file import load


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
