# circus.ini's dialect, line by line: what a line is, what sections add up to, what a value
# means. No files here, and no plugins: everyone who reads an ini (to load it, to flatten it,
# to migrate it) sees the same lines. The rules are those of Circus 0.19.
#
# How a plugin's value is read. Circus sends a plugin its options through a shell split, and
# people write their files for that. So a value that the split takes for one word, losing
# nothing but quoting, means that word:
#   - one pair of quotes around the whole value is taken off: "a b", 'a b'; inside double
#     quotes \" and \\ stand for " and \;
#   - without quotes or white space, a backslash is taken off where each one stands before
#     white space, a quote or a backslash: my\ file, a\\b.
# Any other value would lose something on that way (white space, inner quotes as in JSON, the
# backslash of \d, a ':::', an empty value's neighbour) and arrives as the file says.

from __future__ import annotations

import enum
import io
import re
from collections.abc import Iterator, Mapping
from configparser import DEFAULTSECT, RawConfigParser
from dataclasses import dataclass

from configobj import ConfigObj

#: Its options are in every section that does not set them itself.
DEFAULT_SECTION = DEFAULTSECT
#: Circus's parser keeps a section's own name among its options.
STRAY_NAME = "__name__"

_VARIABLE = re.compile(
    r"\$\(circus\.(?P<a>[\w.\-]+)\)|\(\(circus\.(?P<b>[\w.\-]+)\)\)", re.IGNORECASE
)
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE_QUOTED = re.compile(r"'([^']*)'")
_ESCAPED_ONLY = re.compile(r"""(?:[^ \t\r\n"'\\]|\\[ \t\r\n"'\\])*""")


class Kind(enum.Enum):
    """What a line of an ini file is."""

    BLANK = "blank"
    COMMENT = "comment"
    SECTION = "section"
    OPTION = "option"
    CONTINUATION = "continuation"
    NO_OPTION = "no option"
    OUTSIDE = "before any section"


@dataclass(frozen=True)
class Line:
    """One line of an ini file.

    Attributes:
        file: As the user gave it.
        number: Counted from 1.
        text: As it is in the file, its line ending included.
        kind: What it is.
        section: The section it is in (for a header, the one it opens); empty before any.
        key: The option it sets or continues.
        value: What it adds to that option's value.
    """

    file: str
    number: int
    text: str
    kind: Kind
    section: str = ""
    key: str = ""
    value: str = ""

    @property
    def place(self) -> str:
        """``FILE:LINE``, for messages."""
        return f"{self.file}:{self.number}"


def scan(text: str, file: str) -> Iterator[Line]:
    """Tell the lines of an ini file apart as Circus does.

    Args:
        text: The file's content, line endings as they are.
        file: Its name, for messages.
    """
    section: str | None = None
    key = ""
    for number, raw in enumerate(io.StringIO(text, newline=""), 1):
        line = raw.rstrip("\r\n")
        first = line[:1]
        if not line.strip():
            kind, value = Kind.BLANK, ""
        elif first in "#;" or (first in "rR" and line.split(None, 1)[0].lower() == "rem"):
            kind, value = Kind.COMMENT, ""
        elif first.isspace() and section is not None and key:
            kind, value = Kind.CONTINUATION, line.strip()
        elif header := RawConfigParser.SECTCRE.match(line):
            kind, value = Kind.SECTION, ""
            section, key = header.group("header"), ""
        elif section is None:
            kind, value = Kind.OUTSIDE, ""
        elif option := RawConfigParser.OPTCRE.match(line):
            kind, value = Kind.OPTION, _first_value(option.group("value"))
            key = option.group("option").rstrip()
        else:
            kind, value = Kind.NO_OPTION, ""
        has_key = kind in (Kind.OPTION, Kind.CONTINUATION)
        yield Line(file, number, raw, kind, section or "", key if has_key else "", value)


def _first_value(value: str) -> str:
    # Only the first ';' counts, and none at all starts a comment if that one does not. At the
    # very start there is no character before it: Circus looks at the value's last one then.
    semicolon = value.find(";")
    if semicolon != -1 and value[semicolon - 1].isspace():
        value = value[:semicolon]
    value = value.strip()
    return "" if value == '""' else value


