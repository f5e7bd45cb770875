# The commands but `up`, which test_up.py has: what they say, what they return, and what they
# make of input that is wrong. Nothing that a user can mend may end in a traceback.

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from circus_here import circus_is_asked_here
from circusd_real import free_endpoints
from command import (
    COMMAND,
    PATIENT,
    Running,
    environment,
    plugin,
    run,
    run_here,
    write_ini,
)
from hasty import HASTY
from hosts import circusd_on_unix_sockets
from patience import PATIENCE

import circusplug
from circusplug import HostConfig, HostError
from circusplug._cli import hosting
from circusplug._cli import main as cli
from circusplug._cli.hosting import parse_plugin_config
from circusplug._errors import ConfigError
from circusplug._host import signals
from circusplug.testing import FakeCircusd

Main = Callable[..., tuple[int, str, str]]

PLUGIN_COMMANDS = {
    "circus-plugin": [
        sys.executable,
        "-c",
        "import sys; from circusplug._cli.main import plugin_main; sys.exit(plugin_main())",
    ],
    "circusplug plugin": [*COMMAND, "plugin"],
}


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Main]:
    """Runs the command in this process, in a directory of its own: for what hosts nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.delitem(sys.modules, "tellers", raising=False)
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    with circus_is_asked_here():
        yield call


@pytest.fixture
def ini(tmp_path: Path) -> Callable[..., Path]:
    """Writes a circus.ini of the given sections; nothing listens at its endpoints."""
    endpoints = free_endpoints(2)
    return lambda *sections, **options: write_ini(tmp_path, *endpoints, *sections, **options)


@pytest.fixture
def bare(ini: Callable[..., Path]) -> Callable[..., Path]:
    """Writes an ini with plugins alone: nothing in it is circusd's, so that Circus is not asked."""

    def write(*sections: str) -> Path:
        path = ini()
        path.write_text("\n".join(sections))
        return path

    return write


@contextlib.contextmanager
def hosted(
    directory: Path,
    circusd: FakeCircusd,
    *sections: str,
    arguments: tuple[str, ...] = (),
    program: list[str] = COMMAND,
) -> Iterator[Running]:
    """`circusplug run` with a circus.ini of the given sections against a fake circusd."""
    path = write_ini(directory, circusd.endpoint, circusd.pubsub_endpoint, *sections)
    with Running(directory, "run", path, *arguments, program=program) as command:
        yield command


# What the commands say of themselves.


def test_help_names_every_command_and_what_to_try_first(main: Main) -> None:
    status, out, _ = main("--help")
    assert status == 0
    for command in ("run", "up", "check", "plugin", "migrate"):
        assert re.search(rf"^ +{command} ", out, re.MULTILINE)
    assert "Try 'circusplug check circus.ini' first" in out


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        ("run", ["Ctrl-C or SIGTERM stops", "SIGHUP reads the file again", "'isolate = true'"]),
        ("up", ["without its plugin sections", "pip install 'circusplug[circusd]'"]),
        ("check", ["every problem at once", "exits with status 1", "--no-import"]),
        ("migrate", ["[plugin:circusplug]", "backup", "--undo"]),
        ("plugin", ["key:value:::key:value", "JSON object", "Example: circusplug plugin --config"]),
    ],
)
def test_the_help_of_a_command_teaches_its_use(main: Main, command: str, taught: list[str]) -> None:
    status, out, _ = main(command, "--help")
    text = " ".join(out.split())
    assert status == 0
    assert [part for part in taught if part not in text] == []


def test_every_option_has_a_help_text(main: Main) -> None:
    for command in ("run", "up", "check", "plugin", "migrate"):
        _, out, _ = main(command, "--help")
        options = re.findall(r"^  (-.*)\n(.*)", out.partition("options:")[2], re.MULTILINE)
        for option, next_line in options:
            assert re.search(r"\S  +\S", option) or next_line.startswith(" " * 20), option


@pytest.mark.parametrize("arguments", [["--version"], ["plugin", "--version"]])
def test_the_version_is_the_package_s(main: Main, arguments: list[str]) -> None:
    assert main(*arguments) == (0, f"circusplug {circusplug.__version__}\n", "")


