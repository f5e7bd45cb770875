# Which files make up a circus.ini: the main one, then what its include options name, merged
# as Circus merges them. What the sections mean is `ini_file`'s business.

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .._errors import ConfigError
from .ini_syntax import DEFAULT_SECTION, STRAY_NAME, Line, Sections, expand, scan, variables

CIRCUS_SECTION = "circus"
ENV_SECTION = "env"
INCLUDE_KEYS = ("include", "include_dir")


@dataclass
class Ini:
    """A main file and its includes, read and merged.

    Attributes:
        path: The main file, as the user gave it.
        environ: The environment that the values are expanded with, ``[env]`` aside.
        files: Each file and its lines, in reading order; what is included twice is read twice.
        sections: What they add up to.
        patterns: What the include options name, as globs.
    """

    path: str
    environ: Mapping[str, str]
    files: list[tuple[str, list[Line]]] = field(default_factory=list)
    sections: Sections = field(default_factory=Sections)
    patterns: list[str] = field(default_factory=list)

    def add(self, file: str, text: str) -> None:
        """Merge one more file in."""
        lines = list(scan(text, file))
        self.files.append((file, lines))
        self.sections.add(lines)

    def place(self, section: str, key: str = "") -> str:
        """``FILE:LINE: [SECTION]``, for messages."""
        line = self.sections.line(section, key)
        return f"{line.place if line else self.path}: [{section}]"

    def circus_option(self, key: str) -> str | None:
        """An option of ``[circus]``, not expanded. Without that section there is none."""
        if CIRCUS_SECTION not in self.sections:
            return None
        return self.sections.options(CIRCUS_SECTION).get(key)

    def variables(self) -> dict[str, str]:
        """The variables of plugin sections: the environment, extended by ``[env]``.

        The values of ``[env]`` itself see only the environment.
        """
        environ = dict(self.environ)
        if ENV_SECTION in self.sections:
            outer = variables(environ)
            options = {
                **self.sections.own(DEFAULT_SECTION),
                STRAY_NAME: ENV_SECTION,
                **self.sections.own(ENV_SECTION),
            }
            environ.update({key: expand(value, outer) for key, value in options.items()})
        return variables(environ)


def read_text(path: str) -> str:
    """A file's content, line endings as they are.

    Raises:
        OSError: It cannot be read.
        ConfigError: It is not UTF-8.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: is not UTF-8 (byte 0x{content[error.start]:02x}); save it as UTF-8"
        ) from None


def read_ini(
    path: str | os.PathLike[str],
    environ: Mapping[str, str] | None = None,
    read: Callable[[str], str] = read_text,
) -> Ini:
    """Read a main file and what it includes; problems and warnings are left in the result.

    Raises:
        ConfigError: The main file cannot be read.
    """
    ini = Ini(os.fspath(path), os.environ if environ is None else environ)
    try:
        ini.add(ini.path, read(ini.path))
    except FileNotFoundError:
        raise ConfigError(f"{ini.path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{ini.path}: is a directory; give the ini file in it") from None
    except OSError as error:
        raise ConfigError(f"{ini.path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{ini.path!r}: cannot be read: {error}") from None
    for file in list(_included(ini)):
        _include(ini, file, read)
    return ini


def _include(ini: Ini, file: str, read: Callable[[str], str]) -> None:
    try:
        ini.add(file, read(file))
    except ConfigError as error:
        ini.sections.problems.extend(error.problems)
    except OSError as error:
        # circusd passes over it without a word.
        ini.sections.warn(f"{file}: included by {ini.path}, but cannot be read: {error.strerror}")


def _included(ini: Ini) -> Iterator[str]:
    known = variables(ini.environ)  # [env] does not count yet
    base = os.path.dirname(ini.path)
    for key in INCLUDE_KEYS:
        for name in expand(ini.circus_option(key) or "", known).split():
            pattern = os.path.join(name, "*.ini") if key == "include_dir" else name
            if os.path.abspath(pattern) != pattern:
                pattern = os.path.join(base, pattern)
            ini.patterns.append(pattern)
            found = glob.glob(pattern) if "\0" not in pattern else []
            if not found:
                ini.sections.warn(
                    f"{ini.place(CIRCUS_SECTION, key)}: '{key}': {name} matches no file (it is "
                    f"relative to the directory of {ini.path})"
                )
            yield from found
