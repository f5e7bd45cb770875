# What `circusplug check` finds besides what a start refuses in the same words, and what it keeps to
# itself. Each check runs in a directory of its own.

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from circusd_real import free_endpoints
from command import environment, plugin, run, run_here, write_ini
from patience import PATIENCE

from circusplug._cli.hosting import refuse_hosts
from circusplug._config.ini_file import load

HOST = "circusplug.Host"
PLUGIN = "from circusplug import CircusPlugin\nclass Mine(CircusPlugin):\n    handle_recv = print\n"


def check(
    directory: Path,
    *sections: str,
    head: str = "",
    run: Callable[..., CompletedProcess[str]] = run_here,
) -> tuple[int, str, str]:
    """Check a file; returns the exit status and what was printed on both streams."""
    path = write_ini(directory, *free_endpoints(2), *sections)
    if head:
        path.write_text(path.read_text().replace("[circus]\n", f"[circus]\n{head}\n"))
    done = run(directory, "check", path.name)
    return done.returncode, done.stdout, done.stderr


# What circusd refuses.


@pytest.mark.parametrize(
    ("head", "section", "said"),
    [
        ("", "[watcher:w]\ncmd = x\nnumprocesses = two", "[watcher:w]: 'numprocesses': circusd"),
        ("", "[watcher:w]\ncmd = x\nwarmup_delay = 1\nstop_signal = NO", "[watcher:w]: circusd"),
        ("", "[socket:s]\nso_reuseport = perhaps", "[socket:s]: 'so_reuseport': circusd"),
        ("warmup_delay = often", "", "[circus]: 'warmup_delay': circusd"),
        ("umask = no", "", "[circus]: circusd"),
    ],
)
def test_what_circusd_refuses_is_one_line(
    tmp_path: Path, head: str, section: str, said: str
) -> None:
    status, _, err = check(tmp_path, section, plugin("a"), head=head)
    assert status == 1
    assert re.fullmatch(rf"circus\.ini:\d+: {re.escape(said)} refuses it: \w+: .*\n", err), err


def test_circusd_is_asked_in_a_process_of_its_own(tmp_path: Path) -> None:
    status, _, err = check(tmp_path, "[watcher:w]\ncmd = x\nnumprocesses = two", run=run)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("circus.ini:9: [watcher:w]: 'numprocesses': circusd refuses it: ")


def test_what_is_told_already_circusd_does_not_tell_again(tmp_path: Path) -> None:
    status, _, err = check(tmp_path, plugin("a"), head="check_delay = often")
    assert [line for line in err.splitlines() if not line.startswith("warning:")] == [
        "circus.ini:2: [circus]: 'check_delay': 'often' is not a number"
    ]
    assert status == 1


def test_a_plugin_s_section_is_not_circusd_s(tmp_path: Path) -> None:
    assert check(tmp_path, plugin("a", priority="high"))[0] == 0


def test_without_circus_or_without_imports_circusd_is_not_asked(tmp_path: Path) -> None:
    section = "[watcher:w]\ncmd = x\nnumprocesses = two"
    path = write_ini(tmp_path, *free_endpoints(2), section)
    hidden = "import importlib.util as u, sys; find = u.find_spec\n"
    hidden += "u.find_spec = lambda name, *more: None if name == 'circus' else find(name, *more)\n"
    hidden += "from circusplug._cli.main import run; run()"
    assert run(tmp_path, "check", path, program=[sys.executable, "-c", hidden]).returncode == 0
    assert run_here(tmp_path, "check", "--no-import", path).returncode == 0


@pytest.mark.parametrize(
    "refusal",
    [
        OSError(errno.EAGAIN, "Resource temporarily unavailable"),
        subprocess.TimeoutExpired("circus", 60),
        subprocess.CompletedProcess("circus", -9, b""),
    ],
)
def test_a_circus_that_cannot_be_asked_is_no_problem_of_the_file(
    refusal: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **options: object) -> object:
        assert options["timeout"]
        assert options["stderr"] == subprocess.DEVNULL  # Circus warns of itself
        if isinstance(refusal, Exception):
            raise refusal
        return refusal

    monkeypatch.setattr("command.circus_is_asked_here", contextlib.nullcontext)
    monkeypatch.setattr(subprocess, "run", refuse)
    status, out, err = check(tmp_path, plugin("a"), "[watcher:w]\ncmd = x\nnumprocesses = two\n")
    assert (status, err) == (0, "")
    assert out.endswith("circus.ini: 1 plugin, no problem\n")


