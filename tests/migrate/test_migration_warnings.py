# What a plan warns of, and the secrets that it does not show.

from __future__ import annotations

from pathlib import Path

import pytest
from fixture_types import Write
from migrations import migrate

from circusplug._config.ini_file import load
from circusplug._migrate.plan import apply, plan
from circusplug._migrate.undo import undo
from circusplug._plugin.load import load_plugin_class

# Circus warns of a fruitless include by a logger method that is deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")

WATCHDOG = "[plugin:w]\nuse = circus.plugins.watchdog.WatchDog\n"


@pytest.mark.parametrize("regex", ["", ".*", "plugin:", "web|.*plug"])
def test_a_watchdog_that_would_kill_the_host_is_warned_of(write: Write, regex: str) -> None:
    path = write(WATCHDOG + (f"watchers_regex = {regex}\n" if regex else "x = 1\n"))
    (warning,) = plan(path).warnings
    assert warning == (
        f"circus.ini: [plugin:w]: watchers_regex = {regex or '.*'} takes in [plugin:circusplug], "
        "which sends no heartbeats, so this plugin would kill its own host again and again; write "
        "watchers_regex = (?!plugin:), or the names that you mean"
    )


@pytest.mark.parametrize(
    "text",
    [
        f"{WATCHDOG}watchers_regex = (?!plugin:)\n",
        f"{WATCHDOG}watchers_regex = web\n",
        f"{WATCHDOG}watchers_regex = (\n",
        f"{WATCHDOG}active = no\n",
        "[plugin:w]\nuse = a.Other\n",
    ],
)
def test_another_plugin_is_not_warned_of(write: Write, text: str) -> None:
    assert plan(write(text)).warnings == ()


def test_the_regex_that_a_warning_names_spares_the_host_and_takes_the_watchers(
    write: Write,
) -> None:
    migrate(write(f"{WATCHDOG}watchers_regex = (?!plugin:)\n"))
    (spec,) = load("plugins.ini").plugins
    dog = load_plugin_class(spec.use)(
        "tcp://127.0.0.1:1", "tcp://127.0.0.1:2", 1.0, None, **spec.config
    )
    dog.loop.close()
    assert not dog._match_watcher_name("plugin:circusplug")
    assert dog._match_watcher_name("web")


def test_what_a_file_says_twice_is_warned_of(write: Write) -> None:
    (warning,) = plan(write("[plugin:p]\nuse = a.B\nx = 1\nx = 2\n")).warnings
    assert warning.startswith("circus.ini:4: [plugin:p]: 'x' is set at circus.ini:3 already")


def test_secrets_are_masked_in_what_is_shown_and_kept_in_what_is_written(write: Write) -> None:
    text = (
        "[env]\nAPI_TOKEN = hunter2\n[plugin:p]\nuse = a.B\nsmtp_password: hunter2\n"
        "# old_password = hunter2\nsecret_list = hunter2\n  hunter2\nuser = $(circus.env.me)\n"
    )
    migration = plan(write(text))
    assert "hunter2" not in migration.diff
    assert migration.diff.count("****") == 10
    assert "\n-smtp_password: ****\n" in migration.diff
    assert "\n+user = $(circus.env.me)\n" in migration.diff
    apply(migration)
    assert Path("plugins.ini").read_text().count("hunter2") == 5
    undo("circus.ini")
    assert Path("circus.ini").read_text() == text