def test_circus_plugin_tells_its_version(tmp_path: Path) -> None:
    done = run(tmp_path, "--version", program=PLUGIN_COMMANDS["circus-plugin"])
    assert (done.returncode, done.stdout) == (0, f"circusplug {circusplug.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["bogus"], "invalid choice: 'bogus'"),
        (["run"], "the following arguments are required: circus.ini"),
        (["check"], "the following arguments are required: circus.ini"),
        (["plugin"], "the following arguments are required: plugin"),
        (["run", "x.ini", "--bogus"], "unrecognized arguments: --bogus"),
        (["run", "x.ini", "--log-level", "loud"], "--log-level: invalid choice: 'loud'"),
        (["run", "x.ini", "--endpoint", "foo"], "--endpoint: 'foo' is no ZMQ endpoint; write tcp"),
        (["run", "x.ini", "--pubsub", "tcp://h"], "--pubsub: 'tcp://h' needs a host and a port"),
        (["plugin", "a.B", "--endpoint", "foo"], "--endpoint: 'foo' is no ZMQ endpoint"),
        (["plugin", "a.B", "--check-delay", "soon"], "'soon' is not a number of seconds"),
        (["plugin", "a.B", "--check-delay", "nan"], "'nan' is not a number of seconds"),
        (["plugin", "a.B", "--check-delay", "inf"], "'inf' is not a number of seconds"),
        (["plugin", "a.B", "--check-delay", "-1"], "argument --check-delay: "),
    ],
)
def test_a_usage_error_shows_the_usage_and_exits_with_status_2(
    main: Main, arguments: list[str], said: str
) -> None:
    status, out, err = main(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("usage: circusplug")
    assert said in err.splitlines()[-1]


# Files that are wrong.


def _missing(path: Path) -> str:
    return "no such file"


def _directory(path: Path) -> str:
    path.mkdir()
    return "is a directory"


def _not_text(path: Path) -> str:
    path.write_bytes(b"[circus]\n\xff\xfe = \x80\n")
    return "UTF-8"


def _not_ini(path: Path) -> str:
    path.write_text("[circus]\nhere are words\n")
    return "'here are words' is no option"


def _bad_value(path: Path) -> str:
    path.write_text("[circus]\nendpoint = somewhere\n")
    return "'somewhere' is no ZMQ endpoint"


def _strange_port(path: Path) -> str:
    path.write_text("[circus]\nendpoint = tcp://127.0.0.1:²\n", encoding="utf-8")
    return "needs a host and a port from 1 to 65535"


def _long_port(path: Path) -> str:
    path.write_text(f"[circus]\nendpoint = tcp://127.0.0.1:{'9' * 5000}\n")
    return "needs a host and a port from 1 to 65535"


def _no_text(path: Path) -> str:
    path.write_text(
        "[env]\nx = $(circus.env.ODD_BYTES)\n[circus]\nendpoint = ipc://$(circus.env.x)\n"
    )
    return "holds bytes that are no text"


def _unclosed(path: Path) -> str:
    path.write_text("[circus\nendpoint = x\n")
    return "'[circus' is no section; write [NAME]"


def _no_use(path: Path) -> str:
    path.write_text("[plugin:x]\nfilename = y\n")
    return "'use' is missing"


@pytest.mark.parametrize(
    "spoil",
    [
        _missing,
        _directory,
        _not_text,
        _not_ini,
        _bad_value,
        _strange_port,
        _long_port,
        _no_text,
        _unclosed,
        _no_use,
    ],
)
@pytest.mark.parametrize("command", ["run", "up", "check"])
def test_a_file_that_is_wrong_is_one_line_that_names_it(
    main: Main, command: str, spoil: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_BYTES", "\udcff")
    said = spoil(Path("my circus.ini"))
    status, out, err = main(command, "my circus.ini")
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert "my circus.ini" in line
    assert said in line


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux's /proc")
def test_a_file_that_cannot_be_read_is_one_line(main: Main) -> None:
    status, _, err = main("run", "/proc/self/mem")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "/proc/self/mem" in err


def test_every_problem_of_a_file_is_a_line_of_its_own(main: Main, ini: Callable[..., Path]) -> None:
    path = ini(plugin("one", host_restrat="never"), "[plugin:two]\nx = 1\n")
    status, _, err = main("run", path)
    assert status == 1
    lines = err.splitlines()
    assert [line.startswith("circusplug: ") for line in lines] == [True, True]
    assert "[plugin:one]: 'host.restrat' is no host option (did you mean 'host.restart'?)" in err


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("nowhere/x.log", "cannot log to 'nowhere/x.log': No such file or directory"),
        (".", "cannot log to '.': Is a directory"),
        ("syslog://?nonsense", "no syslog facility 'nonsense'"),
    ],
)
def test_a_log_output_that_cannot_be_opened_is_one_line(
    main: Main, ini: Callable[..., Path], output: str, said: str
) -> None:
    status, _, err = main("run", ini(), "--log-output", output)
    assert (status, len(err.splitlines())) == (1, 1)
    assert said in err
    assert "Errno" not in err


# check


def test_check_prints_what_each_plugin_would_receive(main: Main, ini: Callable[..., Path]) -> None:
    path = ini(
        plugin("one", greeting="a b: c", host_critical="yes"),
        plugin("two", isolate="true", target='"x y"'),
        plugin("three", active="false"),
        name="my.ini",
    )
    assert main("check", path.name) == (
        0,
        """\
[plugin:one] tellers.Teller, on a thread
    greeting = 'a b: c'
    name = 'plugin:one'
    host.critical = True
[plugin:three] tellers.Teller, not active
    active = 'false'
    name = 'plugin:three'
[plugin:two] tellers.Teller, in a process of its own
    target = 'x y'
    name = 'plugin:two'
my.ini: 3 plugins, no problem
""",
        "",
    )


def test_check_says_that_there_is_no_plugin(main: Main, ini: Callable[..., Path]) -> None:
    assert main("check", ini().name) == (0, "circus.ini: no plugins, no problem\n", "")


def test_check_prints_json_of_one_shape(main: Main, ini: Callable[..., Path]) -> None:
    path = ini(
        plugin("one", greeting="hello"),
        plugin("two", isolate="yes", host_nice=3, host_restart="never", working_dir="/"),
    )
    status, out, err = main("check", path, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {
        "plugins": {
            "one": {
                "use": "tellers.Teller",
                "config": {"greeting": "hello", "name": "plugin:one"},
                "isolate": False,
                "host": {},
            },
            "two": {
                "use": "tellers.Teller",
                "config": {"name": "plugin:two", "working_dir": "/"},
                "isolate": True,
                "host": {"nice": 3, "restart": "never", "working_dir": "/"},
            },
        },
        "problems": [],
        "warnings": [],
    }


def _many_problems(ini: Callable[..., Path]) -> Path:
    return ini(
        plugin("a", "tellers.Telller"),
        plugin("b", "absent.Plugin"),
        plugin("c", "tellers.NoHandler"),
        plugin("d", "tellers.NoPlugin"),
        plugin("e", "Teller"),
        plugin("f", host_criticl="yes"),
        plugin("g", host_nice=3),
        plugin("h", "tellers.PLUGINS"),
        plugin("ok"),
    )


PROBLEMS = [
    "[plugin:a]: 'use' names tellers.Telller, but module tellers has no 'Telller' "
    "(did you mean 'Teller'?)",
    "[plugin:b]: 'use' names absent.Plugin, but there is no module 'absent'",
    "[plugin:c]: tellers.NoHandler has no handle_recv(self, data)",
    "[plugin:d]: tellers.NoPlugin is no plugin; derive it from circusplug.CircusPlugin",
    "[plugin:e]: 'use' names 'Teller', which is no dotted name",
    "[plugin:f]: 'host.criticl' is no host option (did you mean 'host.critical'?)",
    "[plugin:g]: 'host.nice' needs a process of its own; add 'isolate = true'",
    "[plugin:h]: 'use' names tellers.PLUGINS, but module tellers has no 'PLUGINS'",
]


def test_check_tells_every_problem_at_once(main: Main, ini: Callable[..., Path]) -> None:
    path = _many_problems(ini)
    status, out, err = main("check", path)
    assert status == 1
    assert "[plugin:ok] tellers.Teller, on a thread" in out
    assert "no problem" not in out
    assert [problem for problem in PROBLEMS if problem not in err] == []
    lines = err.splitlines()
    assert len(lines) == len(PROBLEMS)
    assert all(str(path) in line for line in lines)


def test_check_tells_every_problem_in_json_too(main: Main, ini: Callable[..., Path]) -> None:
    path = _many_problems(ini)
    status, out, err = main("check", "--json", path)
    assert (status, err) == (1, "")
    problems = json.loads(out)["problems"]
    assert sorted(problems) == sorted(main("check", path)[2].splitlines())


def test_check_without_imports_leaves_their_problems_out(
    main: Main, ini: Callable[..., Path]
) -> None:
    path = ini(plugin("a", "absent.Plugin"), plugin("b", host_nice=3))
    status, out, err = main("check", "--no-import", path)
    assert "[plugin:a] absent.Plugin, on a thread" in out
    assert (status, len(err.splitlines())) == (1, 1)
    assert "[plugin:b]: 'host.nice'" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:", "SyntaxError: invalid syntax (module_with_error.py, line 1)"),
        ("import nowhere_to_be_found", "needs 'nowhere_to_be_found'; install it"),
        ("raise KeyError('x')", "importing module_with_error failed: KeyError: 'x'"),
        ("import sys; sys.exit(0)", "importing module_with_error failed: SystemExit: 0"),
    ],
)
def test_check_tells_why_a_module_cannot_be_imported(
    main: Main, ini: Callable[..., Path], text: str, said: str
) -> None:
    Path("module_with_error.py").write_text(text)
    status, _, err = main("check", ini(plugin("a", "module_with_error.Plugin")))
    assert (status, len(err.splitlines())) == (1, 1)
    assert said in err


