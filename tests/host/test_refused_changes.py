# A change that would fail is refused before anything is stopped.

from __future__ import annotations

import os
import pwd
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from members import Acts, Journal, MakeHost, Member, in_thread, member, state_is
from patience import PATIENCE

from circusplug import Arbiter, ConfigError, HostConfig, HostError, PluginSpec, SpecError
from circusplug._host.changes import Changes, _modules
from circusplug._plugin.load import load_problems
from circusplug.testing import FakeCircusd


class Picky(Member):
    """Refuses its options when told to, or does what it is told to do when asked for that."""

    refuses = False
    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    @classmethod
    def check_config(cls, config: Mapping[str, Any]) -> None:
        cls.meanwhile()
        if cls.refuses:
            raise SpecError("is not right", key="colour")


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Picky]]:
    monkeypatch.setattr(Picky, "refuses", False)
    monkeypatch.setattr(Picky, "meanwhile", staticmethod(lambda: None))
    return Picky


@pytest.fixture
def plugins_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose modules can be imported, here and in processes of plugins."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def with_specs(arbiter: Arbiter, *specs: PluginSpec) -> Any:
    return replace(arbiter.config, plugins=specs)


def test_a_configuration_with_a_class_that_cannot_be_started_changes_nothing(
    host: MakeHost, journal: Journal
) -> None:
    with host(member("a"), member("b")) as arbiter:
        before, config = arbiter.instance("a"), arbiter.config
        a, b = config.plugins
        wrong = replace(a, use="members.Membr")
        new = PluginSpec("c", "no.such.Class", where="circus.ini: [plugin:c]")
        isolated = PluginSpec("d", "no.such.Class", isolate=True)
        idle = PluginSpec("e", "no.such.Class", {"active": False})  # it is not to be started
        with pytest.raises(ConfigError) as caught:
            arbiter.reconfigure(with_specs(arbiter, wrong, new, isolated, idle))
        assert caught.value.problems == tuple(
            line for spec in (wrong, new, isolated) for line in load_problems(spec)
        )
        assert "did you mean 'Member'?" in caught.value.problems[0]
        assert arbiter.config is config
        assert arbiter.instance("a") is before
        assert arbiter.reconfigure(with_specs(arbiter, a, b, idle)) == ["added e"]
    assert journal.of("a") == ["init", "stop"]


def test_options_that_check_config_refuses_change_nothing(
    host: MakeHost, journal: Journal, picky: type[Picky]
) -> None:
    with host(member("a", picky)) as arbiter:
        (a,) = arbiter.config.plugins
        picky.refuses = True
        changed = replace(a, config={**a.config, "colour": "red"})
        with pytest.raises(ConfigError, match=r"^plugin 'a': is not right$"):
            arbiter.reconfigure(with_specs(arbiter, changed))
        with pytest.raises(ConfigError, match="is not right"):
            arbiter.restart_plugin("a")
        with pytest.raises(ConfigError, match="is not right"):
            arbiter.add_plugin(member("b", picky))
        assert list(arbiter.plugins) == ["a"]
        picky.refuses = False
        assert journal.of("a") == ["init"]
        arbiter.restart_plugin("a")
        assert journal.of("a") == ["init", "stop", "init"]


def test_an_isolated_class_is_checked_in_a_process_with_its_own_path_and_not_in_the_host(
    host: MakeHost, tmp_path: Path
) -> None:
    (tmp_path / "kept_away.py").write_text(
        "import os\n"
        "from circusplug import CircusPlugin, SpecError\n"
        "class Away(CircusPlugin):\n"
        "    handle_recv = print\n"
        "    @classmethod\n"
        "    def check_config(cls, config):\n"
        "        if config.get('end'):\n"
        "            os._exit(3)\n"
        "        raise SpecError(f'process {os.getpid()}')\n"
    )
    with host() as arbiter:
        away = {"use": "kept_away.Away", "name": "a", "isolate": True, "journal": 0, "release": 0}
        away["host.python_path"] = str(tmp_path)
        with pytest.raises(ConfigError, match=r"^plugin 'a': process (\d+)$") as caught:
            arbiter.add_plugin(away)
        assert str(os.getpid()) not in str(caught.value).split()
        with pytest.raises(ConfigError, match=r"^plugin 'a': .* exit status 3$"):
            arbiter.add_plugin({**away, "end": "yes"})
    assert "kept_away" not in sys.modules


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")
def test_an_isolated_class_is_checked_with_the_rights_of_its_user(host: MakeHost) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, host() as arbiter:
        os.chmod(directory, 0o777)
        Path(directory, "modest.py").write_text(
            "import os\n"
            "from circusplug import CircusPlugin\n"
            "class Modest(CircusPlugin):\n"
            "    handle_recv = print\n"
            "raise ValueError(f'user {os.geteuid()}')\n"
        )
        modest = {"use": "modest.Modest", "name": "a", "isolate": True, "journal": 0, "release": 0}
        nobody = pwd.getpwnam("nobody").pw_uid
        with pytest.raises(ConfigError, match=f"user {nobody}$"):
            arbiter.add_plugin({**modest, "host.uid": "nobody", "host.python_path": directory})


