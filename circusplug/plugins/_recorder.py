# Records what circusd publishes, and what it tells when it is asked, so that plugins can be run
# against it later. The lines and what they mean are in circusplug/docs/recordings.md.
#
# Owner: the plugin's thread; the file is closed by `handle_stop`, when that thread is parked.

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from circusplug import CallError, CircusPlugin, SpecError, __version__
from circusplug.options import Bytes, Seconds, declare, option

from .._secrets import MASK, masked
from ._linefile import WatchedFile, open_file
from ._losses import Losses
from ._processes import Meter
from ._watchers import in_events

#: The version of the form of a recording.
VERSION = 1
#: How long watchers may go on changing before they are asked for, in seconds: a `set` of several
#: options is an event for each.
_SETTLED = 0.1
#: After these events a watcher may have other options; circusd tells of no `incr` or `decr`.
_CHANGES = frozenset(("add", "start", "updated", "spawn", "kill"))


@dataclass(frozen=True)
class RecorderOptions:
    """What `Recorder` can be told."""

    filename: str = option(
        meaning="the file to write; one that ends in .gz is compressed",
        example="/var/log/circus-traffic.jsonl",
    )
    stats: Seconds | None = option(
        None,
        above=0,
        meaning="how often to write what the processes use; only at each connection by default",
        example="5",
    )
    rotate_size: Bytes | None = option(
        None, meaning="begin a new file before it is larger than this"
    )
    keep: int = option(5, minimum=1, meaning="how many older files to keep")
    seconds: Seconds | None = option(
        None, above=0, meaning="for how long to record; by default until it is stopped"
    )


class Recorder(CircusPlugin):
    """Records circusd's events and figures, for `circusplug replay`.

    Each file begins with what circusd tells of its watchers, and can be replayed by itself. In the
    options of watchers, what looks like a secret is masked, and so are all of ``env``. A file that
    is there is continued, as by a new recording. A full disk costs lines, and is told of.
    """

    name = "recorder"
    options = declare(RecorderOptions)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self._options_of: dict[str, Any] = {}  # by the watchers' real names
        self._global: dict[str, Any] = {}
        self._changed: set[str] = set()  # watchers, as events name them
        self._asking = asyncio.Lock()
        self._meter = Meter.of_plugin(self)
        self._begun: float | None = None  # by the loop's clock
        self._was_connected = False
        self._losses = Losses(self.options.filename, self.logger)
        self._file: WatchedFile | None = None

    def handle_init(self) -> None:
        options = self.options
        compress = options.filename.endswith(".gz")
        try:
            self._file = open_file(
                options.filename,
                options.keep,
                options.rotate_size,
                "never",
                self.logger,
                compress=compress,
                head=self._head,
            )
            if self._begun is None:  # the file was there
                for line in self._head():
                    self._write_line(line)
        except OSError as error:
            raise SpecError(f"'filename': {error}", key="filename") from None
        if options.stats is not None:
            self.periodic(self._note_figures, options.stats)
        if options.seconds is not None:
            self.loop.call_later(options.seconds, self.stop)

    async def handle_connect(self) -> None:
        if self._was_connected:
            self._write({"circusd": "back"})
        self._was_connected = True
        try:
            self._global = (await self.call_async("globaloptions")).get("options") or {}
            names = list((await self.call_async("status"))["statuses"])
        except CallError as error:
            self.logger.warning("circusd does not tell of its watchers: %s", error)
            return
        self._options_of = {}  # of another circusd, perhaps
        await self._note_options(names)
        await self._note_figures()

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        self._write_event(*data)
        watcher, action, _ = self.split_data(data)
        if action in _CHANGES:
            if not self._changed:
                self.loop.call_later(_SETTLED, self.loop.add_callback, self._note_changed)
            self._changed.add(watcher)

    def handle_stop(self) -> None:
        if self._file is not None:
            self._write({"end": True})
            self._file.close()
        self._losses.end()

    # What is asked for

    async def _note_changed(self) -> None:
        changed, self._changed = self._changed, set()
        try:
            names = list((await self.call_async("status"))["statuses"])
        except CallError as error:
            self.logger.info("circusd does not tell of its watchers: %s", error)
            return
        await self._note_options([name for name in names if in_events(name) in changed])

    async def _note_options(self, names: list[str]) -> None:
        found = {}
        for name in names:
            try:
                options = (await self.call_async("options", name=name)).get("options")
            except CallError as error:  # it may have been removed
                self.logger.info("options of %s are not known: %s", name, error)
            else:
                found[name] = _without_secrets(options)
        new = {name: one for name, one in found.items() if one != self._options_of.get(name)}
        self._options_of.update(new)
        if new:
            self._write({"options": new, "globaloptions": masked(self._global)})

    async def _note_figures(self) -> None:
        if self._asking.locked():
            return  # circusd has not answered the last time
        async with self._asking:
            try:
                statuses = (await self.call_async("status"))["statuses"]
                infos = (await self.call_async("stats"))["infos"]
                own = (await self.call_async("dstats")).get("info")
            except CallError as error:
                self.logger.info("no figures this time: %s", error)
                return
            noted = {name: self._measured(info) for name, info in infos.items()}
            self._meter.forget_gone()
            self._write({"status": statuses, "stats": noted, "dstats": own})

    def _measured(self, info: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: self._meter.to_record({**value, "pid": int(key)})
            if isinstance(value, dict) and key.isdecimal()
            else value
            for key, value in info.items()
        }

    # What is written

    def _head(self) -> Iterator[bytes]:
        self._begun = self.loop.time()
        head = {
            "recording": "circusplug",
            "version": VERSION,
            "program": f"circusplug {__version__}",
            "started": self.now(),
            "endpoint": self.endpoint,
            "check_delay": self.check_delay,
        }
        yield json.dumps(head).encode()
        if self._options_of:
            known = {"options": self._options_of, "globaloptions": masked(self._global)}
            yield self._line(known)
            if not self._asking.locked():  # else they come into this file all the same
                self.loop.call_soon(self.loop.add_callback, self._note_figures)

    @property
    def _elapsed(self) -> float:
        since: float = self.loop.time() - (self._begun or 0.0)
        return since

    def _line(self, record: Mapping[str, Any]) -> bytes:
        at = round(self._elapsed, 6)
        return json.dumps({"at": at, **record}).encode()

    def _write(self, record: Mapping[str, Any]) -> None:
        self._write_line(self._line(record))

    def _write_event(self, topic: bytes, payload: bytes) -> None:
        try:
            text = json.dumps(topic.decode()).encode()
            # As it came, if a reader can get the same bytes from it.
            if json.dumps(json.loads(payload)).encode() == payload:
                parts = self._elapsed, text, payload
                self._write_line(b'{"at": %.6f, "event": %s, "payload": %s}' % parts)
                return
        except (ValueError, RecursionError):
            pass
        self._write({"frames": [base64.b64encode(part).decode() for part in (topic, payload)]})

    def _write_line(self, line: bytes) -> None:
        assert self._file is not None
        self._losses.write(self._file, line)


def _without_secrets(options: Any) -> Any:
    """A watcher's options as they may be written down: an environment is likely to hold secrets."""
    if isinstance(options, dict) and isinstance(options.get("env"), dict):
        options = {**options, "env": dict.fromkeys(options["env"], MASK)}
    return masked(options)
