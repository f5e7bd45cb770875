# What `circusplug check` prints, as text and as JSON: the plugins of a file and what they would
# receive, and every problem, those of a file that circusd hosts included.

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import environment, plugin, run, run_here
from fixture_types import Main


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


def test_what_a_module_writes_to_the_descriptor_does_not_spoil_the_json_either(
    tmp_path: Path, bare: Callable[..., Path]
) -> None:
    (tmp_path / "writes.py").write_text("import os\nos.write(1, b'loaded')\n")
    done = run(tmp_path, "check", "--json", bare(plugin("one", "writes.Nobody")))
    assert json.loads(done.stdout)["problems"]
    assert "loaded" in done.stderr


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