def test_what_a_module_prints_does_not_spoil_the_json_of_check(
    main: Main, ini: Callable[..., Path]
) -> None:
    path = ini(plugin("one", "chatty.Teller"))
    Path("chatty.py").write_text("print('good morning')\nfrom tellers import Teller\n")
    _, out, err = main("check", "--json", path)
    assert list(json.loads(out)["plugins"]) == ["one"]
    assert err == "good morning\n"


def test_check_imports_an_isolated_plugin_from_its_own_path(
    main: Main, ini: Callable[..., Path]
) -> None:
    path = ini(
        plugin("in", "elsewhere.Teller", isolate="yes", host_python_path="apart"),
        plugin("out", "elsewhere_too.Teller"),
    )
    Path("apart").mkdir()
    for name in ("elsewhere", "elsewhere_too"):
        Path("apart", f"{name}.py").write_text("from tellers import Teller\n")
    status, _, err = main("check", path)
    assert (status, len(err.splitlines())) == (1, 1)
    assert "[plugin:out]: 'use' names elsewhere_too.Teller, but there is no module" in err


def test_check_prints_what_the_terminal_cannot_show(
    tmp_path: Path, bare: Callable[..., Path]
) -> None:
    path = bare(plugin("one", greeting="grüß"))
    done = run(tmp_path, "check", path, env=environment(PYTHONIOENCODING="ascii"))
    assert (done.returncode, done.stderr) == (0, "")
    assert r"greeting = 'gr\xfc\xdf'" in done.stdout


@pytest.mark.parametrize(("code", "status"), [(0, 0), (2, 2), ("in words", 1), (None, 1)])
def test_a_command_that_is_left_ends_with_its_status(
    code: object, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OverError(Exception):
        """The process has ended."""

    def end(status: int) -> None:
        raise OverError(status)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(cli.logging, "shutdown", lambda: None)
    with pytest.raises(OverError, match=f"^{status}$"):
        cli._end_process(lambda: sys.exit(code))  # type: ignore[arg-type]


# The surroundings of a command.


def test_a_reader_that_left_ends_a_command_without_complaint(
    tmp_path: Path, bare: Callable[..., Path]
) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = run(tmp_path, "check", bare(plugin("one")), stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_output_that_there_is_no_room_for_is_one_line(
    tmp_path: Path, bare: Callable[..., Path]
) -> None:
    with open("/dev/full", "w") as full:
        done = run(tmp_path, "check", bare(plugin("one")), stdout=full)
    said = "circusplug: cannot write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_file_that_circusd_hosts_is_checked_through_and_not_hosted_here(
    tmp_path: Path, ini: Callable[..., Path]
) -> None:
    path = ini(plugin("one", "tellers.Nobody"))
    assert run_here(tmp_path, "migrate", "--yes", path).returncode == 0
    checked = run_here(tmp_path, "check", path)
    assert checked.returncode == 1
    assert "[plugin:circusplug] circusplug.Host" in checked.stdout
    assert "plugins.ini: [plugin:one]: 'use' names tellers.Nobody" in checked.stderr
    for command in ("run", "up"):
        hosted = run_here(tmp_path, command, path)
        assert (hosted.returncode, len(hosted.stderr.splitlines())) == (1, 1)
        assert "start this file with 'circusd'" in hosted.stderr


def test_a_hosted_file_that_is_missing_is_told_with_who_wants_it(main: Main, ini: Any) -> None:
    status, _, err = main("check", ini("[plugin:h]\nuse = circusplug.Host\nconfig = no.ini\n"))
    assert (status, len(err.splitlines())) == (1, 1)
    assert "[plugin:h]: 'config': no.ini: no such file" in err


def test_a_host_without_its_file_does_not_pass_the_check(main: Main, ini: Any) -> None:
    status, _, err = main("check", ini("[plugin:h]\nuse = circusplug.Host\nx = 1\n"))
    assert (status, len(err.splitlines())) == (1, 1)
    assert "[plugin:h]: 'config' is missing" in err


def test_check_judges_the_options_of_plugins_that_can_tell(main: Main, ini: Any) -> None:
    sections = [
        "[plugin:a]\nuse = circusplug.plugins.LoadScaler\nhost.restart = never\n",
        "[plugin:b]\nuse = circusplug.plugins.Alert\nattempts = few\n",
        "[plugin:c]\nuse = circusplug.plugins.Logger\nformat = json\n",
        "[plugin:d]\nuse = picky.Picky\n",
        "[plugin:e]\nuse = picky.Careless\n",
    ]
    Path("picky.py").write_text(
        "from circusplug import CircusPlugin\n"
        "from circusplug.plugins import Logger\n"
        "class Picky(CircusPlugin):\n"
        "    def handle_recv(self, data): pass\n"
        "    @classmethod\n"
        "    def check_config(cls, config): config['colour']\n"
        "class Careless(Logger):\n"
        "    def __init__(self, *args, **config):\n"
        "        open('made', 'w')\n"
    )
    status, _, err = main("check", ini(*sections))
    first, second, third = err.splitlines()
    assert status == 1
    assert first.endswith("[plugin:a]: 'watcher' is missing; give the name of the watcher to scale")
    assert second.endswith("[plugin:b]: 'attempts': 'few' is not a whole number")
    assert third.endswith("[plugin:d]: KeyError: 'colour'")
    assert not Path("made").exists()


def test_what_a_module_writes_to_the_descriptor_does_not_spoil_the_json_either(
    tmp_path: Path, bare: Callable[..., Path]
) -> None:
    (tmp_path / "writes.py").write_text("import os\nos.write(1, b'loaded')\n")
    done = run(tmp_path, "check", "--json", bare(plugin("one", "writes.Nobody")))
    assert json.loads(done.stdout)["problems"]
    assert "loaded" in done.stderr


def test_a_command_runs_with_all_standard_files_closed(
    tmp_path: Path, ini: Callable[..., Path], bare: Callable[..., Path]
) -> None:
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND]
    assert run(tmp_path, "check", ini(plugin("one")), program=shell).returncode == 0
    assert run(tmp_path, "check", bare(plugin("one", "a.B")), program=shell).returncode == 1


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    """The command as pip installs it: a script somewhere else."""
    (tmp_path / "bin").mkdir()
    path = tmp_path / "bin" / "circusplug"
    path.write_text("import sys\nfrom circusplug._cli.main import main\nsys.exit(main())\n")
    return [sys.executable, str(path)]


