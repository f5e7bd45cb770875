# Tells of lines that are lost: the first one, and in the end how many.

from __future__ import annotations

import logging

from ._linefile import LineFile


class Losses:
    """The lines that were lost on their way to one place.

    Args:
        place: Its name, for messages.
        logger: The plugin's.
    """

    def __init__(self, place: str, logger: logging.Logger) -> None:
        self._place = place
        self._logger = logger
        self._count = 0

    def add(self, error: object, count: int = 1) -> None:
        """So many more are lost; trouble is told once, not for each line."""
        if not self._count:
            self._logger.error("cannot write to %s, lines are lost: %s", self._place, error)
        self._count += count

    def write(self, file: LineFile, line: bytes) -> None:
        """Write a line, or count it."""
        try:
            file.write(line)
        except (OSError, ValueError) as error:
            self.add(error)
        else:
            self.end()

    def end(self) -> None:
        """Lines arrive again, or there will be none: tell how many were lost."""
        if self._count:
            self._logger.warning("%s: %d lines were lost", self._place, self._count)
            self._count = 0
