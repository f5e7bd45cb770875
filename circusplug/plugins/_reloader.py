# Restarts watchers whose program, script or other files have changed. Which these are is found out
# in _watched_files.py.
#
# Owner: the plugin's thread; a `FileWatch` has one of its own that hands changes over.

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circusplug import CallError, CircusPlugin
from circusplug.options import Names, Seconds, declare, option

from ._extras import need
from ._restarts import RestartOptions, Restarts
from ._watched_files import FileWatch, belongs, matching, places_of, program_files
from ._watchers import Patterns

#: After these a watcher may run something else.
_CHANGES = frozenset({"add", "remove", "start", "updated"})


@dataclass(frozen=True)
class CommandReloaderOptions(RestartOptions):
    """What `CommandReloader` can be told."""

    watchers: Names = option("*", meaning="names of watchers, with * and ?")
    loop_rate: Seconds = option(
        1, above=0, meaning="how long changes are gathered before a watcher is restarted"
    )
    paths: Names = option(
        "",
        per_watcher=True,
        meaning="more files and directories, with * and ?, and ** for all below",
        example="/srv/app/**/*.py",
    )
    act: Literal["restart", "reload"] = option(
        "restart", per_watcher=True, meaning="reload lets the watcher do it without a gap"
    )

    def __post_init__(self) -> None:
        need("watch", "CommandReloader")


class CommandReloader(CircusPlugin):
    """Restarts a watcher when its program, its script or one of `paths` has changed.

    The script is the first word after the program that is no option. Changes are gathered until
    nothing has changed for `loop_rate`. Needs watchfiles: ``pip install 'circusplug[watch]'``, and
    that circusd's files are on this machine. While circusd is away nothing is restarted.
    """

    name = "command_reloader"
    options = declare(CommandReloaderOptions)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self._patterns = Patterns(self.options.watchers)
        self._restarts = Restarts(self, self.options)
        self._files: dict[str, set[Path]] = {}
        self._watch: FileWatch | None = None
        self._changed: set[Path] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._looking = asyncio.Lock()
        self._look_asked = False

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        watcher, action, _ = self.split_data(data)
        self._restarts.observe(watcher, action)
        if action in _CHANGES and self._patterns.match(watcher) and not self._look_asked:
            self._look_asked = True  # one look for all that come before it
            self.loop.add_callback(self.look)

    async def handle_connect(self) -> None:
        await self.look()

    def handle_stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    async def look(self) -> None:
        """Find out which files belong to which watcher, and watch them."""
        async with self._looking:
            self._look_asked = False
            try:
                names = (await self.call_async("list"))["watchers"]
                found = {name: await self._files_of(name) for name in filter(self._match, names)}
            except CallError as error:
                self.logger.warning("the watchers' files are not known: %s", error)
                return
            if found != self._files:
                self._files = found
                self._begin()

    def _match(self, name: str) -> bool:
        return self._patterns.match(name)

    async def _files_of(self, name: str) -> set[Path]:
        """The files and directories that belong to a watcher."""
        found = program_files((await self.call_async("options", name=name))["options"])
        for pattern in self.options_for(name).paths:
            found |= matching(pattern)
        return found

    def _begin(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        self._watch = None
        if places := places_of({file for files in self._files.values() for file in files}):
            self._watch = FileWatch(places, lambda changed: self._post(self._gather, changed))

    def _post(self, callback: Callable[[set[Path]], None], changed: set[Path]) -> None:
        """Go on on the plugin's thread."""
        with contextlib.suppress(RuntimeError):  # the plugin has ended
            self.loop.add_callback(callback, changed)

    def _gather(self, changed: set[Path]) -> None:
        self._changed |= changed
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(
            self.options.loop_rate, self.loop.add_callback, self._restart
        )

    async def _restart(self) -> None:
        changed, self._changed = self._changed, set()
        before = self._files
        await self.look()  # a new file may belong to a watcher, too
        for name, files in list(self._files.items()):
            mine = sorted(one for one in changed if belongs(one, files | before.get(name, set())))
            if mine:
                why = f"{mine[0]} has changed" + f" and {len(mine) - 1} more" * (len(mine) > 1)
                await self._restarts.restart(name, why, self.options_for(name).act)
