# Moving the plugin sections of a circus.ini to a file of their own, where one plugin of
# circusd, the host, reads them. Planning only reads; the plan is a list of files to write.
# A plan is checked before it is returned: what was written must give the same plugins, and
# leave circusd everything else.
#
# What moves: [plugin:...] and [circusplug] of the main file, each with the comments that
# touch it; comments an empty line away stay. What the moved sections use is copied: [env] if
# they refer to variables, [DEFAULT], and the check delay. Included files are not edited, as
# others may include them too: if plugins live there, the plan is refused.

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._config.ini_file import HOST_USE, build, plugin_sections
from .._config.ini_for_circusd import is_ours, sections_of_circusd
from .._config.ini_includes import CIRCUS_SECTION, ENV_SECTION, Ini, read_ini
from .._config.ini_syntax import DEFAULT_SECTION, Kind, Line, has_variable
from .._config.specs import HostConfig
from .._errors import ConfigError
from . import ini_edit
from .undo import (
    BACKUP_SUFFIX,
    DEFAULT_TARGET,
    HOST_SECTION,
    stamp,
)

#: The host's log, beside the file with the plugins, if circusd has none that it could share.
LOG_FILE = "circusplug.log"
_NO_LOG = (None, "", "-", "stdout")


@dataclass(frozen=True)
class Migration:
    """What a migration is going to write.

    Attributes:
        path: The circus.ini, as the user gave it.
        target: The file that the plugin sections move to.
        backup: Where the circus.ini is kept as it was.
        files: File to content, in the order of writing.
        original: The circus.ini as it is.
        diff: What changes, as a unified diff in which secrets are masked.
        warnings: What to look at, a line each.
    """

    path: str
    target: str
    backup: str
    files: Mapping[str, bytes]
    original: bytes
    diff: str
    warnings: tuple[str, ...]


def plan(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str] = DEFAULT_TARGET,
    environ: Mapping[str, str] | None = None,
) -> Migration:
    """Work out how to move the plugin sections of a circus.ini to a file of their own.

    Args:
        path: The circus.ini.
        target: The new file; a relative name is taken from the directory of `path`.
        environ: What variables are taken from; by default the process's own.

    Raises:
        ConfigError: The files are wrong, or cannot be migrated; holds every reason.
    """
    path = os.fspath(path)
    target = os.path.join(os.path.dirname(path), os.fspath(target))
    backup = path + BACKUP_SUFFIX
    before = read_ini(path, environ, ini_edit.read_any)
    host = build(before)
    refusals = [*_refusals_of_files(before, target, backup), *_refusals_of_sections(before)]
    if refusals:
        raise ConfigError(*refusals)

    main = before.files[0][1]
    ending = ini_edit.line_ending(main)
    moved, new_main = ini_edit.cut(main, is_ours, _stub(target, ending))
    new_target = _target_text(before, target, moved, new_main, ending)
    _verify(before, host, target, new_main, new_target)

    original = ini_edit.encode("".join(line.text for line in main))
    files = {
        backup: original,
        target: ini_edit.encode(new_target),
        path: ini_edit.encode(new_main),
    }
    diff = ini_edit.diff(path, original, files[path]) + ini_edit.diff(target, None, files[target])
    warnings = (*before.sections.warnings, *_warnings_of_watchdogs(host))
    return Migration(path, target, backup, MappingProxyType(files), original, diff, warnings)


def apply(migration: Migration) -> None:
    """Write the files of a plan, each at once or not at all; if one fails, none is left.

    Raises:
        ConfigError: A file is not as it was when planned, or cannot be written.
    """
    begun: list[str] = []
    try:
        if ini_edit.read_bytes(migration.path) != migration.original:
            raise ConfigError(f"{migration.path}: was edited meanwhile; plan its migration again")
        for file, content in migration.files.items():
            if file != migration.path and os.path.lexists(file):
                raise ConfigError(f"{file}: exists already; plan the migration again")
            begun.append(file)
            ini_edit.write(file, content, like=migration.path)
    except BaseException as error:  # a Ctrl-C, too
        # The circus.ini itself comes last; once that is written, all is done.
        if ini_edit.read_bytes(migration.path) == migration.original:
            for file in begun:
                if file != migration.path and os.path.lexists(file):
                    os.unlink(file)
        if isinstance(error, OSError):
            raise ConfigError(ini_edit.failure(error, migration.path)) from None
        raise


# -- why a file cannot be migrated ------------------------------------------------------------


def _refusals_of_files(ini: Ini, target: str, backup: str) -> Iterator[str]:
    if os.path.lexists(backup):
        yield f"{backup}: exists already; undo that migration first, or move the file away"
    if os.path.lexists(target):
        yield f"{target}: exists already; choose another file for the plugins"
    elif not os.path.isdir(os.path.dirname(target) or "."):
        yield f"{target}: there is no directory {os.path.dirname(target)}"
    for pattern in ini.patterns:
        if _matches(pattern, target):
            yield (
                f"{target}: circusd would read it, as {ini.path} includes {pattern}; "
                "choose a file that this does not include"
            )


def _refusals_of_sections(ini: Ini) -> Iterator[str]:
    sections = plugin_sections(ini)
    if not sections:
        yield f"{ini.path}: has no plugin section; there is nothing to migrate"
    for section in sections:
        if ini.sections.options(section).get("use") == HOST_USE:
            yield f"{ini.place(section)}: runs {HOST_USE}: this file is migrated already"
    for lines in _included(ini).values():
        for line in lines:
            if line.kind is Kind.SECTION and is_ours(line.section):
                yield (
                    f"{line.place}: [{line.section}]: an included file, and migrate edits only "
                    f"{ini.path}; move the section there first"
                )


