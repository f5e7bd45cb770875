# Moving plugin sections to a file of their own: what goes there, what stays, and what Circus
# itself, by its own parser, reads afterwards.

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from circus.config import get_config
from circus.plugins import _str2cfg, get_plugin_cmd
from fixture_types import Write
from migrations import BACKUP, MIXED, files, migrate, problems

from circusplug._config.ini_file import load
from circusplug._migrate.plan import apply, plan

# Circus warns of a fruitless include by a logger method that is deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")


def test_sections_move_with_the_comments_that_touch_them(write: Write, tmp_path: Path) -> None:
    path = write()
    migrate(path)
    assert (
        path.read_text()
        == f"""\
# main
[circus]
endpoint = tcp://127.0.0.1:5555
check_delay = 2

# ---- plugins ----

[plugin:circusplug]
use = circusplug.Host
config = {tmp_path}/plugins.ini

# about watchers

[watcher:x]
cmd = sleep 1

# environment
[env]
logs = /var/log
"""
    )
    head, _, body = Path("plugins.ini").read_text().partition("\n\n")
    assert all(line.startswith("#") for line in head.splitlines())
    assert (
        body
        == f"""\
# Copied from circus.ini, where circusd uses it too.
[circus]
check_delay = 2

# circus.ini names no log, and circusd closes what its plugins print to.
logoutput = {tmp_path}/circusplug.log

[env]
logs = /var/log

# the logger
; and more
[plugin:logger]
use = a.Logger
filename = "$(circus.env.LOGS)/a b"

# this one too
level = x
  y
# still the logger's

[circusplug]
stop_timeout = 3

[plugin:scorer]
use = a.Scorer

# last
[plugin:aaa]
use = a.A
"""
    )


@pytest.mark.parametrize("output", ["/var/log/circus.log", "syslog://", "-", "stdout", '""'])
def test_a_log_of_its_own_is_named_unless_circusd_has_one_to_share(
    write: Write, output: str, tmp_path: Path
) -> None:
    migrate(write(f"[circus]\nlogoutput = {output}\n[plugin:p]\nuse = a.B\n"))
    shared = output.startswith(("/", "syslog"))
    log = output if shared else f"{tmp_path}/circusplug.log"
    assert load("plugins.ini").logoutput == log


@pytest.mark.parametrize("output", ["", "logoutput = /var/log/circus.log\n"])
def test_the_level_goes_with_the_log(write: Write, output: str) -> None:
    migrate(write(f"[circus]\nloglevel = debug\n{output}[plugin:p]\nuse = a.B\n"))
    assert load("plugins.ini").loglevel == "debug"


def test_a_comment_between_two_sections_belongs_to_the_second(write: Write) -> None:
    migrate(write("[plugin:p]\nuse = a.B\n# q\n[plugin:q]\nuse = a.B\n# w\n[watcher:w]\ncmd = x\n"))
    assert Path("circus.ini").read_text().endswith("plugins.ini\n# w\n[watcher:w]\ncmd = x\n")
    assert (
        Path("plugins.ini")
        .read_text()
        .endswith("\n\n[plugin:p]\nuse = a.B\n\n# q\n[plugin:q]\nuse = a.B\n")
    )


def test_no_empty_lines_are_left_at_the_end(write: Write) -> None:
    migrate(write("[plugin:p]\nuse = a.B\n\n[x]\ny = z\n\n[plugin:q]\nuse = a.B\n\n"))
    assert Path("circus.ini").read_text().endswith("plugins.ini\n\n[x]\ny = z\n")


def test_the_new_file_gives_the_same_plugins(write: Write) -> None:
    path = write()
    before = load(path)
    migrate(path)
    after = load("plugins.ini")
    assert after.plugins == before.plugins
    assert (after.stop_timeout, after.check_delay) == (3.0, 2.0)


def test_circusd_finds_one_plugin_and_everything_else_as_before(
    write: Write, tmp_path: Path
) -> None:
    path = write()
    before = get_config(str(path))
    migrate(path)
    after = get_config(str(path))
    (host,) = after.pop("plugins")
    before.pop("plugins")
    assert after == before
    assert host["name"] == "plugin:circusplug"
    assert host["use"] == "circusplug.Host"
    assert host["config"] == f"{tmp_path}/plugins.ini"


def test_planning_writes_nothing(write: Write) -> None:
    path = write()
    migration = plan(path)
    assert files() == {"circus.ini"}
    assert path.read_bytes() == MIXED.encode()
    assert list(migration.files) == [BACKUP, "plugins.ini", "circus.ini"]
    assert migration.files[BACKUP] == migration.original == MIXED.encode()


def test_the_plan_shows_what_changes_as_a_diff(write: Write) -> None:
    diff = plan(write("[plugin:p]\nuse = a.B")).diff.splitlines()
    assert diff[:7] == [
        "--- circus.ini",
        "+++ circus.ini",
        "@@ -1,2 +1,3 @@",
        "-[plugin:p]",
        "-use = a.B",
        r"\ No newline at end of file",
        "+[plugin:circusplug]",
    ]
    assert diff[9:11] == ["--- /dev/null", "+++ plugins.ini"]
    assert diff[-1] == "+use = a.B"