def test_a_line_that_cannot_be_read_hides_nothing_else(tmp_path: Path) -> None:
    status, out, err = check(tmp_path, plugin("a", "tellers.Nobody"), "[watcher:w]\nnonsense\n")
    assert (status, "[plugin:a] tellers.Nobody" in out) == (1, True)
    first, second = err.splitlines()
    assert "[watcher:w]: 'nonsense' is no option" in first
    assert "module tellers has no 'Nobody'" in second


# What is hardly meant.


def test_warnings_are_lines_of_their_own_and_no_failure(tmp_path: Path) -> None:
    status, out, err = check(tmp_path, plugin("a", critical="yes", isolte="yes"))
    assert status == 0
    assert out.endswith("\ncircus.ini: 1 plugin, no problem, 2 warnings\n")
    assert err.splitlines() == [
        "warning: circus.ini:9: [plugin:a]: 'critical' goes to the plugin "
        "(did you mean 'host.critical'?)",
        "warning: circus.ini:10: [plugin:a]: 'isolte' goes to the plugin (did you mean 'isolate'?)",
    ]


def test_what_is_misspelt_fails_the_check(tmp_path: Path) -> None:
    status, _, err = check(
        tmp_path,
        "[plugins:x]\nuse = tellers.Teller\n",
        plugin("a", "circusplug.plugins.Logger", filname="x"),
        plugin("b", host_nice="99", isolate="yes"),
        plugin("c", isolate="yes", host_python_path="/no/such"),
        plugin("d", uid="0"),
        "[env:plugin:d]\nA = 1\n",
    )
    assert status == 1
    told = [re.sub(r"^circus\.ini(:\d+)?: ", "", line) for line in err.splitlines()]
    assert sorted(told) == [
        "[env:plugin:d]: an environment of its own needs a process of its own; add "
        "'isolate = true' to [plugin:d]",
        "[plugin:a]: there is no option 'filname' (did you mean 'filename'?)",
        "[plugin:b]: 'host.nice': '99' is more than 19",
        "[plugin:c]: 'host.python_path': '/no/such': there is no such directory",
        "[plugin:d]: 'uid' is for a process of its own, which Circus gives to each plugin; add "
        "'isolate = true', or take it out",
        "[plugins:x]: this is no plugin's section (did you mean [plugin:x]?)",
    ]


def test_methods_that_cannot_be_called_as_a_host_calls_them_are_told(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from circusplug import CircusPlugin\n"
        "class Deaf(CircusPlugin):\n"
        "    def handle_recv(self): pass\n"
        "class Strict(CircusPlugin):\n"
        "    def __init__(self, endpoint, pubsub_endpoint, check_delay, ssh_server=None): pass\n"
        "    def handle_recv(self, data): pass\n"
    )
    status, _, err = check(tmp_path, plugin("a", "odd.Deaf"), plugin("b", "odd.Strict"))
    first, second = err.splitlines()
    assert status == 1
    assert first.startswith(
        "circus.ini: [plugin:a]: odd.Deaf: handle_recv is called with one event"
    )
    assert second == (
        "circus.ini: [plugin:b]: odd.Strict: its __init__ does not take its options (got an "
        "unexpected keyword argument 'name'); write __init__(self, *args, **config)"
    )


@pytest.mark.parametrize("command", ["run", "up"])
def test_a_host_warns_in_its_log_and_goes_on(tmp_path: Path, command: str) -> None:
    path = write_ini(
        tmp_path, *free_endpoints(2),
        "[circusplug]\nexit_when_done = yes\n",
        plugin("a", "tellers.Unborn", host_max_restarts=0, critical="yes"),
    )  # fmt: skip
    done = run(
        tmp_path, command, path, "--log-output", "log", timeout=PATIENCE,
        env=environment(PYTHONWARNINGS=""),  # Circus warns of itself on newer Pythons
    )  # fmt: skip
    assert (done.returncode, "a has failed for good" in done.stderr) == (1, True), done.stderr
    log = (tmp_path / "log").read_text()
    assert log.count("'critical' goes to the plugin (did you mean 'host.critical'?)") == 1
    assert "did you mean" not in done.stderr


