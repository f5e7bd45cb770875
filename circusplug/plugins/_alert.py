# Tells people of trouble. What is trouble is decided in _troubles.py, when it is told in
# _digest.py, and who gets it, how often tried, in _outbox.py.
#
# Owner: the plugin's thread; what is slow is awaited there, or done on threads of _delivery.py, so
# that events are taken in all the time. `handle_stop` runs when the plugin's thread is parked.

from __future__ import annotations

import asyncio
import itertools
import math
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import zmq

from circusplug import CallError, CallTimeout, CircusPlugin, Event
from circusplug.options import declare

from ._alert_options import AlertOptions, receivers
from ._delivery import DeliveryError, deliver
from ._digest import Digest
from ._message import describe, make_alert, make_message
from ._outbox import Outbox
from ._output import last_output
from ._troubles import Trouble, Troubles
from ._watchers import PLUGIN, Patterns, in_events

#: The longest event of a host that is read, in bytes.
_LONGEST_EVENT = 64 * 1024


class Alert(CircusPlugin):
    """Tells of trouble with watchers: to a command, by mail, to all that apprise knows.

    Kinds of trouble: `crash` (a process died that circusd had not signalled, with none of
    `exit_codes`), `flapping` (`attempts` crashes within `window`), `gave_up` (stopped right after
    a crash, be it by circusd or Flapping, and not started again), `start_failed`, `hook_failed`
    (a hook raised), `plugin_failed` (circusd's plugins; those of a host by `plugin_events`). Each
    is a warning in the log, too.

    What circusd does not publish is not seen: a ``before_start`` that says no, why a watcher was
    stopped, and what was before the plugin was connected.

    A command is run without a shell. It gets subject, text and the first alert's facts in its
    environment, as CIRCUSPLUG_SUBJECT, _TEXT, _WATCHER, _KIND and so on, and all as a JSON object
    on its standard input; what it prints goes to the host's standard error. A receiver that fails
    is tried again from a queue of 100 messages; what is left at a stop is logged.

    Raises:
        SpecError: There is no such command, or apprise does not know a URL.
    """

    name = "alert"
    options = declare(AlertOptions)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        options = self.options
        self._is_meant = Patterns(options.watchers, with_plugins=True).match
        self._troubles = Troubles(options.kill_grace, self.options_for)
        self._digest = Digest(options.batch, options.quiet, options.well_again)
        self._in_hand: list[list[Trouble]] = []  # neither in the digest nor in an outbox
        self._outboxes: list[Outbox] = []
        self._timer: asyncio.TimerHandle | None = None
        self._host_events: zmq.Socket[bytes] | None = None

    def handle_init(self) -> None:
        options = self.options
        self._outboxes = [
            Outbox(one, options, self.loop, self.logger)
            for one in (() if self.replaying else receivers(options))
        ]
        if options.plugin_events is not None:
            self._context = zmq.Context()
            events: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
            self._host_events = events
            events.setsockopt(zmq.MAXMSGSIZE, _LONGEST_EVENT)
            events.subscribe(f"watcher.{PLUGIN}")
            events.connect(options.plugin_events)
            self.loop.add_handler(events, self._take_host_event, self.loop.READ)

    async def handle_connect(self) -> None:
        statuses, moment = await self._statuses()
        by_event = {in_events(name): state for name, state in statuses.items()}
        self._troubles.begin(by_event, moment)
        for watcher in (name for name, state in by_event.items() if state == "active"):
            self._digest.note(watcher, "start", self.loop.time())  # if there was one, it was missed
        self._set_timer()

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        watcher, _, _ = self.split_data(data)
        if self._is_meant(watcher):
            self._take(self.parse_event(data))

    def handle_stop(self) -> None:
        if self._host_events is not None:
            self.loop.remove_handler(self._host_events)
            self._host_events.close()
            self._context.term()
        held = [*itertools.chain(*self._in_hand), *self._digest.rest()]
        for trouble in held:
            self.logger.warning("%s", describe(trouble, trouble.watcher))
        if held and self._outboxes:
            self.logger.error("alerts not sent, as this plugin stops: %d", len(held))
        for outbox in self._outboxes:
            if outbox.left:
                self.logger.error("%s: messages not sent: %d", outbox.to, outbox.left)

    @staticmethod
    def send_test(options: AlertOptions) -> Iterator[tuple[str, str]]:
        """Send a test alert to each receiver; gives which one it was, and the error or nothing.

        Raises:
            SpecError: There is no such command, or apprise does not know a URL.
        """
        trouble = Trouble("test", "test", "this is only a test; nothing has happened")
        alerts = [make_alert(trouble, "test", socket.gethostname(), [])]
        message = make_message(alerts, options.subject, options.text)
        for receiver in receivers(options):
            error = ""
            try:
                asyncio.run(deliver(receiver.make(message), options.deadline))
            except DeliveryError as failure:
                error = str(failure).removeprefix(f"{receiver.to}: ")
            yield receiver.to, error

    def _take_host_event(self, events: zmq.Socket[bytes], _mask: int) -> None:
        try:
            topic, payload = events.recv_multipart(zmq.NOBLOCK)
            self.handle_recv((topic, payload))
        except (zmq.Again, ValueError):
            return  # it is no event

    def _take(self, event: Event) -> None:
        now = self.loop.time()
        troubles = [one for one in self._troubles.take(event) if one.kind in self.options.what]
        for trouble in troubles:
            wait = self.options.gave_up_after if trouble.kind == "gave_up" else 0.0
            self._digest.take(trouble, now, wait)
        if event.action in ("start", "stop", "remove"):
            self._digest.note(event.watcher, event.action, now)
        elif not troubles:
            return
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._digest.next_due()
        if due < math.inf:
            self._timer = self.loop.call_at(due, self.loop.add_callback, self._tell)

    async def _tell(self) -> None:
        """Log what is to be told now, and give it to all receivers."""
        troubles = self._digest.take_due(self.loop.time())
        self._set_timer()
        if not troubles:
            return
        self._in_hand.append(troubles)
        names = {in_events(name): name for name in (await self._statuses())[0]}
        asks = self.options.output_lines > 0
        alerts = []
        for trouble in troubles:
            name = names.get(trouble.watcher, trouble.watcher)
            output: list[str] = []
            try:
                if asks and trouble.watcher in names and trouble.kind != "well_again":
                    output = await self._output(name)
            except CallTimeout:
                asks = False  # it would be the same for all others
            alerts.append(make_alert(trouble, name, socket.gethostname(), output))
        self._in_hand.remove(troubles)
        for alert in alerts:
            log = self.logger.info if alert["kind"] == "well_again" else self.logger.warning
            log("%s: %s", alert["watcher"], alert["what"], extra={"alert": alert["kind"]})
        message = make_message(alerts, self.options.subject, self.options.text)
        for outbox in self._outboxes:
            outbox.put(message)

    async def _statuses(self) -> tuple[Mapping[str, str], float]:
        """The state of each watcher by its real name, and when it was so; nothing is known of
        those of a circusd that does not answer."""
        try:
            reply = await self.call_async("status")
        except CallError:
            return {}, 0.0
        statuses, moment = reply.get("statuses"), reply.get("time")
        return (
            statuses if isinstance(statuses, dict) else {},
            float(moment) if isinstance(moment, int | float) else 0.0,
        )

    async def _output(self, name: str) -> list[str]:
        """The last lines of a watcher's output. Raises CallTimeout, but no other CallError."""
        try:
            options = (await self.call_async("options", name=name)).get("options")
        except CallTimeout:
            raise
        except CallError:
            return []  # it was removed
        return last_output(options, self.options.output_lines) if isinstance(options, dict) else []