def test_the_target_is_beside_the_file_wherever_one_stands(write: Write, tmp_path: Path) -> None:
    path = write(name="etc/circus.ini")
    apply(plan(path))
    assert files() == {"etc/circus.ini", f"etc/{BACKUP}", "etc/plugins.ini"}
    assert f"config = {tmp_path}/etc/plugins.ini\n" in path.read_text()


def test_another_target_may_be_named(write: Write, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    apply(plan(write(), tmp_path / "d" / "p.ini"))
    assert files() == {"circus.ini", BACKUP, "d/p.ini"}


@pytest.mark.parametrize(
    "folder", ["with space", "quo\"te's", "back\\slash", "\\\\twice", "ünder", "a#b$c"]
)
def test_a_strange_path_reaches_the_host_through_circus(
    write: Write, tmp_path: Path, folder: str
) -> None:
    path = write(name=f"{folder}/circus.ini")
    apply(plan(path))
    (host,) = get_config(str(path))["plugins"]
    command = get_plugin_cmd({**host, "use": "circus.plugins.CircusPlugin"}, "e", "p", 5, None)
    arguments = shlex.split(command)
    config = _str2cfg(arguments[arguments.index("--config") + 1])
    assert config["config"] == f"{tmp_path}/{folder}/plugins.ini"
    assert load(path).plugins[0].config["config"] == config["config"]


@pytest.mark.parametrize("folder", ["a:::b", "a ;b", "$(circus.env.HOME)", "((circus.wid))"])
def test_a_path_that_circus_cannot_hand_on_is_refused(write: Write, folder: str) -> None:
    path = write(name=f"{folder}/circus.ini")
    assert problems(lambda: plan(path)) == (
        f"{folder}/plugins.ini: Circus cannot hand on this path; choose a simpler one",
    )


def test_windows_line_endings_stay_and_new_lines_have_them(write: Write) -> None:
    path = write(MIXED.replace("\n", "\r\n").rstrip())
    migrate(path)
    for file in (path, Path("plugins.ini")):
        content = file.read_bytes()
        assert content.count(b"\n") == content.count(b"\r\n") > 10


def test_bytes_of_another_encoding_stay_where_they_are(write: Write) -> None:
    path = write(b"# caf\xe9\n[watcher:x]\ncmd = \xff\n[plugin:p]\nuse = a.B\n")
    migrate(path)
    assert path.read_bytes().startswith(b"# caf\xe9\n[watcher:x]\ncmd = \xff\n[plugin:circusplug]")


def test_a_plugin_section_of_another_encoding_is_refused(write: Write) -> None:
    path = write(b"# caf\xe9\n[plugin:p]\nuse = a.B\n")
    assert problems(lambda: plan(path)) == (
        "circus.ini: a plugin section is not UTF-8, so plugins.ini could not be read; "
        "save it as UTF-8",
    )


def test_the_environment_is_copied_only_if_a_section_refers_to_it(write: Write) -> None:
    path = write("[env]\nSECRET = x\n[plugin:p]\nuse = a.B\n")
    assert b"SECRET" not in plan(path).files["plugins.ini"]


def test_an_environment_from_an_include_is_copied_too(write: Write) -> None:
    write("[watcher:w]\ncmd = x\n[env]\nA = included\n  twice\n", "extra.ini")
    path = write(
        "[circus]\ninclude = extra.ini\n[plugin:p]\nuse = a.B\na = $(circus.env.a)"
        "$(circus.env.b)\n[env]\nB = main"
    )
    before = load(path)
    migrate(path)
    assert load("plugins.ini").plugins == before.plugins
    assert before.plugins[0].config["a"] == "included\ntwicemain"


def test_options_of_the_default_section_are_copied(write: Write) -> None:
    path = write("[DEFAULT]\nlevel = 3\n[plugin:p]\nuse = a.B\n")
    before = load(path)
    migrate(path)
    assert load("plugins.ini").plugins == before.plugins


def test_a_section_in_two_parts_moves_in_two_parts(write: Write) -> None:
    path = write("[plugin:p]\nuse = a.B\n[x]\ny = z\n[plugin:p]\nuse = no\nb = 1\n")
    before = load(path)
    migrate(path)
    assert load("plugins.ini").plugins == before.plugins
    assert path.read_text().endswith("plugins.ini\n[x]\ny = z\n")


def test_the_environment_of_plugins_moves_with_them(write: Write) -> None:
    path = write("[plugin:p]\nuse = a.B\nisolate = yes\n[env:plugin:p]\nA = 1\n[env:web]\nB = 2\n")
    migrate(path)
    assert dict(load("plugins.ini").plugins[0].host.env) == {"A": "1"}
    assert "[env:web]\nB = 2" in path.read_text()
    assert "env:plugin" not in path.read_text()
