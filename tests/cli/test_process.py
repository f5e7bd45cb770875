# The process of a command: what it imports from where it stands, what signals do to it, and that it
# ends when its host has ended.

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from circusd_real import free_endpoints
from command import COMMAND, Running, environment, plugin, run, write_ini
from patience import PATIENCE, wait_while

from circusplug import _imports
from circusplug.testing import FakeCircusd

#: Modules that the commands use, whose names a file may have as well.
STRANGERS = (
    "argparse", "configobj", "difflib", "fcntl", "json", "logging", "multiprocessing", "psutil",
    "resource", "subprocess", "tempfile", "tornado", "zmq",
)  # fmt: skip

#: What such a file holds: it leaves a trace, whoever runs it.
HOSTILE = "open('executed', 'w').close()\nraise SystemExit(99)\n"

#: What a plugin may leave behind: a thread of an executor that is busy for long.
EXECUTOR = """\
import asyncio, logging.handlers, sys, threading
from tellers import Teller

kept = logging.handlers.MemoryHandler(100, target=logging.FileHandler("kept.log"))
logging.getLogger("busy").addHandler(kept)

class Busy(Teller):
    async def handle_init(self):
        began = threading.Event()
        self.loop.run_in_executor(None, lambda: (began.set(), threading.Event().wait(1000)))
        while not began.is_set():
            await asyncio.sleep(0)
        logging.getLogger("busy").warning("kept until the end")
        self.say(f"init, switches each {sys.getswitchinterval()} s")
"""