def test_a_plugin_restarts_itself_on_its_own_thread_or_is_told_why_not(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, picky: type[Picky]
) -> None:
    class Renews(Acts, Picky):
        pass

    def renew() -> None:
        try:
            arbiter.restart_plugin("a")
        except ConfigError as error:
            journal.note("told", str(error))

    with host(member("a", Renews, act=renew)) as arbiter:
        fake_circusd.wait_subscribed(1)
        Renews.refuses = True
        fake_circusd.publish("web", "spawn")
        journal.wait("told", "plugin 'a': is not right")
        journal.wait("a", "spawn")
        Renews.refuses = False
        fake_circusd.publish("web", "reap")
        journal.wait("a", "init", 2)
        assert journal.of("a") == ["init", "spawn", "reap", "stop", "init"]


def test_what_a_handle_stop_asks_for_is_checked_aside_and_told_in_the_log(
    host: MakeHost, journal: Journal, picky: type[Picky], caplog: pytest.LogCaptureFixture
) -> None:
    class Renews(Member):
        def handle_stop(self) -> None:
            super().handle_stop()
            arbiter.restart_plugin("b")
            arbiter.add_plugin({"use": picky, "name": "new"})

    with host(member("a", Renews), member("b", picky)) as arbiter:
        picky.refuses = True
        arbiter.stop_plugin("a")
        for name in ("b", "new"):
            said = f"was not done: plugin '{name}': is not right"
            arbiter.wait(lambda _, said=said: said in caplog.text, PATIENCE)  # type: ignore[misc]
        assert journal.of("b") == ["init"]
        with pytest.raises(HostError, match="no plugin named 'c'"):
            arbiter.restart_plugin("c")


def test_a_host_hears_everything_else_while_a_check_takes_long(
    host: MakeHost, journal: Journal, picky: type[Picky], release: threading.Event
) -> None:
    arbiter = host(member("a", picky), member("b"))
    with arbiter:

        def block() -> None:
            journal.note("a", "is checked")
            assert release.wait(PATIENCE)

        def restart() -> None:
            with pytest.raises(HostError, match="has stopped"):
                arbiter.restart_plugin("a")
            journal.note("a", "was not restarted")

        picky.meanwhile = staticmethod(block)
        caller = threading.Thread(target=restart)
        caller.start()
        journal.wait("a", "is checked")
        in_thread(lambda: arbiter.stop_plugin("b"))
        assert arbiter.plugins["b"].state == "stopped"
        in_thread(arbiter.stop)
        release.set()
        caller.join(PATIENCE)
    assert journal.of("a") == ["init", "is checked", "stop", "was not restarted"]


def test_a_stop_ends_the_check_of_an_isolated_class(
    host: MakeHost, journal: Journal, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "reached")
    (tmp_path / "endless.py").write_text(
        "import threading\n"
        f"open({str(tmp_path / 'reached')!r}, 'w').close()\n"
        "threading.Event().wait()\n"
    )
    options = {"isolate": True, "journal": 0, "release": 0, "host.start_timeout": 10**6}

    def add() -> None:
        with pytest.raises((HostError, ConfigError)):
            arbiter.add_plugin(
                {"use": "endless.Class", "name": "b", "host.python_path": str(tmp_path), **options}
            )

    with host(member("a")) as arbiter:
        caller = threading.Thread(target=add)
        caller.start()
        (tmp_path / "reached").read_text()
        in_thread(arbiter.stop)
        caller.join(PATIENCE)
        assert not caller.is_alive()
    assert journal.of("a") == ["init", "stop"]


@pytest.mark.parametrize("moves", [False, True])
def test_who_may_use_the_tunnel_that_stands_matters_while_the_host_stays_there(
    moves: bool,
) -> None:
    looked: list[object] = []
    config = HostConfig((), ssh_server="here")
    engine: Any = SimpleNamespace(
        supervisor=SimpleNamespace(config=config, alive=set()),
        may_wait=True,
        ends=None,
        refuse_if_over=lambda: None,
        check_users=looked.append,
        reconfigure=lambda new, _: [new.ssh_server],
    )
    new = replace(config, ssh_server="there") if moves else config
    assert Changes(engine).reconfigure(new) == [new.ssh_server]
    assert looked == ([] if moves else [()])


def test_edited_code_matters_to_threads_alone() -> None:
    isolated = PluginSpec("b", "other.Class", isolate=True)
    assert _modules([PluginSpec("a", "some.Class"), isolated]) == {"some"}


def test_a_reload_that_was_refused_is_one_line_for_each_problem(
    host: MakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    with host(member("a")) as made:
        config = made.config
    wrong = [PluginSpec(name, "no.such.Class") for name in "bc"]
    arbiter = Arbiter.from_config(
        config, reload=lambda: replace(config, plugins=(*config.plugins, *wrong))
    )
    with arbiter:
        arbiter._reloads._reload_aside()
        said = [item.getMessage() for item in caplog.records if "not reloaded" in item.getMessage()]
        assert said == [
            f"not reloaded, all stays as it was: {line}"
            for spec in wrong
            for line in load_problems(spec)
        ]
        assert [status.state for status in arbiter.plugins.values()] == ["running"]
        arbiter.wait(state_is("a", "running"))
