# `circusplug dev`: what a plugin does is shown, and its code is loaded anew when it is saved.

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from circusd_real import RealCircusd
from command import Running
from patience import PATIENCE

from circusplug._cli import dev as dev_command
from circusplug._cli.dev_keys import Keys, typed_keys
from circusplug._cli.main import main

MINE = """\
from circusplug import CircusPlugin


class Mine(CircusPlugin):
    name = "mine"

    def handle_init(self):
        self.count = 0

    def get_state(self):
        return self.count

    def set_state(self, count):
        self.count = count

    def handle_recv(self, data):
        event = self.parse_event(data)
        if event.action == "bad":
            raise ValueError("bad")
        if event.action == "reap":
            self.count += 1
            self.logger.info("old %d", self.count)
            self.loop.call_later(30, self.cast, "start", name=event.watcher)
"""
INI = """\
[watcher:front]
cmd = sleep 1000
numprocesses = 3
[plugin:mine]
use = mine.Mine
"""
ENDS = ("--endpoint", "tcp://127.0.0.1:1", "--pubsub", "tcp://127.0.0.1:2")


def insist(session: Running, do: Callable[[], object], text: str) -> str:
    """Do something again and again until a text has come.

    A file may not be watched yet, and an event that comes between two lives is nobody's.
    """
    over = threading.Event()

    def go_on() -> None:
        do()
        while not over.wait(0.2):
            do()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        return session.wait_for(text)
    finally:
        over.set()
        thread.join()


def save(session: Running, path: Path, content: str, text: str) -> str:
    """Save a file until a text has come."""
    return insist(session, lambda: path.write_text(content), text)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "circus.ini").write_text(INI)
    (tmp_path / "several.ini").write_text(
        f"{INI}x = 1\n[plugin:off]\nuse = a.B\nactive = no\n"
        "[plugin:yours]\nuse = mine.Mine\nx = 2\nhost.restart = always\n"
    )
    return tmp_path


@pytest.fixture
def dev(directory: Path) -> Iterator[Callable[..., Running]]:
    with contextlib.ExitStack() as stack:
        sessions: list[Running] = []

        def start(*arguments: str) -> Running:
            running = Running(directory, "dev", *arguments, stdin=subprocess.PIPE)
            sessions.append(stack.enter_context(running))
            return running

        yield start
        for session in sessions:
            session.signal(signal.SIGTERM)
            assert session.end() == 0, session.output


def test_a_saved_plugin_is_loaded_anew_with_its_state(
    dev: Callable[..., Running], directory: Path
) -> None:
    pytest.importorskip("watchfiles")
    session = dev("mine.Mine")
    session.wait_for("mine is running")
    session.type("e web reap exit_code=1")
    assert '"exit_code": 1' in session.wait_for("event   watcher.web.reap")
    session.wait_for("log     old 1")
    mine = directory / "mine.py"
    save(session, mine, MINE.replace("old", "new"), "loaded anew: mine is running")
    insist(session, lambda: session.type("e web reap"), "log     new 2")
    save(session, mine, "def", "not loaded, the old life goes on: ")
    insist(session, lambda: session.type("e web bad"), "error   ValueError: bad")
    session.wait_for(f"{'':13}ValueError: bad")  # its last line
    place = next(place for place, line in enumerate(session.lines) if "error   Value" in line)
    traceback = session.lines[place + 1 :]
    assert traceback[0].strip() == "Traceback (most recent call last):"
    assert "mine.py" in traceback[1]


def test_a_saved_file_changes_the_options(dev: Callable[..., Running], directory: Path) -> None:
    pytest.importorskip("watchfiles")
    session = dev("circus.ini")
    session.wait_for("mine is running")
    ini = directory / "circus.ini"
    save(session, ini, INI + "host.on_error = stop\n", "loaded anew: mine is running")
    insist(session, lambda: session.type("e front bad"), "error   ValueError: bad")
    assert "host.on_error" in save(session, ini, INI + "host.on_error = dance\n", "not loaded")


def test_a_given_circusd(dev: Callable[..., Running]) -> None:
    with RealCircusd({"idle": {}}) as circusd:
        session = dev(
            "mine.Mine", "--endpoint", circusd.endpoint, "--pubsub", circusd.pubsub_endpoint
        )
        session.wait_for("mine is running")
        circusd.call("set", name="idle", options={"max_retry": 4})
        session.wait_for("event   watcher.idle.updated")
        session.type("e idle reap")
        session.wait_for("a circusd that was given does what it does")