def test_plugins_are_imported_from_the_current_directory_as_circus_does(
    tmp_path: Path,
    bare: Callable[..., Path],
    script: list[str],
    fake_circusd: FakeCircusd,
) -> None:
    sections = [plugin("one"), plugin("two", isolate="yes")]
    path = bare(*sections)
    (tmp_path / "apart").mkdir()
    moved = path.rename(tmp_path / "apart" / path.name)
    assert run(tmp_path, "check", moved, program=script).returncode == 0
    elsewhere = run(tmp_path / "bin", "check", moved, program=script)
    assert "there is no module 'tellers'" in elsewhere.stderr
    ends = fake_circusd.endpoint, fake_circusd.pubsub_endpoint
    path = write_ini(tmp_path, *ends, *sections).rename(moved)
    with Running(tmp_path, "run", path, program=script) as command:
        command.wait_for_all("plugin:one: init", "plugin:two: init")
        command.interrupt()
        assert command.end() == 0


def test_a_current_directory_that_is_gone_does_no_harm(
    tmp_path: Path, ini: Callable[..., Path], script: list[str]
) -> None:
    (tmp_path / "gone").mkdir()
    shell = ["sh", "-c", 'rmdir ../gone && exec "$@"', "sh", *script]
    done = run(tmp_path / "gone", "check", "--no-import", ini(plugin("one")), program=shell)
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout[:12]) == (0, "[plugin:one]")


# circus-plugin


@pytest.fixture(params=PLUGIN_COMMANDS)
def plugin_command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    write_ini(tmp_path, *free_endpoints(2))  # for the module beside it
    return PLUGIN_COMMANDS[request.param]


def test_one_plugin_runs_with_circus_s_flags_and_log_lines(
    tmp_path: Path, plugin_command: list[str]
) -> None:
    with FakeCircusd() as circusd:
        flags = ["--endpoint", circusd.endpoint, "--pubsub", circusd.pubsub_endpoint]
        flags += ["--check-delay", "2.5", "--log-level", "INFO", "--log-output", "-"]
        flags += ["--config", "name:teller:::greeting:a: b 'c'", "tellers.Shower"]
        with Running(tmp_path, *flags, program=plugin_command) as command:
            command.wait_for("teller: config")
            circusd.wait_subscribed(1, timeout=PATIENCE)
            circusd.publish("web", "spawn", process_pid=1)
            command.wait_for("teller: got web spawn")
            command.interrupt()
            assert command.end() == 0
    logged = re.findall(r"^\S+ \S+ (teller)\[\d+\] \[INFO\] (.*)$", command.output, re.MULTILINE)
    assert [message for _, message in logged][:4] == [
        "Loading the plugin...",
        f"Endpoint: '{circusd.endpoint}'",
        f"Pub/sub: '{circusd.pubsub_endpoint}'",
        "Starting",
    ]
    assert "config {'name': 'teller', 'greeting': \"a: b 'c'\"}, delay 2.5" in command.output
    assert "teller: switches each 0.0005 s" in command.output
    assert "[teller] teller: stop\n" in command.lines


@pytest.fixture
def circusd_flags(fake_circusd: FakeCircusd) -> list[str]:
    """Where circusd is, as `circus-plugin` is told; a plugin waits a second for one that is not."""
    return ["--endpoint", fake_circusd.endpoint, "--pubsub", fake_circusd.pubsub_endpoint]


@pytest.mark.parametrize("plugin_command", ["circus-plugin"], indirect=True)
def test_options_given_as_json_keep_their_types(
    tmp_path: Path, plugin_command: list[str], circusd_flags: list[str]
) -> None:
    config = {"name": "t", "list": [1, {"a": None}], "text": "a:::b: 'c' \"d\"", "no": False}
    flags = [*circusd_flags, "--config", json.dumps(config), "tellers.Shower"]
    with Running(tmp_path, *flags, program=plugin_command) as command:
        assert f"t: config {config!r}" in command.wait_for("t: config")
        command.signal(signal.SIGTERM)
        assert command.end() == 0


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("  ", {}),
        ("a:b", {"a": "b"}),
        ("a: b :::c :d", {"a": "b", "c": "d"}),
        ("url:http://h:80/x", {"url": "http://h:80/x"}),
        ("a:", {"a": ""}),
        ("a:x y:::b:'q' \"r\"", {"a": "x y", "b": "'q' \"r\""}),
        ('{"a": ":::", "b": 1}', {"a": ":::", "b": 1}),
        (' {"a": {"b": []}} ', {"a": {"b": []}}),
    ],
)
def test_plugin_options_are_read_from_a_command_line(text: str, options: dict[str, Any]) -> None:
    assert parse_plugin_config(text) == options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foo", "'foo' is not key:value; write key:value:::key:value, or JSON"),
        ("a:b:::foo", "'foo' is not key:value"),
        (":foo", "':foo' is not key:value"),
        ("{x", "not valid JSON: "),
        ('{"a": 1} trailing', "not valid JSON: "),
    ],
)
def test_plugin_options_that_cannot_be_read_are_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"^--config: ") as caught:
        parse_plugin_config(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tellers.Telller"], "tellers.Telller: module tellers has no 'Telller' (did you mean"),
        (["absent.Plugin"], "absent.Plugin: there is no module 'absent'; install it"),
        (["Teller"], "'Teller' is no dotted name; write package.module.Class"),
        (["tellers.NoHandler"], "tellers.NoHandler has no handle_recv(self, data)"),
        (["tellers.NoPlugin"], "tellers.NoPlugin is no plugin; derive it from"),
        (["tellers.Teller", "--config", "x"], "--config: 'x' is not key:value"),
        (["tellers.Teller", "--config", "host.nice:3"], "--config: 'host.nice' needs a process"),
        (["tellers.Teller", "--config", "isolate:maybe"], "--config: 'isolate': 'maybe' is not"),
        (["tellers.Teller", "--config", "active:no"], "tellers.Teller is not active"),
        (["tellers.Teller", "--log-output", "/"], "'logoutput': cannot log to '/': Is a directory"),
    ],
)
def test_a_plugin_that_cannot_run_is_one_line(
    main: Main, ini: Callable[..., Path], arguments: list[str], said: str
) -> None:
    ini()
    status, _, err = main("plugin", "--log-level", "warning", *arguments)
    assert (status, len(err.splitlines())) == (1, 1)
    assert err.startswith(f"circusplug: {said}")


