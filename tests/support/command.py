# The commands as a user runs them: in a process of their own, in a directory of theirs, with
# everything that they and their children print in one stream. A test waits for a line, or for
# the stream's end, which comes when the last process that could write to it is gone.
#
# Owner: the test's thread reads the stream and sends the signals.

from __future__ import annotations

import contextlib
import importlib
import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from circus_here import circus_is_asked_here
from patience import PATIENCE

from circusplug._cli import main

COMMAND = [sys.executable, "-m", "circusplug._cli.main"]

#: The command, but for a host that lets a plugin take its time before it starts the next one.
PATIENT = [
    sys.executable,
    "-c",
    "import sys; from circusplug._cli import main; from circusplug._host import managed_plugin; "
    f"managed_plugin.READY_WAIT = {PATIENCE}; main.run()",
]

#: Plugins that tell what happens to them, a line each.
PLUGINS = '''\
import os
import select
import sys
import threading

from circusplug import CircusPlugin


class Teller(CircusPlugin):
    def say(self, text):
        sys.stdout.write(f"{self.config.get('name')}: {text}\\n")

    def handle_init(self):
        self.say("init")

    def handle_recv(self, data):
        watcher, action, _ = self.split_data(data)
        self.say(f"got {watcher} {action}")

    def handle_stop(self):
        self.say("stop")


class Shower(Teller):
    def handle_init(self):
        self.say(f"config {dict(self.config)!r}, delay {self.check_delay}")
        self.say(f"switches each {sys.getswitchinterval()} s")


class Caller(Teller):
    """Asks circusd, also when it stops; waits for the answers as long as it is told to."""

    def handle_init(self):
        patience = float(self.config.get("patience", 5))
        self.say(f"finds {self.call('list', timeout=patience)['watchers']}")

    def handle_stop(self):
        try:
            patience = float(self.config.get("patience", 1))
            answer = self.call("list", timeout=patience)["watchers"]
        except Exception as error:
            answer = type(error).__name__
        self.say(f"stop, and finds {answer}")


class Raises(Teller):
    def handle_recv(self, data):
        self.say("raises")
        raise ValueError("no use for this event")


class Unborn(Teller):
    def __init__(self, *args, **config):
        raise RuntimeError("no good")


class Quits(Teller):
    def handle_init(self):
        sys.exit("had enough")


class Finishes(Teller):
    def handle_recv(self, data):
        self.stop()


class Slow(Teller):
    """Does not get ready, and sends its host a signal.

    The host goes on to the next plugin after two seconds, which is soon for another process.
    """

    def handle_init(self):
        self.say("begins")
        os.kill(os.getpid(), int(self.config["signal"]))
        threading.Event().wait()


class Hangs(Teller):
    """Does not get ready."""

    def handle_init(self):
        threading.Event().wait()


class Lingers(Teller):
    """Does not come back from its stop."""

    def handle_stop(self):
        self.say("stopping")
        threading.Event().wait()


class Holder(Teller):
    """Holds a FIFO open for as long as its process lives."""

    def handle_init(self):
        self.held = os.open(self.config["fifo"], os.O_WRONLY)
        os.write(self.held, b"up\\n")


class NoHandler(CircusPlugin):
    pass


class NoPlugin:
    pass
'''


def write_ini(
    directory: Path, endpoint: str, pubsub_endpoint: str, *sections: str, name: str = "circus.ini"
) -> Path:
    """Write a circus.ini, and beside it the module ``tellers`` with `PLUGINS`."""
    (directory / "tellers.py").write_text(PLUGINS)
    head = f"[circus]\nendpoint = {endpoint}\npubsub_endpoint = {pubsub_endpoint}\n"
    head += 'multicast_endpoint = ""\ncheck_delay = 0.2\n'
    path = directory / name
    path.write_text("\n".join([head, *sections]) + "\n")
    return path


def plugin(name: str, use: str = "tellers.Teller", **options: Any) -> str:
    """The text of a plugin's section; ``_`` in an option's name stands for a dot after host."""
    lines = [f"{key.replace('host_', 'host.', 1)} = {value}" for key, value in options.items()]
    return "\n".join([f"[plugin:{name}]", f"use = {use}", *lines]) + "\n"


def environment(**more: str) -> dict[str, str]:
    """This process's environment, in which warnings are errors and output is buffered."""
    ours = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return {**ours, "PYTHONWARNINGS": "error", **more}