def typed(text: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a text be what is read from standard input."""
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield


@pytest.fixture
def here(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(str(directory))
    return directory


@pytest.fixture
def play(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Run it in this process with what is typed; returns what it prints."""

    def run(text: str, *arguments: str) -> list[str]:
        for _ in typed(text + "\nq\n", monkeypatch):
            assert main(["dev", *arguments]) == 0
        return [line.strip() for line in capsys.readouterr().out.splitlines()]

    return run


def test_time_passes_at_a_key_and_commands_are_shown(play: Callable[..., list[str]]) -> None:
    out = play("e web reap\na 40", "mine.Mine")
    (command,) = (line for line in out if "command" in line)
    assert command.endswith("command start name='web' (cast)")
    assert out.index(command) < out.index("40 s have passed")
    out = play("a\nA", "mine.Mine")
    assert [line for line in out if "passed" in line] == ["60 s have passed", "3600 s have passed"]


def test_the_wire_can_fail(play: Callable[..., list[str]]) -> None:
    out = play("f\nf\nx\nx", "mine.Mine")
    told = [line for line in out if "repl" in line or line.startswith("circusd is")]
    assert told[1:] == [
        "all replies are lost from now on",
        "replies arrive again",
        "circusd is dead",
        "circusd is back",
    ]


def test_what_is_no_key_and_what_is_no_event(play: Callable[..., list[str]]) -> None:
    out = play("?\ne web\na x\nA -1\n\ne web reap x\nr", "mine.Mine")
    assert "'web' is no WATCHER ACTION [KEY=VALUE ...]" in out
    assert "'web reap x' is no WATCHER ACTION [KEY=VALUE ...]" in out
    assert "could not convert string to float: 'x'" in out
    assert "the clock only goes forward, not by -1.0 s" in out
    assert "loaded anew: mine is running" in out
    assert sum(line.startswith("keys:") for line in out) == 2


def test_watchers_live_by_a_script(play: Callable[..., list[str]], here: Path) -> None:
    (here / "fleet.txt").write_text("api has 1 process\napi crashes with 3 every 10 s\n")
    out = play("a 15", "mine.Mine", "--fleet", "fleet.txt")
    assert any("watcher.api.reap" in line and '"exit_code": 3' in line for line in out)
    out = play("a 25", "circus.ini")
    assert any("watcher.front.reap" in line for line in out)


def test_options_are_the_plugin_s(play: Callable[..., list[str]], here: Path) -> None:
    (here / "mine.py").write_text(MINE.replace('"old %d", self.count', '"%s", self.config["x"]'))
    assert play("e web reap", "mine.Mine", "--option", "x=12")[-1].endswith("log     12")


def test_of_several_plugins_one_is_chosen_and_options_go_before_the_file_s(
    play: Callable[..., list[str]], here: Path
) -> None:
    (here / "mine.py").write_text(
        MINE.replace('"old %d", self.count', '"%s %s", self.config["x"], event.payload["what"]')
    )
    typed = "e front reap what=some"
    assert play(typed, "several.ini", "--plugin", "mine")[-1].endswith("log     1 some")
    chosen = play(typed, "several.ini", "--plugin", "yours", "--option", "x=3")
    assert "yours is running" in chosen
    assert chosen[-1].endswith("log     3 some")


def test_a_plugin_that_fails_is_not_started_again_whatever_its_file_says(here: Path) -> None:
    """Else who has written it would read the same traceback again and again."""
    for target in (("several.ini", "yours"), ("mine.Mine", None)):
        assert dev_command._Target(*target, {}).read().host.restart == "never"


def test_signals_end_it_and_mean_what_they_did_afterwards() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        with dev_command._ended_by_signal() as over:
            assert not over.is_set()
            signal.raise_signal(number)
            assert over.is_set()
        assert signal.getsignal(number) is before


def test_lines_that_come_in_parts_are_put_together_and_their_end_is_no_trouble() -> None:
    read, write = os.pipe()
    keys = Keys(read, None)
    got = []
    for part in (b"e web", b" reap\na", b" 3\n\n"):
        os.write(write, part)
        got.append(list(keys.read(PATIENCE)))
    os.close(write)
    got.append(list(keys.read(PATIENCE)))
    os.close(read)
    assert got == [[], ["e web reap"], ["a 3", ""], []]
    assert list(keys.read(0)) == []  # of what is closed nothing is read any more
    assert keys.ask("> ") == ""


def test_files_are_not_watched_without_the_package(
    play: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    out = play("", "mine.Mine")
    assert "files are not watched, type r: pip install 'circusplug[watch]' for that" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.Mine"], "none"),
        (["none.ini"], "none.ini"),
        (["mine.Mine", "--option", "x"], "'x' is not KEY=VALUE"),
        (["mine.Mine", "--plugin", "x"], "--plugin is for a file"),
        (["circus.ini", "--plugin", "x"], "has the plugins mine; give --plugin NAME"),
        (["several.ini"], "has the plugins mine, yours; give --plugin NAME"),
        (["mine.Mine", "--option", "=x"], "'=x' is not KEY=VALUE"),
        (["mine.Mine", "--endpoint", "tcp://127.0.0.1:1"], "give --endpoint and --pubsub"),
        (["mine.Mine", "--pubsub", "tcp://127.0.0.1:1"], "give --endpoint and --pubsub"),
        (["mine.Mine", "--fleet", "x", *ENDS], "--fleet is for the fake circusd"),
        (["mine.Mine", "--fleet", "nofile"], "nofile"),
        (["circusplug.plugins.Flapping", "--option", "x=1"], "no option 'x'"),
        (["mine.Mine", "--option", "isolate=yes"], "'isolate'"),
    ],
)
def test_what_is_wrong_is_one_line(
    here: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dev", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("circusplug: ")
    assert says in line


def test_a_file_without_a_plugin(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "empty.ini").write_text("[circus]\n")
    assert main(["dev", "empty.ini"]) == 1
    assert "no [plugin:NAME] section that is active" in capsys.readouterr().err


def test_a_terminal_gives_single_keys_and_asks_for_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as keyboard, os.fdopen(theirs) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        before = _modes(theirs)
        with typed_keys() as keys:
            keyboard.write(b"fx")
            got = _read(keys, 2)
            keyboard.write(b"web reap\n")
            assert (got, keys.ask("> ")) == (["f", "x"], "web reap")
            assert _modes(theirs) != before
        assert _modes(theirs) == before


def _modes(fd: int) -> object:
    import termios

    return termios.tcgetattr(fd)[3]


def _read(keys: Keys, count: int) -> list[str]:
    got: list[str] = []
    while len(got) < count:
        got += keys.read(PATIENCE)
    return got
