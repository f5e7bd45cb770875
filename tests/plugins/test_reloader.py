# CommandReloader: which files are a watcher's, and what their changes lead to.

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundled import Journal
from circusd_real import RealCircusd
from fixture_types import Run
from patience import PATIENCE, wait_while

from circusplug import Arbiter, SpecError
from circusplug.plugins import CommandReloader
from circusplug.plugins._watched_files import belongs, matching, places_of, program_files
from circusplug.testing import FakeCircusd, RunningPlugin


@pytest.fixture
def app(tmp_path: Path) -> Path:
    for name in ("app.py", "other.py", "conf/a.toml", "conf/b.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"cmd": "./tool"}, ["tool"]),
        ({"cmd": "tool", "env": {"PATH": "HERE"}}, ["tool"]),
        ({"cmd": "tool --port 80 app.py", "env": {"PATH": "HERE"}}, ["tool"]),
        ({"cmd": "tool -u app.py conf/a.toml", "env": {"PATH": "HERE"}}, ["tool", "app.py"]),
        ({"cmd": "./tool", "args": "app.py 'x y'"}, ["tool", "app.py"]),
        ({"cmd": "./tool", "args": ["app.py"]}, ["tool", "app.py"]),
        ({"cmd": "HERE/tool HERE/app.py"}, ["tool", "app.py"]),
        ({"cmd": "no-such-program app.py"}, ["app.py"]),
        ({"cmd": "'unfinished"}, []),
        ({"cmd": ""}, []),
        ({}, []),
        ({"cmd": "./tool", "env": "rubbish", "args": 7}, ["tool"]),
        ({"cmd": "./tool\0 x"}, []),
    ],
)
def test_program_and_script_are_found_as_circusd_would(
    options: dict[str, Any], found: list[str], app: Path
) -> None:
    def here(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: here(one) for key, one in value.items()}
        return value.replace("HERE", str(app)) if isinstance(value, str) else value

    files = program_files({"working_dir": str(app), **here(options)})
    assert files == {app / name for name in found}


def test_a_link_is_its_target(app: Path) -> None:
    (app / "link").symlink_to(app / "tool")
    assert program_files({"cmd": "./link", "working_dir": str(app)}) == {app / "tool"}
    (app / "round").symlink_to(app / "round")
    assert program_files({"cmd": "./round", "working_dir": str(app)}) == set()


def test_a_directory_stands_for_all_below_but_what_is_noise(app: Path) -> None:
    for name in (".git", "__pycache__", "conf/deep"):
        (app / name).mkdir()
    assert places_of({app}) == {app.parent, app, app / "conf", app / "conf/deep"}
    assert belongs(app / "conf/new", {app})
    assert not belongs(app / "conf/new~", {app})
    assert not belongs(app / "__pycache__/app.pyc", {app})
    assert not belongs(app / "other.py", {app / "app.py"})


@pytest.fixture
def reload(run_plugin: Run, fake_circusd: FakeCircusd, app: Path) -> Callable[..., RunningPlugin]:
    """Runs a CommandReloader beside the watchers web and other."""

    def run(watcher: dict[str, Any] | None = None, **options: Any) -> RunningPlugin:
        for name, script in (("web", "app.py"), ("other", "other.py")):
            own = (watcher or {}) if name == "web" else {}
            cmd = f"./tool {script}"
            fake_circusd.add_watcher(name, cmd=cmd, working_dir=str(app), **own)
        running = run_plugin(CommandReloader, loop_rate=0.05, **options)
        running.wait(lambda _: running.plugin._watch is not None, PATIENCE)
        return running

    return run


def touch_until(path: Path, running: RunningPlugin, command: str = "restart", **props: Any) -> None:
    """Change a file until the plugin has seen it: its thread may not look yet."""
    for number in range(10**6):
        path.write_text(str(number))
        try:
            running.circusd.wait_command(command, timeout=0.5, **props)
        except AssertionError:
            continue
        return


def orders(running: RunningPlugin) -> set[tuple[str, str]]:
    return {
        (one.command, one.properties["name"])
        for one in running.circusd.commands
        if one.command in ("restart", "reload")
    }


def test_a_changed_script_restarts_its_watcher_and_no_other(
    reload: Callable[..., RunningPlugin], app: Path, journal: Journal
) -> None:
    running = reload()
    touch_until(app / "app.py", running, name="web")
    journal.wait(f"web: {app / 'app.py'} has changed; restart")
    assert orders(running) == {("restart", "web")}


def test_a_program_that_is_replaced_restarts_all_that_run_it(
    reload: Callable[..., RunningPlugin], app: Path
) -> None:
    running = reload()
    number = 0
    while orders(running) != {("restart", "web"), ("restart", "other")}:
        number += 1
        new = app / "new"
        new.write_text(f"#!/bin/sh\n# {number}\n")
        new.replace(app / "tool")
        running.circusd.wait_command("list", count=number, timeout=PATIENCE)


def test_more_paths_count_also_for_single_watchers_and_may_reload(
    reload: Callable[..., RunningPlugin], app: Path
) -> None:
    own = {"command_reloader.paths": f"{app}/conf", "command_reloader.act": "reload"}
    running = reload(own, paths=f"{app}/conf/*.toml")
    touch_until(app / "conf" / "new.ini", running, "reload", name="web")
    assert orders(running) == {("reload", "web")}
    touch_until(app / "conf" / "fresh.toml", running, "restart", name="other")


