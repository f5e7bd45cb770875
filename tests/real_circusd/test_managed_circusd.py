# A real circusd as a managed child, from its start until it is ready: it stands, or one
# line tells why it does not.

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from circusd_bench import (
    IDLE,
    Bench,
    Exits,
    running,
)
from patience import wait_while

from circusplug._circusd.process import CircusdProcess
from circusplug._errors import CircusdError

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the promise needs Linux's child subreaper"
)

#: A circusd, and what lets it go on.
Held = tuple[CircusdProcess, Callable[[], object]]

#: Keeps circusd from being ready until somebody writes into the FIFO.
HELD = """
import os, sys

assert not [path for path in sys.path if path.endswith("_circusd")], "it imports what is ours"
held = [fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{{fd}}")]
assert not [fd for fd in held if os.get_inheritable(fd)], "its watchers would inherit what is ours"
with open({fifo!r}) as fifo:
    fifo.read(1)
stream = sys.stderr
"""


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where private directories are made; nothing else is in it."""
    directory = tmp_path / "private"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def test_it_answers_once_it_is_ready_and_a_stop_leaves_nothing(
    bench: Bench, private: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(bench.ini(IDLE, IDLE)) as circusd:
        assert bench.list_watchers() == ["w0", "w1"]
        bench.wait_started()
        assert not list(private.iterdir())  # its file is nowhere on disk
        # An interrupt at the terminal does not reach it.
        assert circusd.pid is not None
        assert os.getsid(circusd.pid) == os.getsid(circusd.guard_pid or 0) != os.getsid(0)
        assert os.getpgid(circusd.pid) != os.getpgid(0)
        with pytest.raises(CircusdError, match="started before"):
            circusd.start()
        with Exits(circusd.pid, circusd.guard_pid) as exits:
            assert circusd.stop() == 0
            exits.wait()
        bench.wait_all_gone()
        assert circusd.stop() == 0
    assert "Starting master" in capfd.readouterr().err  # where the host's output goes


def test_nothing_is_done_before_the_start(bench: Bench, private: Path) -> None:
    circusd = CircusdProcess(bench.ini())
    assert not list(private.iterdir())
    assert (circusd.pid, circusd.guard_pid, circusd.stop()) == (None, None, None)


def test_its_file_can_be_read_again(bench: Bench, private: Path) -> None:
    with running(bench.ini(IDLE)) as circusd:
        bench.wait_started()
        # It may be busy.
        wait_while(lambda: bench.call("reloadconfig", waiting=True)["status"] != "ok")
        assert bench.list_watchers() == ["w0"]
        assert not circusd.has_quit
    assert not list(private.iterdir())


def test_a_shorter_file_leaves_nothing_of_the_longer_one() -> None:
    process = CircusdProcess("")
    with open(os.memfd_create("circus.ini"), "r+") as file:
        process._file = file.fileno()
        process.rewrite("[circus]\n[watcher:long]\ncmd = sleep 120\n")
        process.rewrite("[circus]\n")
        assert file.read() == "[circus]\n"


def test_an_address_in_use_is_reported_and_the_first_circusd_goes_on(
    bench: Bench, private: Path
) -> None:
    with running(bench.ini(IDLE)):
        second = CircusdProcess(bench.ini(IDLE), source="/etc/second.ini")
        second.start()
        with pytest.raises(CircusdError) as caught:
            second.wait_ready()
        with Exits(second.guard_pid) as exits:
            second.stop()
            exits.wait()
        message = str(caught.value)
        assert message.startswith("/etc/second.ini: circusd did not start: Address already in use")
        assert "\n" not in message
        assert bench.list_watchers() == ["w0"]
    assert not list(private.iterdir())


@pytest.mark.parametrize(
    ("ini", "words"),
    [
        ("this is no ini file\n", "no section headers"),
        ("[circus]\ncheck_delay = often\n", "often"),
        ("[circus]\nendpoint = nonsense\n", "nonsense"),
    ],
)
def test_a_bad_ini_text_is_reported_in_one_line_that_names_the_users_file(
    ini: str, words: str, private: Path
) -> None:
    with pytest.raises(CircusdError) as caught, running(ini, source="/etc/mine.ini"):
        pass
    message = str(caught.value)
    assert message.startswith("/etc/mine.ini: circusd did not start: ")
    assert words in message
    assert "\n" not in message
    assert "/proc/" not in message
    assert not list(private.iterdir())


@pytest.fixture
def held(bench: Bench, nagged: Callable[[str], Path], tmp_path: Path) -> Iterator[Held]:
    """Starts a circusd that is not ready before the function that comes with it is called."""
    path = tmp_path / "go on"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    circusd = CircusdProcess(bench.ini(loggerconfig=nagged(HELD.format(fifo=str(path)))))
    circusd.start()
    yield circusd, lambda: os.write(fd, b"!")
    circusd.stop()
    os.close(fd)


def test_not_being_ready_in_time_is_an_error(held: Held) -> None:
    circusd, go_on = held
    with pytest.raises(CircusdError, match="not ready within 0 s"):
        circusd.wait_ready(timeout=0.0)
    go_on()
    circusd.wait_ready()


def test_being_killed_before_it_is_ready_is_an_error(held: Held) -> None:
    circusd, _ = held
    os.kill(circusd.guard_pid or 0, signal.SIGKILL)
    with pytest.raises(CircusdError, match="circusd"):
        circusd.wait_ready()


def test_without_circus_the_error_says_what_to_install(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "circus", None)
    with pytest.raises(CircusdError, match=r"pip install 'circusplug\[circusd\]'"):
        CircusdProcess(bench.ini()).start()


def test_importing_the_module_does_not_import_circus() -> None:
    program = (
        "import sys, circusplug._circusd.process;"
        "print({'circus', 'tornado', 'psutil'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert found.stdout == "set()\n"