def _warnings_of_watchdogs(host: HostConfig) -> Iterator[str]:
    """Circus's WatchDog kills what sends no heartbeat, hence the host, which is a watcher then."""
    for spec in host.plugins:
        regex = str(spec.config.get("watchers_regex", ".*"))
        if spec.active and spec.use_name.endswith(".WatchDog") and _takes_host(regex):
            yield (
                f"{spec.place}: watchers_regex = {regex} takes in [{HOST_SECTION}], which sends no "
                "heartbeats, so this plugin would kill its own host again and again; write "
                "watchers_regex = (?!plugin:), or the names that you mean"
            )


def _takes_host(regex: str) -> bool:
    try:
        return re.match(regex, HOST_SECTION) is not None
    except re.error:  # it fails when it starts
        return False


def _included(ini: Ini) -> dict[str, list[Line]]:
    """The included files, each once; a file that includes itself is not among them."""
    files = {os.path.realpath(file): lines for file, lines in ini.files}
    del files[os.path.realpath(ini.path)]
    return files


def _matches(pattern: str, file: str) -> bool:
    parts = os.path.abspath(pattern).split(os.sep)
    for name in (os.path.abspath(file).split(os.sep), os.path.realpath(file).split(os.sep)):
        if len(parts) == len(name) and all(map(fnmatch.fnmatchcase, name, parts)):
            return True
    return False


# -- the new files ----------------------------------------------------------------------------


def _stub(target: str, ending: str) -> str:
    # circusd's working directory is not known: only an absolute path works everywhere.
    place = os.path.abspath(target)
    if not re.fullmatch(r"[\w./+@%,=-]+", place):
        place = '"' + place.replace("\\", r"\\").replace('"', r"\"") + '"'
    lines = (f"[{HOST_SECTION}]", f"use = {HOST_USE}", f"config = {place}")
    return "".join(line + ending for line in lines)


def _target_text(ini: Ini, target: str, moved: list[str], new_main: str, ending: str) -> str:
    head = (
        f"# The plugins of {os.path.basename(ini.path)}, moved here by `circusplug migrate`;\n"
        "# its option --undo puts them back.\n"
    ).replace("\n", ending)
    body = ending + ending.join([*_copies(ini, target, moved, ending), *moved])
    return head + stamp(new_main, head + body) + ending + body


def _log_file(target: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(target)), LOG_FILE)


def _copies(ini: Ini, target: str, moved: list[str], ending: str) -> list[str]:
    """What the moved sections and their host need besides."""
    lines = [line for _, lines in [ini.files[0], *_included(ini).items()] for line in lines]
    name = os.path.basename(ini.path)
    copies = []
    # circusd hands its log on to a plugin, but not again after a `reloadconfig`.
    circus = [
        f"{key} = {value}"
        for key in ("check_delay", "loglevel", *([] if _needs_log(ini) else ["logoutput"]))
        if (value := ini.circus_option(key)) is not None
    ]
    if circus:
        copies.append(ending.join([f"[{CIRCUS_SECTION}]", *circus, ""]))
    if ini.sections.own(DEFAULT_SECTION):
        copies.append(ini_edit.section_text(lines, DEFAULT_SECTION))
    if any(has_variable(text) for text in [*moved, *copies]) and ENV_SECTION in ini.sections:
        copies.append(ini_edit.section_text(lines, ENV_SECTION))
    if copies:
        copies[0] = f"# Copied from {name}, where circusd uses it too.{ending}{copies[0]}"
    if _needs_log(ini):
        log = [
            f"# {name} names no log, and circusd closes what its plugins print to.",
            *([] if circus else [f"[{CIRCUS_SECTION}]"]),
            f"logoutput = {_log_file(target)}{ending}",
        ]
        copies.insert(1 if circus else len(copies), ending.join(log))
    return copies


def _needs_log(ini: Ini) -> bool:
    """Whether circusd has no log that the host could share."""
    if CIRCUS_SECTION not in ini.sections and ini.sections.own(DEFAULT_SECTION):
        return False  # a section of ours would get options that it has not got there
    return ini.circus_option("logoutput") in _NO_LOG


def _verify(ini: Ini, host: HostConfig, target: str, new_main: str, new_target: str) -> None:
    """Read the new files, before they are written, and compare them with the old."""
    try:
        os.path.abspath(target).encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{target!r}: this path is not UTF-8; choose one that is") from None
    try:
        new_target.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(
            f"{ini.path}: a plugin section is not UTF-8, so {target} could not be read; save "
            "it as UTF-8"
        ) from None
    plugins = Ini(target, ini.environ)
    plugins.add(target, new_target)
    rest = Ini(ini.path, ini.environ)
    rest.add(ini.path, new_main)
    for file, lines in _included(ini).items():
        rest.add(file, "".join(line.text for line in lines))
    after = build(plugins)
    if (after.plugins, after.stop_timeout, after.check_delay) != (
        host.plugins, host.stop_timeout, host.check_delay
    ):  # fmt: skip
        raise ConfigError(f"{ini.path}: {target} would not give the same plugins; nothing was done")
    config = [(spec.use, spec.config.get("config")) for spec in build(rest).plugins]
    place = os.path.abspath(target)
    if config != [(HOST_USE, place)] or has_variable(place) or ":::" in place:
        raise ConfigError(f"{target}: Circus cannot hand on this path; choose a simpler one")
    if after.logoutput not in (host.logoutput, _log_file(target)):
        raise ConfigError(f"{target}: 'logoutput' cannot name this directory; choose a simpler one")
    if sections_of_circusd(rest) != sections_of_circusd(ini):
        raise ConfigError(f"{ini.path}: its other sections would not stay; nothing was done")
