# Taking a migration back (`_migrate` is the way there). A stamp in the file with the plugins
# tells whether it and the circus.ini are still as the migration wrote them.

from __future__ import annotations

import contextlib
import hashlib
import os
import re

from .._config.ini_file import HOST_USE, build
from .._config.ini_includes import Ini
from .._errors import ConfigError
from . import ini_edit

HOST_SECTION = "plugin:circusplug"
DEFAULT_TARGET = "plugins.ini"
BACKUP_SUFFIX = ".before-circusplug"

_STAMP = re.compile(
    r"(?:^|(?<=\r))# state (?P<main>[0-9a-f]{16}) (?P<target>[0-9a-f]{16})(\r\n?|\n)", re.MULTILINE
)


def stamp(main: str, target: str) -> str:
    """A comment that tells later whether one of two texts was edited.

    Args:
        main: The migrated circus.ini.
        target: The file with the plugins, without this line.
    """
    return f"# state {_digest(main)} {_digest(target)}"


def undo(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Put a migrated circus.ini back, byte for byte, and remove what the migration made.

    Args:
        path: The circus.ini.

    Returns:
        The files that are removed.

    Raises:
        ConfigError: There is nothing to undo, a file was edited since, or cannot be written;
            nothing has changed.
    """
    path = os.fspath(path)
    backup = path + BACKUP_SUFFIX
    if not os.path.lexists(backup):
        raise ConfigError(f"{path}: nothing to undo: there is no {backup}")
    try:
        original = ini_edit.read_bytes(backup)
        target, edited = _edits(path, original)
        if edited:
            raise ConfigError(
                *(
                    f"{file}: was edited since the migration, so it is not undone; put it back by "
                    f"hand, the original is {backup}"
                    for file in edited
                )
            )
        ini_edit.write(path, original, like=backup)
        removed = [file for file in (target, backup) if file is not None]
        for file in removed:
            os.unlink(file)
    except OSError as error:
        raise ConfigError(ini_edit.failure(error, path)) from None
    return tuple(removed)


def _digest(text: str) -> str:
    return hashlib.sha256(ini_edit.encode(text)).hexdigest()[:16]


def _edits(path: str, original: bytes) -> tuple[str | None, list[str]]:
    """The file that the plugins moved to, if any, and which files were edited since."""
    if not os.path.lexists(path):
        return _orphan_of(path), []
    current = ini_edit.read_bytes(path)
    if current == original:  # the migration was interrupted
        return _orphan_of(path), []
    target = _target_of(path, ini_edit.decode(current))
    if target is None:
        return None, [path]
    if not os.path.isfile(target):
        raise ConfigError(
            f"{path}: not undone, as {target}, which has its plugins, is not there; put that back, "
            f"or copy the original, {path}{BACKUP_SUFFIX}, over {path}"
        )
    text = ini_edit.read_any(target)
    found = _STAMP.search(text)
    if found is None:
        return target, [path, target]
    edited = []
    if _digest(ini_edit.decode(current)) != found["main"]:
        edited.append(path)
    if _digest(text[: found.start()] + text[found.end() :]) != found["target"]:
        edited.append(target)
    return target, edited


def _orphan_of(path: str) -> str | None:
    """The usual file with the plugins, if it is as a migration wrote it."""
    target = os.path.join(os.path.dirname(path), DEFAULT_TARGET)
    if not os.path.isfile(target):
        return None
    text = ini_edit.read_any(target)
    found = _STAMP.search(text)
    whole = found is not None and (
        _digest(text[: found.start()] + text[found.end() :]) == found["target"]
    )
    return target if whole else None


def _target_of(path: str, text: str) -> str | None:
    ini = Ini(path, os.environ)
    ini.add(path, text)
    with contextlib.suppress(ConfigError):
        for spec in build(ini).plugins:
            target = spec.config.get("config")
            if spec.use == HOST_USE and target:
                return str(target)
    return None