def run(
    directory: Path, *arguments: Any, program: Iterable[str] = COMMAND, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    defaults = {
        "env": environment(),
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    return subprocess.run(
        [*program, *map(str, arguments)], cwd=directory, text=True, **{**defaults, **options}
    )


@contextlib.contextmanager
def signals_as_before() -> Iterator[None]:
    """For a command that runs in this process: it would leave its signal handlers there."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)


def run_here(directory: Path, *arguments: Any, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process, which saves most of the time.

    For commands whose text is of interest, and whose process is not: they host nothing, and print
    by way of Python's streams. Modules that they import from *directory* are forgotten.
    `check` asks Circus's parser here, too.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    own = {path.stem for path in directory.rglob("*.py")}
    importlib.invalidate_caches()
    with circus_is_asked_here(), signals_as_before(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        patch.setattr(sys, "stdin", io.StringIO())
        for name, value in env.items():
            patch.setenv(name, value)
        for name in own:  # another directory's may have been imported
            patch.delitem(sys.modules, name, raising=False)
        try:
            status = main.main([str(argument) for argument in arguments])
        except SystemExit as end:  # as argparse ends
            status = int(end.code or 0)
        finally:
            for name, module in [*sys.modules.items()]:
                if str(getattr(module, "__file__", None)).startswith(f"{directory}/"):
                    del sys.modules[name]
    printed = []
    for stream in streams:
        stream.seek(0)
        printed.append(stream.read())
    return subprocess.CompletedProcess(arguments, status, *printed)


class Running:
    """A command that runs; a context manager, at whose end it is killed if it still runs.

    Args:
        directory: Where it runs.
        arguments: Of the command.
        program: What to run instead of `COMMAND`.
        options: For `subprocess.Popen`.

    Attributes:
        lines: What it has printed so far, as far as it was waited for.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: Any,
        program: Iterable[str] = COMMAND,
        **options: Any,
    ) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [*program, *map(str, arguments)],
            cwd=directory,
            text=True,
            errors="replace",
            **{
                "env": environment(),
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.STDOUT,
                **options,
            },
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return "".join(self.lines)

    def wait_for(self, part: str, count: int = 1) -> str:
        """Read on until *count* lines hold *part*; returns the last of them."""
        found = [line for line in self.lines if part in line]
        while len(found) < count:
            line = self._read_line()
            if not line:
                pytest.fail(f"ended without {count} of {part!r}:\n{self.output}", pytrace=False)
            if part in line:
                found.append(line)
        return found[count - 1]

    def wait_for_all(self, *parts: str) -> None:
        """Read on until each of *parts* was printed, in whatever order."""
        for part in parts:
            self.wait_for(part)

    def wait_silent(self) -> None:
        """Read on until nobody is left who could print: it, and whatever has its output."""
        while self._read_line():
            pass

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def type(self, line: str) -> None:
        """Write a line to its standard input, which is a pipe."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def interrupt(self) -> None:
        """Ctrl-C, as far as this one process is concerned."""
        self.signal(signal.SIGINT)

    def end(self) -> int:
        """Read all that is left; returns the exit status."""
        self.wait_silent()
        return self._process.wait()

    def wait(self) -> int:
        """Wait for its end, whoever reads what it prints; returns the exit status."""
        return self._process.wait()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        line: str = self._process.stdout.readline()
        if line:
            self.lines.append(line)
        return line


class Fifo:
    """Tells when the last process that holds it open is gone; a context manager.

    Each of those processes writes a line once it has opened it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        with contextlib.ExitStack() as stack:
            # Non-blocking, or this would wait for a writer; reading waits again.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, self._fd)
            os.set_blocking(self._fd, True)
            # Keeps it from ending before anybody has come.
            self._ours = stack.enter_context(open(path, "wb"))
            self._exit = stack.pop_all()

    def __enter__(self) -> Fifo:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit.close()

    def wait_held(self, count: int = 1) -> None:
        """Wait until *count* processes have opened it."""
        lines = 0
        while lines < count:
            lines += os.read(self._fd, 100).count(b"\n")

    def wait_unheld(self) -> None:
        """Wait until nobody holds it any more."""
        self._ours.close()
        while os.read(self._fd, 100):
            pass


def holder(fifo: Fifo, name: str = "holds", **options: Any) -> dict[str, Any]:
    """A watcher whose processes hold the FIFO, until they are told to end."""
    script = f"exec 3>{fifo.path}; echo up >&3; exec sleep 120"
    return {"name": name, "cmd": "sh", "args": ["-c", script], "graceful_timeout": 5, **options}


def assert_ends(*pids: int) -> None:
    """Wait until processes are gone, or would be if somebody reaped them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                ended, _, _ = select.select([descriptor], [], [], 20.0)
                assert ended, f"process {pid} does not end"
            finally:
                os.close(descriptor)