def test_a_plugin_that_fails_ends_its_command_with_its_traceback_and_status_1(
    tmp_path: Path, plugin_command: list[str]
) -> None:
    done = run(tmp_path, "tellers.Unborn", program=plugin_command)
    assert done.returncode == 1
    first, *rest = re.findall(r'^  File ".*", line \d+, in (.*)$', done.stderr, re.MULTILINE)
    assert (first, rest) == ("__init__", [])  # the plugin's own, and nothing of the host's
    assert done.stderr.count("RuntimeError: no good") == 3
    program = "circusplug" if "plugin" in plugin_command else "circus-plugin"
    last = done.stderr.splitlines()[-1]
    assert last == f"{program}: tellers.Unborn has failed: RuntimeError: no good"


@pytest.mark.parametrize("plugin_command", ["circusplug plugin"], indirect=True)
def test_a_plugin_that_exits_ends_its_command_with_a_word(
    tmp_path: Path, plugin_command: list[str], circusd_flags: list[str]
) -> None:
    flags = [*circusd_flags, "--log-level", "error"]
    done = run(tmp_path, *flags, "tellers.Quits", program=plugin_command)
    assert done.returncode == 1
    assert "tellers.Quits has failed: left by sys.exit('had enough')" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("plugin_command", ["circus-plugin"], indirect=True)
def test_a_plugin_that_stops_itself_ends_its_command_with_status_0(
    tmp_path: Path,
    plugin_command: list[str],
    circusd_flags: list[str],
    fake_circusd: FakeCircusd,
) -> None:
    with Running(tmp_path, *circusd_flags, "tellers.Finishes", program=plugin_command) as command:
        fake_circusd.wait_subscribed(1, timeout=PATIENCE)
        fake_circusd.publish("web", "spawn", process_pid=1)
        assert command.end() == 0
    assert command.output.count("None: stop\n") == 1


# run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_hosts_the_plugins_and_a_signal_stops_each_in_reverse_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    sections = [plugin("a"), plugin("b", isolate="yes"), plugin("c"), plugin("d", active="no")]
    with (
        FakeCircusd() as circusd,
        hosted(tmp_path, circusd, *sections, program=PATIENT) as command,
    ):
        circusd.wait_subscribed(3, timeout=PATIENCE)
        circusd.publish("my.app", "spawn", process_pid=1)
        command.wait_for_all(*(f"plugin:{name}: got my.app spawn" for name in "abc"))
        command.signal(number)
        assert command.end() == 0
    assert "plugin:b: stop" in command.output  # its lines take a way of their own
    assert re.findall(r"plugin:([ac]): (init|stop)", command.output) == [
        ("a", "init"), ("c", "init"), ("c", "stop"), ("a", "stop"),
    ]  # fmt: skip
    assert "[INFO] hosting a, b, c" in command.output


def test_an_exception_is_told_with_the_plugin_s_name_and_its_traceback(tmp_path: Path) -> None:
    names = ("one", "two")
    sections = [plugin("one", "tellers.Raises"), plugin("two", "tellers.Raises", isolate="yes")]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections) as command:
        circusd.wait_subscribed(2, timeout=PATIENCE)
        circusd.publish("web", "spawn", process_pid=1)
        command.wait_for("ValueError: no use for this event", 4)
        command.wait_for_all(*(f"plugin:{name}: raises" for name in names))
        command.interrupt()
        assert command.end() == 0
    for name in names:
        told = rf" {name}\[\d+\] \[ERROR\] handle_recv failed: ValueError"
        assert re.search(told, command.output), name
    # What comes from a process is marked line by line.
    for mark in ("", r"\[two\] "):
        frame = rf'^{mark}  File ".*/(.*)", line \d+, in (.*)$'
        frames = re.findall(frame, command.output, re.MULTILINE)
        assert frames == [("tellers.py", "handle_recv")], mark


def test_a_plugin_that_fails_is_told_once_and_restarted(tmp_path: Path) -> None:
    options = {"host_max_restarts": 1, "host_restart_delay": 0}
    sections = [plugin("bad", "tellers.Missing", **options), plugin("good")]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections) as command:
        command.wait_for("bad has failed for good after 2 failures: ")
        circusd.wait_subscribed(1, timeout=PATIENCE)
        command.interrupt()
        assert command.end() == 0
    told = [line for line in command.lines if "module tellers has no 'Missing'" in line]
    assert [re.findall(r"\[\d+\] \[ERROR\] bad has failed(.*?): ", line) for line in told] == [
        [""], [" for good after 2 failures"],
    ]  # fmt: skip
    assert told[0].endswith("; it starts again in 0.1 s\n")
    assert "Traceback" not in command.output


def test_the_log_goes_to_the_file_that_the_ini_names_and_prints_do_not(tmp_path: Path) -> None:
    with FakeCircusd() as circusd:
        path = write_ini(tmp_path, circusd.endpoint, circusd.pubsub_endpoint, plugin("one"))
        path.write_text(path.read_text().replace("[circus]", "[circus]\nlogoutput = host.log"))
        with Running(tmp_path, "run", path) as command:
            command.wait_for("plugin:one: init")
            command.interrupt()
            assert command.end() == 0
    assert command.output == "[one] plugin:one: init\n[one] plugin:one: stop\n"
    assert "[INFO] all plugins are stopped" in (tmp_path / "host.log").read_text()