class Sections:
    """What the lines of one or more files add up to: the first value of a key counts.

    Attributes:
        store: Section to key to value, nothing expanded.
        lines: The line that set a key, by section and key; a section's first header has
            an empty key.
        problems: What Circus could not read, one line each.
        warnings: What it reads, and hardly anybody means; a line each.
    """

    def __init__(self) -> None:
        self.store = ConfigObj(interpolation=False, list_values=False)
        self.lines: dict[tuple[str, str], Line] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self._files = 0
        self._set_by: dict[tuple[str, str], int] = {}
        self._damaged: set[str] = set()

    def __contains__(self, section: object) -> bool:
        return section in self.store

    def add(self, lines: list[Line]) -> None:
        """Merge the lines of one more file in; files come in Circus's reading order."""
        self._files += 1
        outside = False
        for line in lines:
            if line.kind is Kind.SECTION:
                self.store.setdefault(line.section, {})
                first = self.lines.setdefault((line.section, ""), line)
                if first.file == line.file and first.number < line.number:
                    self.warn(
                        f"{line.place}: [{line.section}]: this section begins at {first.place} "
                        "already; of a key that is in both, the first counts"
                    )
            elif line.kind is Kind.OPTION:
                self._set(line)
            elif line.kind is Kind.CONTINUATION:
                self._continue(line)
            elif line.kind is Kind.NO_OPTION:
                self._damaged.add(line.section)
                self.problems.append(
                    f"{line.place}: [{line.section}]: {_shown(line)} is no option; "
                    "write KEY = VALUE"
                )
            elif line.kind is Kind.OUTSIDE and not outside:
                outside = True
                self.problems.append(_outside(line))

    def warn(self, line: str) -> None:
        """Keep a warning, once."""
        if line not in self.warnings:
            self.warnings.append(line)

    def own(self, section: str) -> dict[str, str]:
        """The options that a section sets itself, in order; empty if there is no such one."""
        return dict(self.store.get(section, {}))

    def options(self, section: str) -> dict[str, str]:
        """The options of a section, those of ``[DEFAULT]`` included, which come first."""
        return {**self.own(DEFAULT_SECTION), **self.own(section)}

    def line(self, section: str, key: str = "") -> Line | None:
        """Where an option is set, or else where its section starts."""
        for place in ((section, key), (DEFAULT_SECTION, key), (section, "")):
            if place in self.lines:
                return self.lines[place]
        return None

    def is_damaged(self, section: str) -> bool:
        """Whether a line of that section could not be read."""
        return section in self._damaged

    def _set(self, line: Line) -> None:
        known = (line.section, line.key)
        # Circus's parser put the section's name there before the file could.
        reserved = line.key == STRAY_NAME and line.section != DEFAULT_SECTION
        if known in self._set_by or reserved:
            first = self.lines.get(known)
            # A file that includes itself comes twice.
            if (
                first is not None
                and first.place != line.place
                and (first.file == line.file or first.value != line.value)
            ):
                self.warn(
                    f"{line.place}: [{line.section}]: '{line.key}' is set at {first.place} "
                    "already, and that counts; remove one of them"
                )
            return
        self._set_by[known] = self._files
        self.store[line.section][line.key] = line.value
        if line.key:
            self.lines[known] = line

    def _continue(self, line: Line) -> None:
        # A key set twice in a file: what continues the second continues the first's value.
        # If an earlier file set it, circusd dies here.
        if self._set_by.get((line.section, line.key)) == self._files:
            self.store[line.section][line.key] += "\n" + line.value
            return
        first = self.lines.get((line.section, line.key))
        self.problems.append(
            f"{line.place}: [{line.section}]: cannot continue '{line.key}', which "
            f"{first.place if first else 'Circus'} has set already; remove it in one place"
        )


def _outside(line: Line) -> str:
    if line.text.startswith("\ufeff"):
        return f"{line.place}: starts with a byte order mark; save it as UTF-8 without one"
    if line.text.strip().startswith("["):
        return f"{line.place}: {_shown(line)} is no section; write [NAME]"
    return f"{line.place}: {_shown(line)} stands before any [section]; put it under one"


def _shown(line: Line) -> str:
    text = line.text.strip()
    return repr(text if len(text) <= 60 else text[:57] + "...")


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What ``$(circus.env.NAME)`` stands for, in any case; the last of equal names counts."""
    return {f"circus.env.{name.lower()}": value for name, value in environ.items()}


def has_variable(text: str) -> bool:
    """Whether there is something in it that `expand` could replace."""
    return bool(_VARIABLE.search(text))


def expand(value: str, known: Mapping[str, str]) -> str:
    """Replace ``$(circus.env.NAME)`` and ``((circus.env.NAME))``, once; unknown ones stay."""

    def replacement(found: re.Match[str]) -> str:
        name = (found["a"] or found["b"]).lower()
        if not name.startswith("circus"):
            name = f"circus.{name}"
        return known.get(name, found[0])

    return _VARIABLE.sub(replacement, value)


def unquote(value: str) -> str:
    """A plugin's value as it is meant (the rule is at the head of this module)."""
    if double := _DOUBLE_QUOTED.fullmatch(value):
        return re.sub(r'\\(["\\])', r"\1", double[1])
    if single := _SINGLE_QUOTED.fullmatch(value):
        return single[1]
    if _ESCAPED_ONLY.fullmatch(value):
        return re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
    return value
