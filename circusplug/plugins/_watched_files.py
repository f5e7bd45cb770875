# Which files a watcher's processes are made of: its program, the script that this runs, both found
# as circusd would find them, and more; and a thread that tells when one has changed.

from __future__ import annotations

import functools
import glob
import os
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


def program_files(options: Mapping[str, Any]) -> set[Path]:
    """The files of a watcher that are there.

    Args:
        options: What circusd's ``options`` command tells of it.
    """
    directory = Path(str(options.get("working_dir") or "."))
    words = list(_words(options.get("cmd")))
    if not words:
        return set()
    env = options.get("env")
    path = env.get("PATH") if isinstance(env, dict) else None
    program = words[0] if "/" in words[0] else shutil.which(words[0], path=path) or words[0]
    found = {_file(directory, program)}
    for word in [*words[1:], *_words(options.get("args"))]:
        if not word.startswith("-"):  # the script; what follows are its arguments
            found.add(_file(directory, word))
            break
    return {file for file in found if file is not None}


def _words(text: object) -> Iterator[str]:
    if isinstance(text, str):
        try:
            yield from shlex.split(text)
        except ValueError:  # circusd cannot start that either
            return
    elif isinstance(text, list | tuple):
        yield from map(str, text)


def _file(directory: Path, name: str) -> Path | None:
    try:
        path = (directory / name).resolve()
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # no path at all, or a circle of links
        return None


def matching(pattern: str) -> set[Path]:
    """The files and directories that a pattern stands for."""
    found = glob.iglob(os.path.expanduser(pattern), recursive=True)
    return {Path(one).resolve() for one in found}


def places_of(files: set[Path]) -> set[Path]:
    """The directories to look at, to see each of these files and what is in directories."""
    found = {file.parent for file in files}
    for directory in filter(Path.is_dir, files):
        for place, inner, _ in os.walk(directory):
            inner[:] = [name for name in inner if not _is_noise(Path(place, name))]
            found.add(Path(place))
    return found


def belongs(path: Path, files: set[Path]) -> bool:
    """Whether a path is one of these files, or below one of these directories."""
    return path in files or (not files.isdisjoint(path.parents) and not _is_noise(path))


def _is_noise(path: Path) -> bool:
    """Whether nobody has written it by hand: what is compiled, an editor's, a repository's."""
    import watchfiles

    return not _default_filter()(watchfiles.Change.modified, str(path))


@functools.cache
def _default_filter() -> Any:
    import watchfiles

    return watchfiles.DefaultFilter()


class FileWatch:
    """A thread that tells of changes until it is stopped.

    Args:
        places: The directories to watch; a file that is replaced is seen in its directory only.
        told: Called on that thread, with what has changed.
    """

    def __init__(self, places: set[Path], told: Callable[[set[Path]], None]) -> None:
        self._places = places
        self._told = told
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="file watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell of no more changes, and end."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        import watchfiles

        for changes in watchfiles.watch(
            *self._places,
            watch_filter=None,
            stop_event=self._over,
            recursive=False,
            raise_interrupt=False,
        ):
            self._told({Path(path) for _, path in changes})