def test_endpoints_and_log_options_on_the_command_line_go_before_the_file_s(
    tmp_path: Path, ini: Callable[..., Path], circusd_flags: list[str], fake_circusd: FakeCircusd
) -> None:
    path = ini(plugin("one", "tellers.Raises"))
    flags = [*circusd_flags, "--log-output", "my host.log", "--log-level", "ERROR"]
    with Running(tmp_path, "run", path, *flags) as command:
        fake_circusd.wait_command("list", timeout=PATIENCE)
        fake_circusd.wait_subscribed(1, timeout=PATIENCE)
        fake_circusd.publish("web", "spawn", process_pid=1)
        command.wait_for("plugin:one: raises")
        command.interrupt()
        assert command.end() == 0
    log = (tmp_path / "my host.log").read_text()
    assert "no use for this event" in log
    assert "[INFO]" not in log


def test_run_says_that_nothing_is_active_and_waits_for_a_change(tmp_path: Path) -> None:
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, plugin("one", active="no")) as command:
        command.wait_for("circus.ini: no [plugin:NAME] section that is active")
        command.wait_for("hosting no plugin")
        write_ini(tmp_path, circusd.endpoint, circusd.pubsub_endpoint, plugin("one"))
        command.signal(signal.SIGHUP)
        command.wait_for("plugin:one: init")
        command.interrupt()
        assert command.end() == 0


def test_paths_with_spaces_and_letters_of_all_kinds_and_other_line_ends_work(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "größer als 1"
    directory.mkdir()
    with FakeCircusd() as circusd:
        ends = (circusd.endpoint, circusd.pubsub_endpoint)
        path = write_ini(directory, *ends, plugin("löwe", greeting="ñ"), name="mein zirkus.ini")
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        with Running(directory, "run", path) as command:
            circusd.wait_subscribed(1, timeout=PATIENCE)
            circusd.publish("bär", "spawn", process_pid=1)
            command.wait_for("plugin:löwe: got bär spawn")
            command.interrupt()
            assert command.end() == 0


# run: reading the file again


def test_sighup_restarts_only_what_changed(tmp_path: Path) -> None:
    with FakeCircusd() as circusd:
        ends = (circusd.endpoint, circusd.pubsub_endpoint)
        sections = [plugin("changed", x=1), plugin("gone"), plugin("same")]
        with hosted(tmp_path, circusd, *sections) as command:
            command.wait_for_all(*(f"plugin:{name}: init" for name in ("changed", "gone", "same")))
            sections = [plugin("changed", x=2), plugin("new"), plugin("same")]
            write_ini(tmp_path, *ends, *sections)
            command.signal(signal.SIGHUP)
            command.wait_for("reloaded: removed gone; changed changed; added new")
            # A plugin that is slow to start is not waited for.
            command.wait_for("plugin:changed: init", 2)
            command.wait_for("plugin:new: init")
            assert command.output.count("plugin:changed: init") == 2
            assert "plugin:gone: stop" in command.output
            command.signal(signal.SIGHUP)
            command.wait_for("reloaded: nothing has changed")
            assert command.output.count("plugin:same: init") == 1
            assert "plugin:same: stop" not in command.output
            command.interrupt()
            assert command.end() == 0
    assert command.output.count("stop\n") == 5


def test_sighup_with_a_faulty_file_changes_nothing_and_tells_why(tmp_path: Path) -> None:
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, plugin("one")) as command:
        circusd.wait_subscribed(1, timeout=PATIENCE)
        ends = (circusd.endpoint, circusd.pubsub_endpoint)
        write_ini(tmp_path, *ends, plugin("one", host_critcal="yes"), plugin("two"))
        command.signal(signal.SIGHUP)
        line = command.wait_for("not reloaded, all stays as it was: ")
        assert "'host.critcal' is no host option (did you mean 'host.critical'?)" in line
        # Classes that cannot be started are told in the words of a check.
        sections = [plugin("one", "tellers.Telller"), plugin("two", "no.such", isolate="yes")]
        path = write_ini(tmp_path, *ends, *sections)
        problems = run_here(tmp_path, "check", path).stderr.splitlines()
        command.signal(signal.SIGHUP)
        assert len(problems) == 2
        for problem in problems:
            line = command.wait_for(problem)
            assert line.endswith(f"not reloaded, all stays as it was: {problem}\n")
        circusd.publish("web", "spawn", process_pid=1)
        command.wait_for("plugin:one: got web spawn")
        path.unlink()
        command.signal(signal.SIGHUP)
        command.wait_for("circus.ini: no such file")
        command.interrupt()
        assert command.end() == 0
    assert command.output.count("init\n") == 1


def test_sighup_loads_edited_code_or_tells_why_not(tmp_path: Path) -> None:
    with FakeCircusd() as circusd:
        sections = [plugin("edited", "mine.Mine"), plugin("same")]
        (tmp_path / "mine.py").write_text("from tellers import Teller as Mine\n")
        with hosted(tmp_path, circusd, *sections) as command:
            command.wait_for_all("plugin:edited: init", "plugin:same: init")
            (tmp_path / "mine.py").write_text("from tellers import Tellers as Mine\n")
            command.signal(signal.SIGHUP)
            line = command.wait_for("not reloaded, all stays as it was: ")
            assert "[plugin:edited]: 'use' names mine.Mine, but importing mine failed: " in line
            (tmp_path / "mine.py").write_text(
                "from tellers import Teller\n"
                "class Mine(Teller):\n"
                "    def handle_init(self): self.say('new init')\n"
            )
            command.signal(signal.SIGHUP)
            command.wait_for("reloaded: restarted edited with edited code")
            command.wait_for("plugin:edited: new init")
            command.interrupt()
            assert command.end() == 0
    assert command.output.count("plugin:edited: stop") == 2
    assert command.output.count("plugin:same: stop") == 1


def test_sighup_takes_another_log_level_and_restarts_nobody(tmp_path: Path) -> None:
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, plugin("one")) as command:
        command.wait_for("plugin:one: init")
        path = tmp_path / "circus.ini"
        text = path.read_text()
        path.write_text(text.replace("[circus]", "[circus]\nlogoutput = host.log"))
        os.mkfifo(tmp_path / "host.log")  # so that its lines can be waited for
        command.signal(signal.SIGHUP)
        with open(tmp_path / "host.log") as log:
            assert any("reloaded: nothing has changed" in line for line in log)
            command.signal(signal.SIGTERM)
            assert command.end() == 0
    assert command.output.count("plugin:one: init") == 1


def test_what_circus_plugin_is_told_reaches_the_host(
    main: Main, ini: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Any, ...]] = []

    def refuse(*arguments: Any, **options: Any) -> None:
        made.append((*arguments[1:], options))
        raise HostError("enough")

    ini()
    monkeypatch.setattr(hosting, "Arbiter", refuse)
    ends = ["--endpoint", "ipc:///a", "--pubsub", "ipc:///b", "--check-delay", "3"]
    assert main("plugin", *ends, "--ssh", "me@there", "tellers.Teller")[0] == 1
    assert main("plugin", "tellers.Teller")[0] == 1
    here = ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556", 5.0, None)
    rest = {"exit_when_done": True}
    assert made == [("ipc:///a", "ipc:///b", 3.0, "me@there", rest), (*here, rest)]


