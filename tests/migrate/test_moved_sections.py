# Moving plugin sections to a file of their own, and back. What Circus itself reads afterwards
# is checked with its own parser.

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from circus.config import get_config
from circus.plugins import _str2cfg, get_plugin_cmd
from hypothesis import given, settings
from hypothesis import strategies as st

from circusplug._config.ini_file import load
from circusplug._errors import ConfigError
from circusplug._migrate import ini_edit
from circusplug._migrate import plan as plan_module
from circusplug._migrate.plan import Migration, apply, plan
from circusplug._migrate.undo import undo
from circusplug._plugin.load import load_plugin_class

EXAMPLES = int(os.environ.get("CIRCUSPLUG_EXAMPLES", "60"))
# Circus warns of a fruitless include by a logger method that is deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")

BACKUP = "circus.ini.before-circusplug"

MIXED = """\
# main
[circus]
endpoint = tcp://127.0.0.1:5555
check_delay = 2

# ---- plugins ----

# the logger
; and more
[plugin:logger]
use = a.Logger
filename = "$(circus.env.LOGS)/a b"

# this one too
level = x
  y
# still the logger's

# about watchers

[watcher:x]
cmd = sleep 1

[circusplug]
stop_timeout = 3

[plugin:scorer]
use = a.Scorer

# environment
[env]
logs = /var/log
# last
[plugin:aaa]
use = a.A
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write_file(content: str | bytes = MIXED, name: str = "circus.ini") -> Path:
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def problems(act: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        act()
    return caught.value.problems


def migrate(path: Path) -> Migration:
    migration = plan(path)
    apply(migration)
    return migration


# -- the way there ----------------------------------------------------------------------------


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


def test_the_new_files_have_the_mode_of_the_old(write: Write) -> None:
    path = write()
    path.chmod(0o640)
    migrate(path)
    for name in ("circus.ini", "plugins.ini", BACKUP):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o640


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
def test_the_new_files_belong_to_the_owner_of_the_old(write: Write) -> None:
    path = write()
    os.chown(path, 65534, 1)
    migrate(path)
    for name in ("circus.ini", "plugins.ini", BACKUP):
        status = Path(name).stat()
        assert (status.st_uid, status.st_gid) == (65534, 1)


def test_a_link_stays_a_link(write: Write) -> None:
    write(name="real.ini")
    path = Path("circus.ini")
    path.symlink_to("real.ini")
    migrate(path)
    assert path.is_symlink()
    assert "circusplug.Host" in Path("real.ini").read_text()
    undo(path)
    assert path.is_symlink()
    assert Path("real.ini").read_bytes() == MIXED.encode()


# -- refusals ---------------------------------------------------------------------------------


def test_a_migrated_file_is_not_migrated_again(write: Write) -> None:
    path = write()
    migrate(path)
    assert problems(lambda: plan(path)) == (
        f"{BACKUP}: exists already; undo that migration first, or move the file away",
        "plugins.ini: exists already; choose another file for the plugins",
        "circus.ini:8: [plugin:circusplug]: runs circusplug.Host: this file is migrated already",
    )


def test_a_file_without_plugins_is_not_migrated(write: Write) -> None:
    path = write("[watcher:x]\ncmd = y\n[plugin:empty]\n")
    assert problems(lambda: plan(path)) == (
        "circus.ini: has no plugin section; there is nothing to migrate",
    )


def test_a_wrong_file_is_not_migrated(write: Write) -> None:
    path = write("[plugin:p]\nhost.restrat = x\n")
    assert [problem[:12] for problem in problems(lambda: plan(path))] == [
        "circus.ini:1",
        "circus.ini:2",
    ]


def test_plugins_in_included_files_are_named_and_refused(write: Write) -> None:
    write("[plugin:q]\nuse = a.B\n[plugin:r]\nuse = a.B\n", "d/q.ini")
    path = write("[circus]\ninclude_dir = d\n[plugin:p]\nuse = a.B\n")
    assert problems(lambda: plan(path)) == (
        "d/q.ini:1: [plugin:q]: an included file, and migrate edits only circus.ini; "
        "move the section there first",
        "d/q.ini:3: [plugin:r]: an included file, and migrate edits only circus.ini; "
        "move the section there first",
    )


@pytest.mark.parametrize("include", ["include = *.ini", "include_dir = .", "include = p*.i?i"])
def test_a_target_that_circusd_would_include_is_refused(write: Write, include: str) -> None:
    path = write(f"[circus]\n{include}\n[plugin:p]\nuse = a.B\n")
    (problem,) = problems(lambda: plan(path))
    assert problem.startswith("plugins.ini: circusd would read it, as circus.ini includes ")
    apply(plan(path, "plugins.conf"))
    assert [plugin["name"] for plugin in get_config(str(path))["plugins"]] == ["plugin:circusplug"]


def test_a_target_that_circusd_would_include_by_another_name_is_refused(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    path = write("[circus]\ninclude_dir = d\n[plugin:p]\nuse = a.B\n")
    (problem,) = problems(lambda: plan(path, "link/p.ini"))
    assert problem.startswith("link/p.ini: circusd would read it, as circus.ini includes ")


@pytest.mark.parametrize("name", ["plugins.ini", BACKUP])
def test_a_link_that_leads_nowhere_is_not_written_through(write: Write, name: str) -> None:
    path = write()
    os.symlink("elsewhere", name)
    (problem,) = problems(lambda: plan(path))
    assert problem.startswith(f"{name}: exists already; ")
    assert files() == {"circus.ini"}
    os.unlink(name)
    migration = plan(path)
    os.symlink("elsewhere", name)  # meanwhile
    assert problems(lambda: apply(migration)) == (
        f"{name}: exists already; plan the migration again",
    )
    assert os.readlink(name) == "elsewhere"
    assert files() == {"circus.ini"}


def test_a_file_that_is_a_link_to_nowhere_is_no_file(write: Write) -> None:
    os.symlink("elsewhere", "circus.ini")
    assert problems(lambda: plan("circus.ini")) == ("circus.ini: no such file",)
    assert not os.path.exists("elsewhere")


def test_an_include_of_something_else_is_no_obstacle(write: Write) -> None:
    path = write("[circus]\ninclude = p*/*.ini *.conf\n[plugin:p]\nuse = a.B\n")
    assert plan(path).target == "plugins.ini"


def test_a_target_in_no_directory_is_refused(write: Write) -> None:
    path = write()
    assert problems(lambda: plan(path, "none/p.ini")) == ("none/p.ini: there is no directory none",)


def test_the_file_itself_is_no_target(write: Write) -> None:
    path = write()
    assert problems(lambda: plan(path, "circus.ini")) == (
        "circus.ini: exists already; choose another file for the plugins",
    )


def test_a_plan_for_an_older_file_is_not_carried_out(write: Write) -> None:
    path = write()
    migration = plan(path)
    write(MIXED + "\n")
    assert problems(lambda: apply(migration)) == (
        "circus.ini: was edited meanwhile; plan its migration again",
    )
    assert files() == {"circus.ini"}


def test_what_cannot_be_carried_out_leaves_nothing_behind(write: Write) -> None:
    path = write()
    migration = plan(path)
    write("mine", "plugins.ini")
    assert problems(lambda: apply(migration)) == (
        "plugins.ini: exists already; plan the migration again",
    )
    assert files() == {"circus.ini", "plugins.ini"}
    assert Path("plugins.ini").read_text() == "mine"
    assert path.read_bytes() == MIXED.encode()


def test_a_directory_that_is_gone_is_said_in_one_line(write: Write, tmp_path: Path) -> None:
    path = write()
    (tmp_path / "d").mkdir()
    migration = plan(path, "d/plugins.ini")
    (tmp_path / "d").rmdir()
    assert problems(lambda: apply(migration)) == (
        "circus.ini: it, or a file beside it, cannot be written: No such file or directory",
    )
    assert files() == {"circus.ini"}


# -- what to look at --------------------------------------------------------------------------


WATCHDOG = "[plugin:w]\nuse = circus.plugins.watchdog.WatchDog\n"


@pytest.mark.parametrize("regex", ["", ".*", "plugin:", "web|.*plug"])
def test_a_watchdog_that_would_kill_the_host_is_warned_of(write: Write, regex: str) -> None:
    path = write(WATCHDOG + (f"watchers_regex = {regex}\n" if regex else "x = 1\n"))
    (warning,) = plan(path).warnings
    assert warning == (
        f"circus.ini: [plugin:w]: watchers_regex = {regex or '.*'} takes in [plugin:circusplug], "
        "which sends no heartbeats, so this plugin would kill its own host again and again; write "
        "watchers_regex = (?!plugin:), or the names that you mean"
    )


@pytest.mark.parametrize(
    "text",
    [
        f"{WATCHDOG}watchers_regex = (?!plugin:)\n",
        f"{WATCHDOG}watchers_regex = web\n",
        f"{WATCHDOG}watchers_regex = (\n",
        f"{WATCHDOG}active = no\n",
        "[plugin:w]\nuse = a.Other\n",
    ],
)
def test_another_plugin_is_not_warned_of(write: Write, text: str) -> None:
    assert plan(write(text)).warnings == ()


def test_the_regex_that_a_warning_names_spares_the_host_and_takes_the_watchers(
    write: Write,
) -> None:
    migrate(write(f"{WATCHDOG}watchers_regex = (?!plugin:)\n"))
    (spec,) = load("plugins.ini").plugins
    dog = load_plugin_class(spec.use)(
        "tcp://127.0.0.1:1", "tcp://127.0.0.1:2", 1.0, None, **spec.config
    )
    dog.loop.close()
    assert not dog._match_watcher_name("plugin:circusplug")
    assert dog._match_watcher_name("web")


def test_what_a_file_says_twice_is_warned_of(write: Write) -> None:
    (warning,) = plan(write("[plugin:p]\nuse = a.B\nx = 1\nx = 2\n")).warnings
    assert warning.startswith("circus.ini:4: [plugin:p]: 'x' is set at circus.ini:3 already")


def test_secrets_are_masked_in_what_is_shown_and_kept_in_what_is_written(write: Write) -> None:
    text = (
        "[env]\nAPI_TOKEN = hunter2\n[plugin:p]\nuse = a.B\nsmtp_password: hunter2\n"
        "# old_password = hunter2\nsecret_list = hunter2\n  hunter2\nuser = $(circus.env.me)\n"
    )
    migration = plan(write(text))
    assert "hunter2" not in migration.diff
    assert migration.diff.count("****") == 10
    assert "\n-smtp_password: ****\n" in migration.diff
    assert "\n+user = $(circus.env.me)\n" in migration.diff
    apply(migration)
    assert Path("plugins.ini").read_text().count("hunter2") == 5
    undo("circus.ini")
    assert Path("circus.ini").read_text() == text


def test_the_environment_of_plugins_moves_with_them(write: Write) -> None:
    path = write("[plugin:p]\nuse = a.B\nisolate = yes\n[env:plugin:p]\nA = 1\n[env:web]\nB = 2\n")
    migrate(path)
    assert dict(load("plugins.ini").plugins[0].host.env) == {"A": "1"}
    assert "[env:web]\nB = 2" in path.read_text()
    assert "env:plugin" not in path.read_text()


# -- the way back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        MIXED.encode(),
        MIXED.replace("\n", "\r\n").encode(),
        MIXED.replace("\n", "\r").encode(),
        MIXED.rstrip().encode(),
        b"# caf\xe9\r\n\r\n\n[plugin:p]\ruse = a.B\n\n\n# x\xff",
    ],
)
def test_undoing_gives_back_every_byte(write: Write, content: bytes) -> None:
    path = write(content)
    path.chmod(0o604)
    migrate(path)
    assert path.read_bytes() != content
    undone = undo(path)
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert files() == {"circus.ini"}
    assert [os.path.basename(file) for file in undone] == ["plugins.ini", BACKUP]


def test_after_undoing_it_can_be_migrated_again(write: Write) -> None:
    path = write()
    first = migrate(path)
    undo(path)
    assert plan(path) == first


def test_without_a_backup_there_is_nothing_to_undo(write: Write) -> None:
    path = write()
    assert problems(lambda: undo(path)) == (f"circus.ini: nothing to undo: there is no {BACKUP}",)


def test_edited_files_are_named_and_nothing_is_undone(write: Write, tmp_path: Path) -> None:
    path = write()
    migrate(path)
    before = files()
    for file in (path, Path("plugins.ini")):
        file.write_text(file.read_text() + "# mine\n")
    assert problems(lambda: undo(path)) == (
        *(
            f"{file}: was edited since the migration, so it is not undone; put it back by hand, "
            f"the original is {BACKUP}"
            for file in ("circus.ini", f"{tmp_path}/plugins.ini")
        ),
    )
    assert files() == before


@pytest.mark.parametrize("step", range(6))
def test_a_migration_that_is_interrupted_can_be_done_again_or_undone(
    step: int, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    content = path.read_bytes()
    real, calls = ini_edit.write, iter(range(10))

    def interrupted(file: str, content: bytes, like: str) -> None:
        """Ctrl-C just before, or just after, the file is written."""
        number = next(calls)
        if number == step // 2 and step % 2 == 0:
            raise KeyboardInterrupt
        real(file, content, like)
        if number == step // 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ini_edit, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        apply(plan(path))
    monkeypatch.setattr(ini_edit, "write", real)
    if Path(BACKUP).exists():
        undo(path)
    assert files() == {"circus.ini"}
    assert path.read_bytes() == content
    apply(plan(path))
    undo(path)
    assert files() == {"circus.ini"}


def interrupted_at(step: int, act: Callable[[], object]) -> bool:
    """Do something with a Ctrl-C just before or after a change of files; whether it came to it."""
    changes = 0

    def interrupting(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> None:
            nonlocal changes
            changes += 2
            if changes - 1 == step:
                raise KeyboardInterrupt
            real(*args, **kwargs)
            if changes == step:
                raise KeyboardInterrupt

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in ("chmod", "fsync", "replace", "unlink"):
            patch.setattr(os, name, interrupting(getattr(os, name)))
        try:
            act()
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize("undone", [False, True])
def test_ctrl_c_at_any_change_leaves_what_can_be_undone_or_done_again(
    write: Write, undone: bool
) -> None:
    step = 0
    while True:
        step += 1
        path = write()
        migration = plan(path)
        if undone:
            apply(migration)
        act = partial(undo, path) if undone else partial(apply, migration)
        if not interrupted_at(step, act):
            break
        if Path(BACKUP).exists():
            undo(path)
        assert files() == {"circus.ini"}, step
        assert path.read_bytes() == MIXED.encode(), step
        apply(plan(path))
        undo(path)
        assert files() == {"circus.ini"}, step
    assert step > (10 if undone else 18)


def test_a_migration_that_got_no_further_than_the_backup_is_undone(write: Write) -> None:
    path = write()
    write(name=BACKUP)
    undo(path)
    assert files() == {"circus.ini"}


@pytest.mark.parametrize("edited", [False, True])
def test_a_file_that_is_gone_comes_back(write: Write, edited: bool) -> None:
    path = write()
    migrate(path)
    path.unlink()
    if edited:
        with open("plugins.ini", "a") as plugins:
            plugins.write("# mine\n")
    undo(path)
    assert path.read_bytes() == MIXED.encode()
    assert files() == {"circus.ini", *(["plugins.ini"] if edited else [])}


def test_a_path_that_is_not_utf_8_is_refused(write: Write) -> None:
    path = write()
    os.mkdir(b"caf\xe9")
    with pytest.raises(ConfigError, match="this path is not UTF-8"):
        plan(path, os.fsdecode(b"caf\xe9/plugins.ini"))


def test_a_file_whose_stamp_is_gone_is_not_undone(write: Write, tmp_path: Path) -> None:
    path = write()
    migrate(path)
    plugins = Path("plugins.ini")
    plugins.write_text("".join(plugins.read_text().splitlines(keepends=True)[3:]))
    assert [problem.partition(": ")[0] for problem in problems(lambda: undo(path))] == [
        "circus.ini",
        f"{tmp_path}/plugins.ini",
    ]
    assert files() == {"circus.ini", BACKUP, "plugins.ini"}


def test_without_the_file_of_the_plugins_nothing_is_undone(write: Write) -> None:
    path = write()
    migrate(path)
    os.unlink("plugins.ini")
    (problem,) = problems(lambda: undo(path))
    assert problem == (
        f"circus.ini: not undone, as {os.path.abspath('plugins.ini')}, which has its plugins, is "
        f"not there; put that back, or copy the original, {BACKUP}, over circus.ini"
    )
    assert files() == {"circus.ini", BACKUP}


def test_a_file_that_cannot_be_put_back_is_told_and_all_stays(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    migrate(path)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    assert problems(lambda: undo(path)) == (
        "circus.ini: it, or a file beside it, cannot be written: Read-only file system",
    )
    assert files() == {"circus.ini", BACKUP, "plugins.ini"}


# -- how a file is written --------------------------------------------------------------------


def test_a_file_is_whole_on_the_disk_before_it_is_put_in_place(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    seen: list[object] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(os.fstat(fd).st_size))
    monkeypatch.setattr(os, "replace", lambda *what: (seen.append("put"), replace(*what)))
    ini_edit.write(str(path), b"12345", like=str(path))
    assert seen == [5, "put"]
    assert path.read_bytes() == b"12345"


def test_who_may_not_give_a_file_away_keeps_it(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    path = write()
    path.chmod(0o640)
    migrate(path)
    assert stat.S_IMODE(Path("plugins.ini").stat().st_mode) == 0o640


# -- a plan that is checked -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("_target_text", "[plugin:p]\nuse = a.B\n", "plugins.ini would not give the same plugins"),
        ("_target_text", MIXED.replace("= 2", "= 3"), "would not give the same plugins"),
        ("_target_text", MIXED.replace("= 3", "= 4"), "would not give the same plugins"),
    ],
)
def test_a_plan_that_would_change_the_plugins_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str, text: str, told: str
) -> None:
    path = write()
    monkeypatch.setattr(plan_module, name, lambda *_: text)
    (problem,) = problems(lambda: plan(path))
    assert told in problem
    assert problem.endswith("nothing was done")


def test_a_plan_that_would_change_other_sections_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    cut = ini_edit.cut

    def torn(*arguments: Any) -> tuple[list[str], str]:
        moved, rest = cut(*arguments)
        return moved, rest.replace("sleep 1", "sleep 2")

    monkeypatch.setattr(ini_edit, "cut", torn)
    assert problems(lambda: plan(path)) == (
        "circus.ini: its other sections would not stay; nothing was done",
    )


# -- any file ---------------------------------------------------------------------------------

line = st.sampled_from(
    [
        *("", "", "  ", "# comment", "; x", "rem", "a = 1", "b: $(circus.env.X)", "  more"),
        *("[plugin:q]", "[plugin:p]", "[env]", "X = y", "[watcher:w]", "cmd = z", "[circusplug]"),
        *("host.max_errors = 3", "[DEFAULT]", "[circus]", "check_delay = 7", "[other]"),
    ]
)


@settings(max_examples=EXAMPLES)
@given(
    lines=st.lists(line, max_size=25), ending=st.sampled_from(["\n", "\r\n"]), last=st.booleans()
)
def test_whatever_loads_can_be_migrated_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ending: str, last: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any" / "circus.ini"
    path.parent.mkdir(exist_ok=True)
    start = [f"[plugin:{name}]{ending}use = a.B" for name in "pq"]
    content = ending.join([*start, *lines, ""] if last else [*start, *lines]).encode()
    path.write_bytes(content)
    try:
        before = load(path)
    except ConfigError:
        with pytest.raises(ConfigError):
            plan(path)
        return
    others = get_config(str(path))
    apply(plan(path))
    assert load(path.parent / "plugins.ini").plugins == before.plugins
    after = get_config(str(path))
    assert {**after, "plugins": []} == {**others, "plugins": []}
    undo(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["circus.ini"]