def test_a_stray_thread_of_an_executor_does_not_keep_a_stopped_host(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(EXECUTOR)
    with FakeCircusd() as circusd:
        path = write_ini(
            tmp_path, circusd.endpoint, circusd.pubsub_endpoint,
            "[circusplug]\nswitch_interval = 0.002\n", plugin("a", "busy.Busy"),
        )  # fmt: skip
        with Running(tmp_path, "run", path) as command:
            command.wait_for("plugin:a: init, switches each 0.002 s")
            command.interrupt()
            assert command.end() == 0
    assert (tmp_path / "kept.log").read_text() == "kept until the end\n"
    assert "[a] plugin:a: stop\n" in command.lines


@pytest.mark.parametrize(
    "module", [["-m", "circusplug"], ["-mcircusplug"], ["-m", "circusplug._cli.main"]]
)
def test_the_package_runs_as_a_module(module: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *module, "--version"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "circusplug", "")


PROGRAMS = {
    "installed": [str(Path(sys.executable).with_name("circusplug"))],
    "module": [sys.executable, "-m", "circusplug"],
    "module in one word": [sys.executable, "-mcircusplug"],
}


#: Each command in the form that has the current directory on its path, and `run` in the others.
@pytest.mark.parametrize(
    ("command", "program"),
    [
        *((command, "module") for command in ("check", "run", "up", "migrate", "plugin")),
        *(("run", program) for program in PROGRAMS if program != "module"),
    ],
)
def test_a_file_in_the_current_directory_is_not_taken_for_a_module_of_ours(
    command: str, program: str, tmp_path: Path
) -> None:
    unborn = plugin("a", "tellers.Unborn", host_max_restarts=0)
    own = "[circusplug]\nexit_when_done = yes\n"
    path = write_ini(tmp_path, *free_endpoints(2), own, unborn)
    for stranger in STRANGERS:
        (tmp_path / f"{stranger}.py").write_text(HOSTILE)
    (tmp_path / "circus").mkdir()
    (tmp_path / "circus" / "__init__.py").write_text(HOSTILE)
    arguments = ["tellers.Unborn"] if command == "plugin" else [path]
    done = run(
        tmp_path, command, *arguments, program=PROGRAMS[program], timeout=PATIENCE,
        env=environment(PYTHONWARNINGS=""),  # Circus warns of itself on newer Pythons
    )  # fmt: skip
    assert not (tmp_path / "executed").exists()
    assert "Traceback" not in done.stderr or "RuntimeError: no good" in done.stderr
    assert done.returncode == (0 if command == "check" else 1)


def test_circus_plugin_takes_no_file_beside_it_for_a_module_of_ours(tmp_path: Path) -> None:
    write_ini(tmp_path, "", "")
    for stranger in STRANGERS:
        (tmp_path / f"{stranger}.py").write_text(HOSTILE)
    program = "import sys; sys.path.remove(''); from circusplug._cli.main import run_plugin as run"
    done = run(
        tmp_path, "tellers.Unborn", program=[sys.executable, "-c", f"{program}; run()"],
        timeout=PATIENCE,
    )  # fmt: skip
    assert not (tmp_path / "executed").exists()
    assert (done.returncode, "RuntimeError: no good" in done.stderr) == (1, True)


def test_a_module_of_somebody_else_that_runs_with_m_keeps_its_path(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("import circusplug, beside\n")
    (tmp_path / "theirs" / "__main__.py").write_text("")
    (tmp_path / "beside.py").write_text("print('found')\n")
    done = run(tmp_path, "circusplug", program=[sys.executable, "-m", "theirs"], timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "found\n", "")


@pytest.mark.parametrize(
    ("command", "safe", "stays"),
    [
        (["python", "-m", "circusplug", "run"], False, False),
        (["python", "-mcircusplug", "run"], False, False),
        (["python", "-m", "circusplug", "run"], True, True),  # -P: Python has not put it there
        (["python", "-m", "circusplugs", "run"], False, True),
    ],
)
def test_the_directory_that_python_puts_first_for_m_is_taken_away_and_no_other(
    command: list[str], safe: bool, stays: bool
) -> None:
    code = compile(Path(_imports.__file__).read_text(), "imports", "exec")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", ["first", *sys.path])
        patch.setattr(sys, "orig_argv", command)
        patch.setattr(sys, "argv", ["-m", "run"])
        patch.setattr(sys, "flags", SimpleNamespace(safe_path=safe))
        exec(code, {"__name__": "imports"})
        first = sys.path[0]
    assert (first == "first") is stays


def test_windows_is_told_in_one_line_what_is_supported(tmp_path: Path) -> None:
    program = "import sys; sys.platform = 'win32'\ntry:\n    import circusplug\n"
    program += "except ImportError as error:\n    print(error, 'resource' in sys.modules)"
    done = run(tmp_path, program=[sys.executable, "-c", program], timeout=PATIENCE)
    said = "circusplug needs Linux; on Windows it runs in WSL or in a container False\n"
    assert (done.stdout, done.stderr) == (said, "")


def test_plugins_beside_the_file_are_found_from_any_directory(tmp_path: Path) -> None:
    elsewhere, place, more = tmp_path / "elsewhere", tmp_path / "place", tmp_path / "more"
    for directory in (elsewhere, place, more):
        directory.mkdir()
    source = "import sys\nfrom tellers import Teller\nclass Mine(Teller):\n"
    source += "    def handle_init(self): self.say(f'init {sys.getswitchinterval()}')\n"
    (place / "beside.py").write_text(source)
    (more / "further.py").write_text(source)
    with FakeCircusd() as circusd:
        path = write_ini(
            place, circusd.endpoint, circusd.pubsub_endpoint,
            f"[circusplug]\npython_path = {more}\n",
            plugin("a", "beside.Mine"), plugin("b", "further.Mine"),
        )  # fmt: skip
        with Running(elsewhere, "run", os.path.relpath(place / path, elsewhere)) as command:
            command.wait_for_all("plugin:a: init 0.0005", "plugin:b: init 0.0005")
            command.interrupt()
            assert command.end() == 0


def test_sigusr1_opens_the_log_anew_sigusr2_does_nothing_and_sigquit_logs_all_threads_and_stops(
    tmp_path: Path,
) -> None:
    log, moved = tmp_path / "log", tmp_path / "moved"
    with FakeCircusd() as circusd:
        path = write_ini(
            tmp_path, circusd.endpoint, circusd.pubsub_endpoint, plugin("a"), plugin("b")
        )
        with Running(tmp_path, "run", path, "--log-output", str(log)) as command:
            command.wait_for_all("plugin:a: init", "plugin:b: init")
            log.rename(moved)
            for number in (signal.SIGUSR2, signal.SIGUSR1):
                command.signal(number)
            wait_while(lambda: not log.exists())
            command.signal(signal.SIGQUIT)
            assert command.end() == 0
    assert "hosting a, b" in moved.read_text()
    assert "plugin:a is at" in log.read_text()
    assert "all plugins are stopped" in log.read_text()
    assert {"[a] plugin:a: stop\n", "[b] plugin:b: stop\n"} <= set(command.lines)


def test_a_closed_terminal_ends_the_host(tmp_path: Path) -> None:
    with FakeCircusd() as circusd:
        write_ini(tmp_path, circusd.endpoint, circusd.pubsub_endpoint, plugin("a"))
        controller, terminal = pty.openpty()
        with open(tmp_path / "said", "w") as said:
            process = subprocess.Popen(
                [
                    sys.executable, "-c",
                    "import fcntl, os, sys, termios; os.setsid(); "
                    "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])",
                    *COMMAND, "run", "--log-output", "log", "circus.ini",
                ],
                cwd=tmp_path, env=environment(), stdin=terminal,
                stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip
        os.close(terminal)
        circusd.wait_subscribed(1, PATIENCE)
        os.close(controller)  # and the kernel sends a SIGHUP
        assert process.wait(PATIENCE) == 0
    said = (tmp_path / "said").read_text()  # it may have subscribed, and not been initialised
    assert said.count("plugin:a: init\n") == said.count("plugin:a: stop\n")


def test_a_host_that_shall_exit_when_done_does_and_says_that_all_have_failed(
    tmp_path: Path,
) -> None:
    with FakeCircusd() as circusd:
        unborn = plugin("a", "tellers.Unborn", host_max_restarts=0)
        path = write_ini(
            tmp_path, circusd.endpoint, circusd.pubsub_endpoint,
            "[circusplug]\nexit_when_done = yes\n", unborn, plugin("off", active="no"),
        )  # fmt: skip
        done = run(tmp_path, "run", path, timeout=PATIENCE)
    assert done.returncode == 1
    assert "every plugin has failed for good" in done.stderr
    assert done.stderr.endswith("circusplug: no plugin is left that runs: a has failed for good\n")


#: The command, but a signal comes when the host has begun and has no handlers yet.
INTERRUPTED = [
    sys.executable,
    "-c",
    "import os, signal; from circusplug._cli import main; from circusplug._host import arbiter\n"
    "opened = arbiter.Steering.opened\n"
    "def interrupted(*arguments):\n"
    "    os.kill(os.getpid(), signal.SIGINT)\n"
    "    return opened(*arguments)\n"
    "arbiter.Steering.opened = interrupted\n"
    "main.run()",
]


def test_ctrl_c_is_heard_while_the_host_takes_over(
    tmp_path: Path, fake_circusd: FakeCircusd
) -> None:
    path = write_ini(tmp_path, fake_circusd.endpoint, fake_circusd.pubsub_endpoint, plugin("one"))
    with Running(tmp_path, "run", path, program=INTERRUPTED) as command:
        assert command.end() in (0, 130)
    assert "Traceback" not in command.output
