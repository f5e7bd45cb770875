# Bytes from a pipe to lines, in bounded memory.

from __future__ import annotations

from .messages import LINE_LIMIT


class LineBuffer:
    """Cuts what is fed to it into lines, without their line ends.

    Args:
        limit: The longest line that is kept together, in bytes; a longer one comes in pieces.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._rest = b""
        self._skips = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take in what was read; returns the lines that are complete with it."""
        if self._skips:  # to the end of the line that was skipped in part
            _, found, data = data.partition(b"\n")
            self._skips = not found
        *lines, self._rest = (self._rest + data).split(b"\n")
        limit = self._limit
        if len(self._rest) > limit or any(len(line) > limit for line in lines):
            lines = [piece for line in lines for piece in _pieces(line, limit)]
            *long, self._rest = _pieces(self._rest, limit)
            lines += long
        return lines

    def skip(self, data: bytes) -> int:
        """Drop what was read, and what waits for its line end; returns how many lines that is."""
        lines = data.count(b"\n")
        self._skips = not data.endswith(b"\n")
        self._rest = b""
        return max(1, lines)

    def flush(self) -> list[bytes]:
        """What has no line end yet, if there is any: nothing more will come."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def _pieces(line: bytes, limit: int) -> list[bytes]:
    return [line[start : start + limit] for start in range(0, len(line), limit)] or [b""]