@pytest.mark.parametrize(("server", "looked"), [("", 1), ("ssh_server = me@there", 0)])
def test_a_circusd_behind_ssh_is_not_looked_for_on_this_machine(
    main: Main, ini: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, server: str, looked: int
) -> None:
    looks: list[HostConfig] = []

    def look(config: HostConfig) -> contextlib.AbstractContextManager[None]:
        looks.append(config)
        return contextlib.nullcontext()

    host = types.SimpleNamespace(start=lambda: None, plugins={}, config=HostConfig())
    signals = types.SimpleNamespace(host_has_it=contextlib.nullcontext)
    monkeypatch.setattr(hosting, "_warning_of_doubles", look)
    monkeypatch.setattr(hosting, "signals_of_process", lambda _: contextlib.nullcontext(signals))
    monkeypatch.setattr(hosting.Arbiter, "from_config", lambda *_, **__: host)
    monkeypatch.setattr(hosting.sys, "setswitchinterval", lambda _: None)
    for name in ("mark_output", "configure"):
        monkeypatch.setattr(hosting._logs, name, lambda *_: None)
    path = ini(plugin("one"))
    path.write_text(path.read_text().replace("[circus]", f"[circus]\n{server}"))
    assert main("run", path)[0] == 0
    assert len(looks) == looked


def test_where_the_log_goes_is_told_when_that_has_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "circusplug")
    told = hosting._LogChanges()
    changes = ({}, {}, {"loglevel": "debug"}, {"logoutput": "x"}, {"logoutput": "x"})
    for fields in changes:
        told.tell(HostConfig(**fields))
    assert [record.getMessage() for record in caplog.records] == [
        "logging debug and above to - from now on",
        "logging info and above to x from now on",
    ]


# run: a circusd that is not there, or runs the same plugins


def test_a_circusd_that_comes_later_is_waited_for_with_one_warning(tmp_path: Path) -> None:
    sections = [plugin("a"), plugin("b"), plugin("c")]
    with circusd_on_unix_sockets() as circusd:
        circusd.stop()
        with hosted(tmp_path, circusd, *sections, program=HASTY) as command:
            line = command.wait_for("no circusd at ")
            assert circusd.endpoint in line
            assert circusd.pubsub_endpoint in line
            command.wait_for_all(*(f"plugin:{name}: init" for name in "abc"))
            circusd.start()
            circusd.wait_subscribed(3, timeout=PATIENCE)
            circusd.publish("web", "spawn", process_pid=1)
            command.wait_for("got web spawn", 3)
            command.interrupt()
            assert command.end() == 0
    assert command.output.count("no circusd at ") == 1


@pytest.mark.parametrize("later", [False, True])
def test_run_warns_when_circusd_runs_the_same_plugin(tmp_path: Path, later: bool) -> None:
    sections = [plugin("Twice"), plugin("once"), plugin("resting", active="no")]
    with circusd_on_unix_sockets(["web", "plugin:Twice", "plugin:resting"]) as circusd:
        if later:
            circusd.stop()
        with hosted(tmp_path, circusd, *sections, program=HASTY if later else COMMAND) as command:
            if later:
                command.wait_for("no circusd at ")
                circusd.start()
            line = command.wait_for("itself, so it now runs twice")
            assert f"circusd at {circusd.endpoint} runs plugin:Twice itself" in line
            command.wait_for("plugin:once: init")  # the warning may come before the host is there
            command.interrupt()
            assert command.end() == 0
    assert command.output.count("runs twice") == 1


def test_a_stop_does_not_wait_for_a_circusd_that_never_answers(tmp_path: Path) -> None:
    with FakeCircusd() as circusd:
        circusd.silence("list")
        with hosted(tmp_path, circusd, plugin("one")) as command:
            circusd.wait_command("list", timeout=PATIENCE)
            command.wait_for("plugin:one: init")
            command.interrupt()
            assert command.end() == 0


# run: ends of other kinds


def test_a_critical_plugin_that_fails_stops_the_host_with_status_1(tmp_path: Path) -> None:
    sections = [
        plugin("a"),
        plugin("b", "tellers.Unborn", host_critical="yes", host_max_restarts=0),
    ]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections) as command:
        assert command.end() == 1
    said = "circusplug: b is critical and has failed for good: RuntimeError: no good\n"
    assert command.lines[-1] == said
    assert command.output.count("plugin:a: init\n") == command.output.count("plugin:a: stop\n")


def test_ctrl_c_while_plugins_start_stops_those_that_run(tmp_path: Path) -> None:
    slow = plugin("b", "tellers.Slow", signal=int(signal.SIGINT), host_graceful_timeout=0)
    sections = [plugin("a"), slow, plugin("c")]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections, program=HASTY) as command:
        command.wait_for("plugin:b: begins")
        assert command.end() == 0
    assert "b is still busy" in command.output
    for name in "ac":  # which had their turn or not when b sent the signal
        assert command.output.count(f"plugin:{name}: init\n") == (
            command.output.count(f"plugin:{name}: stop\n")
        )
    assert "Traceback" not in command.output


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, plugin("a", "tellers.Lingers")) as it:
        it.wait_for("plugin:a: init")
        it.interrupt()
        it.wait_for("plugin:a: stopping")
        done = threading.Event()

        def insist() -> None:
            # Two signals close together count as one.
            while not done.wait(0.02):
                it.interrupt()

        thread = threading.Thread(target=insist)
        thread.start()
        try:
            it.wait_for("interrupted twice: ending at once")
        finally:
            done.set()
            thread.join()
        assert it.end() == 130


def test_two_ctrl_c_at_the_same_moment_count_as_one(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    moments, stops, ends = iter([10.0, 10.1, 10.3]), [], []
    clock = types.SimpleNamespace(monotonic=lambda: next(moments))
    monkeypatch.setattr("circusplug._signals.time", clock)
    monkeypatch.setattr(os, "_exit", ends.append)
    taken = signals.HostSignals(lambda: stops.append("stop"), pytest.fail)
    for _ in range(2):
        taken._handle(signal.SIGINT, None)
    assert (stops, ends) == (["stop", "stop"], [])
    taken._handle(signal.SIGINT, None)
    assert ends == [130]
    assert capfd.readouterr().err == "interrupted twice: ending at once\n"


def test_a_handle_stop_that_hangs_is_ended_and_the_others_are_stopped(tmp_path: Path) -> None:
    sections = ["[circusplug]\nstop_timeout = 0.5\n", plugin("a"), plugin("b", "tellers.Lingers")]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections) as command:
        command.wait_for_all("plugin:a: init", "plugin:b: init")
        command.signal(signal.SIGTERM)
        assert command.end() == 0
    assert re.search(r" b\[\d+\] \[ERROR\] handle_stop takes too long; it is at", command.output)
    assert "[a] plugin:a: stop\n" in command.lines


