# Changing ini files as text: sections are cut out with the comments that belong to them,
# changes are shown, files are written at once or not at all. Bytes that are not UTF-8 and all
# line endings survive.

from __future__ import annotations

import contextlib
import difflib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable

from .._config.ini_syntax import Kind, Line, scan
from .._secrets import MASK, is_secret

#: A line that sets an option, or is a comment that did.
_SETTING = re.compile(r"(?P<key>[^=:]+)[=:]\s*(?P<value>.*)")
_OPTION_KINDS = (Kind.SECTION, Kind.OPTION, Kind.CONTINUATION)


def decode(content: bytes) -> str:
    """Bytes as text that `encode` turns back, whatever they are."""
    return content.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The bytes of what `decode` returned."""
    return text.encode("utf-8", "surrogateescape")


def read_bytes(file: str) -> bytes:
    """A file's content.

    Raises:
        OSError: It cannot be read.
    """
    with open(file, "rb") as stream:
        return stream.read()


def read_any(file: str) -> str:
    """A file's content as text that `encode` turns back.

    Raises:
        OSError: It cannot be read.
    """
    return decode(read_bytes(file))


def failure(error: OSError, path: str) -> str:
    """What to tell the user when files beside `path` could not be read or written."""
    return f"{path}: it, or a file beside it, cannot be written: {error.strerror or error}"


def line_ending(lines: list[Line]) -> str:
    """How the lines of a file end."""
    first = lines[0].text if lines else ""
    return first[len(first.rstrip("\r\n")) :] or "\n"


def cut(lines: list[Line], wanted: Callable[[str], bool], stub: str) -> tuple[list[str], str]:
    """Cut sections out of a file.

    A section takes along the comments that touch it, above its header and below its last
    option; what an empty line separates from it stays.

    Args:
        lines: The file.
        wanted: Whether a section is to be cut out.
        stub: Put where the first one was.

    Returns:
        The text of each section, and what remains of the file.
    """
    moved: list[str] = []
    kept: list[str] = []
    done = 0
    gap = False  # whether an empty line would now follow an empty line
    for start, end in _blocks(lines, wanted):
        kept += _texts(lines[done:start], gap)
        moved.append(_ended("".join(_texts(lines[start:end])), line_ending(lines)))
        if stub:
            kept.append(stub)
            stub = ""
        gap = not kept or not kept[-1].strip()
        done = end
    rest = _texts(lines[done:], gap)
    while gap and not rest and kept and not kept[-1].strip():
        kept.pop()
    return moved, "".join(kept + rest)


def section_text(lines: Iterable[Line], section: str) -> str:
    """All that a file says in a section, comments and empty lines left out."""
    return "".join(
        _ended(line.text, "\n")
        for line in lines
        if line.section == section and line.kind in _OPTION_KINDS
    )


def diff(name: str, old: bytes | None, new: bytes) -> str:
    """A unified diff, to be read: secrets are masked; `old` is None for a new file."""
    before = [] if old is None else _shown_lines(old)
    origin = os.devnull if old is None else name
    lines = difflib.unified_diff(before, _shown_lines(new), origin, name)
    return "".join(_ended(line, "\n\\ No newline at end of file\n") for line in lines)


def write(file: str, content: bytes, like: str) -> None:
    """Write a file at once or not at all, through a link to what it names.

    Args:
        file: Made or replaced.
        content: What it is to hold.
        like: The file whose mode, and owner if possible, it gets.

    Raises:
        OSError: It cannot be written; then nothing has changed.
    """
    place = os.path.realpath(file)
    model = os.stat(like)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(place), prefix=".circusplug-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(PermissionError):
            os.chown(temporary, model.st_uid, model.st_gid)
        os.chmod(temporary, stat.S_IMODE(model.st_mode))
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # a Ctrl-C just after it was put in place
            os.unlink(temporary)
        raise


def _blocks(lines: list[Line], wanted: Callable[[str], bool]) -> Iterable[tuple[int, int]]:
    headers = [index for index, line in enumerate(lines) if line.kind is Kind.SECTION]
    starts = []
    for header in headers:
        start = header
        while start > 0 and lines[start - 1].kind is Kind.COMMENT:
            start -= 1
        starts.append(start)
    for header, start, limit in zip(headers, starts, [*starts[1:], len(lines)], strict=True):
        if not wanted(lines[header].section):
            continue
        end = header + 1
        for index in range(header + 1, limit):
            if lines[index].kind in _OPTION_KINDS:
                end = index + 1
        while end < limit and lines[end].kind is Kind.COMMENT:
            end += 1
        yield start, end


def _texts(lines: list[Line], after_gap: bool = False) -> list[str]:
    start = 0
    while after_gap and start < len(lines) and lines[start].kind is Kind.BLANK:
        start += 1
    return [line.text for line in lines[start:]]


def _ended(text: str, ending: str) -> str:
    return text if text.endswith(("\n", "\r")) else text + ending


def _shown_lines(content: bytes) -> list[str]:
    text = content.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return [_masked(line) for line in scan(text, "")]


def _masked(line: Line) -> str:
    if line.kind is Kind.CONTINUATION and is_secret(line.key):
        return f"  {MASK}\n"
    setting = _SETTING.match(line.text)  # one in a comment may be a secret, too
    if setting and setting["value"] and is_secret(setting["key"]):
        return f"{setting[0].removesuffix(setting['value'])}{MASK}\n"
    return line.text