@pytest.mark.parametrize("command", ["run", "up", "migrate"])
def test_the_other_commands_refuse_what_a_thread_cannot_have(tmp_path: Path, command: str) -> None:
    path = write_ini(
        tmp_path, *free_endpoints(2),
        plugin("a", uid="0", rlimit_core="0"), "[env:plugin:a]\nA = 1\n",
    )  # fmt: skip
    done = run_here(tmp_path, command, path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 3
    assert done.stderr.count("isolate = true") == 3


# A file that a host under circusd reads.


def test_the_file_of_a_host_is_looked_through_with_all_that_is_hardly_meant(tmp_path: Path) -> None:
    (tmp_path / "plugins.ini").write_text(
        "[circus]\nlogoutput = /no/such/log\n"
        + plugin("circusplug", critical="yes")
        + plugin("b", host_nice="99", isolate="yes")
    )
    write_ini(tmp_path, *free_endpoints(2), plugin("circusplug", HOST, config="~/plugins.ini"))
    done = run_here(tmp_path, "check", "--no-import", "--json", "circus.ini", HOME=str(tmp_path))
    told = json.loads(done.stdout)
    assert done.returncode == 1
    # Of the two of one name the one that runs is shown.
    assert {name: each["use"] for name, each in told["plugins"].items()} == {
        "circusplug": "tellers.Teller"
    }
    assert [line.partition(": [")[2] for line in told["problems"]] == [
        "plugin:b]: 'host.nice': '99' is more than 19",
        "circus]: 'logoutput': cannot log to '/no/such/log': there is no directory /no/such",
    ]
    (warning,) = told["warnings"]
    assert "'critical' goes to the plugin" in warning


def test_a_host_that_is_off_is_not_looked_into_and_may_stay_where_it_is(tmp_path: Path) -> None:
    section = plugin("circusplug", HOST, active="no", config="absent.ini")
    path = write_ini(tmp_path, *free_endpoints(2), section)
    done = run_here(tmp_path, "check", "--no-import", path)
    assert (done.returncode, done.stderr) == (0, "")
    refuse_hosts(load(path))


# The log.


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("/no/such/log", "there is no directory /no/such"),
        ("~/absent/log", f"there is no directory {Path.home()}/absent"),
        ("sub", "Is a directory"),
    ],
)
def test_a_log_that_cannot_be_written_is_a_problem(
    tmp_path: Path, output: str, reason: str
) -> None:
    (tmp_path / "sub").mkdir()
    status, _, err = check(tmp_path, plugin("a"), head=f"logoutput = {output}")
    said = f"circus.ini:2: [circus]: 'logoutput': cannot log to '{output}': {reason}\n"
    assert (status, err) == (1, said)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")
def test_a_log_of_somebody_else_is_a_problem_be_it_there_or_not() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        for place in ("absent", "there"):
            (directory / place).mkdir()
            (directory / f"{place}.ini").write_text(f"[circus]\nlogoutput = {place}/log\n")
        (directory / "there").chmod(0o777)
        (directory / "there" / "log").touch(0o644)
        program = (
            "import configobj, os, sys; from circusplug._cli.check import check; os.setuid(65534); "
            "sys.exit(all([check(file, as_json=False, imports=False) for file in sys.argv[1:]]))"
        )
        files = ["absent.ini", "there.ini"]
        done = run(directory, *files, program=[sys.executable, "-c", program], timeout=PATIENCE)
    assert (done.returncode, done.stderr.splitlines()) == (1, [
        f"{place}.ini:2: [circus]: 'logoutput': cannot log to '{place}/log': Permission denied"
        for place in ("absent", "there")
    ])  # fmt: skip


@pytest.mark.parametrize("output", ["-", "stdout", "syslog:///dev/log", "log", "/dev/stderr"])
def test_a_log_that_can_be_written_is_fine_and_not_made(tmp_path: Path, output: str) -> None:
    (tmp_path / "stdout").mkdir()
    assert check(tmp_path, plugin("a"), head=f"logoutput = {output}")[0] == 0
    assert not (tmp_path / "log").exists()