def test_a_reader_that_left_does_not_end_the_host(tmp_path: Path) -> None:
    read, write = os.pipe()
    with FakeCircusd() as circusd:
        ends = (circusd.endpoint, circusd.pubsub_endpoint)
        path = write_ini(tmp_path, *ends, plugin("one"), plugin("quiet", "quiet.Quiet"))
        (tmp_path / "quiet.py").write_text(
            "import sys\nfrom circusplug import CircusPlugin\n"
            "class Quiet(CircusPlugin):\n"
            "    def handle_recv(self, data):\n"
            "        self.logger.warning('got one')\n"
        )
        # What it logs is read from standard error; what it prints, nobody reads.
        log = tmp_path / "host.log"
        with log.open("w") as file:
            command = Running(tmp_path, "run", path, stdout=write, stderr=file)
        os.close(write)
        with command, open(read) as out:
            assert out.readline() == "[one] plugin:one: init\n"
            circusd.wait_subscribed(2, timeout=PATIENCE)
            out.close()
            circusd.publish("web", "spawn", process_pid=1)
            circusd.wait_command("list", timeout=PATIENCE)
            command.interrupt()
            command.wait()
    text = log.read_text()
    assert "quiet" in text
    assert "all plugins are stopped" in text
    assert "Exception ignored" not in text


# migrate


def test_migrate_shows_the_changes_and_asks_for_a_yes(tmp_path: Path, ini: Any) -> None:
    path = ini(plugin("one"))
    before = path.read_bytes()
    done = run_here(tmp_path, "migrate", "circus.ini")
    assert done.returncode == 1
    assert "+use = circusplug.Host" in done.stdout.splitlines()
    assert done.stdout.endswith("nothing was changed\n")
    assert done.stderr == "not a terminal: add --yes to do it\n"
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["circus.ini", "tellers.py"]


def test_migrate_masks_secrets_and_prints_warnings_apart(tmp_path: Path, ini: Any) -> None:
    path = ini(
        plugin("dog", "circus.plugins.watchdog.WatchDog", api_token="hunter2"), plugin("b", a="1")
    )
    done = run_here(tmp_path, "migrate", path)
    assert "+api_token = ****" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "[plugin:dog]: watchers_regex = .* takes in [plugin:circusplug]" in warning


def test_migrate_does_it_and_undo_puts_it_back(tmp_path: Path, ini: Any) -> None:
    path = ini(plugin("one", greeting="hello"))
    before = path.read_bytes()
    done = run_here(tmp_path, "migrate", "circus.ini", "--yes", "--to", "my plugins.ini")
    assert (done.returncode, done.stderr) == (0, "")
    assert "'circusplug migrate --undo circus.ini' undoes" in done.stdout
    checked = run_here(tmp_path, "check", "--json", "my plugins.ini")
    assert json.loads(checked.stdout)["plugins"]["one"]["config"]["greeting"] == "hello"
    undone = run_here(tmp_path, "migrate", "--undo", "circus.ini")
    assert (undone.returncode, undone.stderr) == (0, "")
    assert path.read_bytes() == before


def test_migrate_takes_a_yes_at_a_terminal(tmp_path: Path, ini: Any) -> None:
    path = ini(plugin("one"))
    before = path.read_bytes()
    ours, theirs = os.openpty()
    try:
        os.write(ours, b"y\n")
        done = run(tmp_path, "migrate", "circus.ini", stdin=theirs)
    finally:
        os.close(theirs)
        os.close(ours)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_bytes() != before


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"])
def test_migrate_takes_what_is_no_yes_at_a_terminal_for_a_no(
    main: Main, ini: Any, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    path = ini(plugin("one"))
    before = path.read_bytes()
    ours, theirs = os.openpty()
    try:
        os.write(ours, answer.encode())
        with open(theirs, closefd=False) as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            status, out, err = main("migrate", "circus.ini")
            monkeypatch.undo()
    finally:
        os.close(theirs)
        os.close(ours)
    assert (status, err) == (1, "")
    assert out.endswith("Do it? [y/N] nothing was changed\n")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.ini"], "absent.ini: no such file"),
        (["--undo", "circus.ini"], "circus.ini"),
        (["circus.ini", "--to", "no/such/dir.ini"], "no/such"),
        (["circus.ini", "--to", "tellers.py"], "tellers.py: exists already"),
        (["nul.ini"], "has no plugin section"),
    ],
)
def test_a_migration_that_cannot_be_done_is_one_line(
    main: Main, ini: Any, arguments: list[str], said: str
) -> None:
    ini(plugin("one"))
    Path("nul.ini").write_text("[circus]\ninclude = a\0b\n")
    status, out, err = main("migrate", *arguments)
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("circusplug: ")
    assert said in err


@pytest.mark.parametrize("arguments", [["--undo", "--to", "x.ini"]])
def test_options_of_migrate_that_do_not_go_together_are_refused(
    main: Main, ini: Any, arguments: list[str]
) -> None:
    status, _, err = main("migrate", ini(plugin("one")), *arguments)
    assert status == 2
    assert "leave out --to" in err


def test_migrate_does_not_ask_where_nobody_can_answer(tmp_path: Path, ini: Any) -> None:
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND]
    done = run(tmp_path, "migrate", ini(plugin("one")), program=shell)
    assert (done.returncode, done.stderr) == (1, "not a terminal: add --yes to do it\n")


def test_ctrl_c_at_a_question_ends_with_status_130(tmp_path: Path, ini: Any) -> None:
    ini(plugin("one"))
    ours, theirs = os.openpty()
    try:
        with Running(tmp_path, "migrate", "circus.ini", stdin=theirs) as command:
            command.wait_for("+use = circusplug.Host")
            command.interrupt()
            # Python notes a signal that comes right before it begins to read, and acts on it when
            # the read is over.
            os.write(ours, b"\n")
            assert command.end() == 130
    finally:
        os.close(theirs)
        os.close(ours)
    assert "Traceback" not in command.output