def test_watchers_that_are_not_meant_are_left_alone(
    reload: Callable[..., RunningPlugin], app: Path
) -> None:
    running = reload(watchers="web")
    (app / "other.py").write_text("2")
    touch_until(app / "app.py", running, name="web")
    assert orders(running) == {("restart", "web")}


def test_a_watcher_that_comes_is_looked_at(
    reload: Callable[..., RunningPlugin], app: Path, fake_circusd: FakeCircusd
) -> None:
    running = reload()
    fake_circusd.add_watcher("late", cmd="./tool conf/b.txt", working_dir=str(app))
    running.publish("late", "add")
    touch_until(app / "conf" / "b.txt", running, name="late")


@pytest.fixture
def gather(run_plugin: Run, fake_circusd: FakeCircusd, app: Path) -> Callable[..., RunningPlugin]:
    """Runs a CommandReloader beside web, by a virtual clock; `changed` says what has changed."""

    def run(**options: Any) -> RunningPlugin:
        fake_circusd.add_watcher("web", cmd="./tool app.py", working_dir=str(app))
        given = {"loop_rate": 10, "clock": "virtual", **options}
        running = run_plugin(CommandReloader, **given)
        running.advance(0)
        return running

    return run


def changed(running: RunningPlugin, *paths: Path) -> None:
    running.plugin.loop.add_callback(running.plugin._gather, set(paths))
    running.advance(0)


def restarts(running: RunningPlugin) -> int:
    return [one.command for one in running.circusd.commands].count("restart")


def test_changes_are_gathered_until_there_were_none_for_a_while(
    gather: Callable[..., RunningPlugin], app: Path, journal: Journal
) -> None:
    running = gather()
    changed(running, app / "app.py")
    running.advance(9)
    changed(running, app / "tool")
    running.advance(9)
    assert restarts(running) == 0
    running.advance(1)
    assert restarts(running) == 1
    journal.wait(f"web: {app / 'app.py'} has changed and 1 more; restart")
    changed(running, app / "other.py")
    running.advance(10)
    assert restarts(running) == 1  # what was told before is done with


def test_one_that_has_just_started_is_left_alone(
    gather: Callable[..., RunningPlugin], app: Path
) -> None:
    running = gather(grace=100)
    running.publish("web", "start")
    changed(running, app / "app.py")
    running.advance(20)
    assert restarts(running) == 0


def test_a_script_that_is_taken_away_is_a_change_too(
    gather: Callable[..., RunningPlugin], app: Path
) -> None:
    running = gather()
    (app / "app.py").unlink()
    changed(running, app / "app.py")
    running.advance(10)
    assert restarts(running) == 1


def test_it_looks_again_after_each_event_that_may_mean_other_files(
    gather: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    running = gather(watchers="web")

    def publish(watcher: str, action: str) -> int:
        """Has two such events come at once; returns how often it has looked."""
        fake_circusd.clear()
        event = f"watcher.{watcher}.{action}".encode(), b"{}"
        running.plugin.loop.add_callback(
            lambda: [running.plugin.handle_recv(event) for _ in range(2)]
        )
        running.advance(0)
        return [one.command for one in fake_circusd.commands].count("list")

    for action in ("add", "remove", "start", "updated", "add"):
        assert publish("web", action) == 1, action
    assert publish("web", "spawn") == publish("other", "add") == 0


def test_while_circusd_does_not_tell_the_files_stay_as_they_were(
    gather: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, app: Path, journal: Journal
) -> None:
    running = gather()
    fake_circusd.reply("options", {"status": "error", "reason": "no", "errno": 3}, count=1)
    running.publish("web", "updated")
    running.advance(0)
    journal.wait("the watchers' files are not known: options name='web'")
    changed(running, app / "app.py")
    running.advance(10)
    assert restarts(running) == 1


def test_a_pattern_stands_for_what_is_below_and_begins_at_home(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(app))
    (app / "conf/deep").mkdir()
    (app / "conf/deep/c.toml").touch()
    assert matching("~/**/*.toml") == {app / "conf/a.toml", app / "conf/deep/c.toml"}
    (app / "link").symlink_to(app / "conf")
    assert matching(f"{app}/link") == {app / "conf"}


def test_without_watchfiles_it_says_what_to_install(
    run_plugin: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    for start in (run_plugin, lambda use: use.check_config({})):
        with pytest.raises(SpecError, match=r"pip install 'circusplug\[watch\]'"):
            start(CommandReloader)


def test_a_real_process_runs_the_new_script(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    program = "import os, time; open(r'{}', 'a').write('{}\\n'); time.sleep(1000)\n"
    told = tmp_path / "told"
    script.write_text(program.format(told, "old"))
    watcher = {"cmd": f"{sys.executable} app.py --fast", "working_dir": str(tmp_path)}
    with RealCircusd({"web": watcher}) as circusd:
        plugin = {"use": CommandReloader, "loop_rate": 0.05}
        with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
            arbiter.wait(lambda now: all(one.state == "running" for one in now.values()), PATIENCE)
            wait_while(lambda: not told.exists())
            looks = itertools.count()

            def is_old() -> bool:
                if next(looks) % 50 == 0:  # the plugin may not have seen the old one before
                    script.write_text(program.format(told, "new"))
                return "new" not in told.read_text()

            wait_while(is_old, pause=0.01)
    assert os.path.getsize(told)