# Plugins with a path of their own.


def test_a_plugin_s_own_path_is_no_other_plugin_s(tmp_path: Path) -> None:
    for directory in ("one", "two"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "tellers.py").write_text(PLUGIN)
        text = (
            PLUGIN + f"    @classmethod\n    def check_config(cls, config): raise {directory!r}\n"
        )
        (tmp_path / directory / "same.py").write_text(
            text.replace("raise 'one'", "raise KeyError('one')").replace("raise 'two'", "pass")
        )
    status, _, err = check(
        tmp_path,
        plugin("a", "same.Mine", isolate="yes", host_python_path="one"),
        plugin("b", "same.Mine", isolate="yes", host_python_path="two"),
        plugin("c", "same.Mine"),
        plugin("d", isolate="yes", host_python_path="one"),
    )
    assert status == 1
    first, second, third = err.splitlines()
    assert "[plugin:d]: 'use' names tellers.Teller, but module tellers has no 'Teller'" in third
    assert first == "circus.ini: [plugin:a]: KeyError: 'one'"
    assert second.startswith("circus.ini: [plugin:c]: 'use' names same.Mine, but there is no mod")


def test_an_import_in_a_process_of_its_own_has_the_plugin_s_environment_and_prints_apart(
    tmp_path: Path,
) -> None:
    (tmp_path / "one").mkdir()
    source = (
        "import os, threading\nprint('printed', flush=True)\nassert os.environ['NEEDED']\n"
        f"threading.Thread(target=threading.Event().wait).start()\n{PLUGIN}"
    )
    (tmp_path / "one" / "same.py").write_text(source)
    section = plugin("a", "same.Mine", isolate="yes", host_python_path="one")
    # Nothing is circusd's, so that Circus is not asked.
    (tmp_path / "circus.ini").write_text(f"{section}host.env.NEEDED = 1\n")
    done = run(tmp_path, "check", "circus.ini")
    assert (done.returncode, "printed" in done.stdout, done.stderr) == (0, False, "printed\n")


@pytest.mark.parametrize("status", [0, 3])
def test_an_import_that_ends_its_process_is_one_line(tmp_path: Path, status: int) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "same.py").write_text(f"import os\nos._exit({status})\n")
    section = plugin("a", "same.Mine", isolate="yes", host_python_path="one")
    said = "circus.ini: [plugin:a]: importing same.Mine ended the process that did it, with status"
    assert check(tmp_path, section)[::2] == (1, f"{said} {status}\n")


def test_plugins_beside_the_file_and_in_python_path_are_found_by_check(tmp_path: Path) -> None:
    for directory in ("elsewhere", "place", "more"):
        (tmp_path / directory).mkdir()
    path = write_ini(
        tmp_path / "place", *free_endpoints(2),
        f"[circusplug]\npython_path = {tmp_path / 'more'}\n",
        plugin("a"), plugin("b", "further.Mine"),
    )  # fmt: skip
    (tmp_path / "more" / "further.py").write_text(PLUGIN)
    done = run_here(tmp_path / "elsewhere", "check", path)
    assert (done.returncode, done.stderr) == (0, "")


# Secrets.


@pytest.mark.parametrize("arguments", [[], ["--no-import", "--json"]])
def test_secrets_are_masked(tmp_path: Path, arguments: list[str]) -> None:
    path = write_ini(
        tmp_path, *free_endpoints(2),
        plugin("a", smtp_password="hunter2", api_key="hunter2", user="visible"),
        plugin("b", isolate="yes") + "host.env.DB_TOKEN = hunter2\nhost.env.HOME = seen\n",
    )  # fmt: skip
    done = run_here(tmp_path, "check", path, *arguments)
    assert done.returncode == 0
    assert "hunter2" not in done.stdout + done.stderr
    assert done.stdout.count("****") == 3
    assert "visible" in done.stdout
    assert "seen" in done.stdout
    if arguments:
        assert json.loads(done.stdout)["plugins"]["b"]["host"]["env"]["DB_TOKEN"] == "****"
