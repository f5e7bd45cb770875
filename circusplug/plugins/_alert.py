# Tells when a watcher's processes die too often, and may stop the watcher for a while.
#
# Owner: the plugin's thread; what is slow (a command, a mail, a conflict) is awaited, so that
# events are still taken in. `handle_stop` runs when that thread is parked.

from __future__ import annotations

import asyncio
import fnmatch
import re
import shutil
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Literal

from circusplug import CallError, CircusPlugin, SpecError
from circusplug.options import Command, Names, Seconds, Secret, declare, option

from ._deaths import DeathWatch, Flap, within
from ._delivery import CommandDelivery, Delivery, DeliveryError, deliver
from ._mail import MailDelivery, MailServer, make_mail
from ._pause import Pauses

#: How many alerts may be under way at a time; those beyond only go to the log.
MAX_UNDER_WAY = 4


@dataclass(frozen=True)
class FlappingAlertOptions:
    """What a `FlappingAlert` can be told."""

    attempts: int = option(3, minimum=1, meaning="how many deaths it takes")
    window: Seconds = option(30, meaning="within how long")
    quiet: Seconds = option(300, meaning="no second alert for the same watcher within that time")
    watchers: Names = option("*", meaning="names of watchers, with * and ?")
    kill_grace: Seconds = option(
        60,
        meaning="how long a signal of circusd's excuses the death of a process; more than the "
        "watcher's graceful_timeout",
    )
    command: Command = option("", meaning="a command to run", example="/usr/local/bin/page-me")
    mail_to: Names = option("", meaning="addresses to write to", example="ops@example.com")
    mail_from: str = option(
        "", meaning="the sender's address, by default circusplug@ and this host's name"
    )
    smtp_host: str = option("localhost", meaning="the mail server")
    smtp_port: int = option(25, minimum=1, maximum=65535, meaning="its port")
    smtp_user: str = option("", meaning="whom to log in as; empty: nobody")
    smtp_password: Secret = option("", meaning="the password of smtp_user")
    smtp_tls: Literal["no", "starttls", "yes"] | None = option(
        None,
        meaning="yes is from the start, mostly at port 465, starttls mostly at port 587; by "
        "default starttls with smtp_user, else no; the system must trust the certificate",
    )
    deadline: Seconds = option(30, above=0, meaning="how long the command may take, and the mail")
    stop: bool = option(
        False, meaning="whether to stop the watcher, even when the alert is left out"
    )
    retry_in: Seconds = option(60, meaning="start it again so much later; 0: never")


class FlappingAlert(CircusPlugin):
    """Tells when a watcher's processes die too often.

    Deaths that circusd asked for are not counted: those of a stop, a reload, a decr, of
    processes that became too old. The alert always goes to the log, as a warning.

    A command is run without a shell. It gets the alert on its standard input and as
    CIRCUSPLUG_ALERT, and CIRCUSPLUG_WATCHER, CIRCUSPLUG_DEATHS and CIRCUSPLUG_EXIT_CODE; what it
    prints goes to the host's standard error. When the plugin itself is stopped, it starts the
    watchers at once that it has stopped.

    Raises:
        SpecError: There is no such command.
    """

    name = "flapping_alert"
    options = declare(FlappingAlertOptions)

    #: How long a command that meets conflicts is sent again, in seconds: stopping a watcher keeps
    #: circusd busy for its ``graceful_timeout``.
    patience = 120.0

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        options = self.options
        self._deaths = DeathWatch(options.kill_grace)
        # Events carry names in lower case, with underscores for spaces.
        self._patterns = [
            re.compile(fnmatch.translate(pattern.lower().replace(" ", "_")))
            for pattern in options.watchers
        ]
        self._mail_server = MailServer(
            options.smtp_host,
            options.smtp_port,
            options.smtp_user,
            options.smtp_password,
            options.smtp_tls or ("starttls" if options.smtp_user else "no"),
        )
        self._pauses = Pauses(self, self.patience)
        self._told: dict[str, float] = {}
        self._under_way = 0

    def handle_init(self) -> None:
        command = self.options.command
        if command and shutil.which(command[0]) is None:
            raise SpecError(f"'command': there is no program {command[0]!r} here", key="command")

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        watcher, action, _ = self.split_data(data)
        if action in ("start", "remove"):
            self._pauses.cancel(watcher)
        if not any(pattern.match(watcher) for pattern in self._patterns):
            return
        event, options = self.parse_event(data), self.options
        if self._deaths.is_crash(event):
            flap = self._deaths.count(event, options.attempts, options.window)
            if flap is not None:
                self.loop.add_callback(self._raise_alarm, flap)

    def handle_reconnect(self) -> None:
        self._deaths.forget()

    def handle_stop(self) -> None:
        self._pauses.end()

    async def _raise_alarm(self, flap: Flap) -> None:
        """Tell of a watcher, unless that was done lately, and stop it if that is asked for."""
        try:
            name = self.watcher_name(flap.watcher)
        except CallError:
            name = flap.watcher  # circusd does not answer now; this is good enough to tell
        told = self._told.get(flap.watcher)
        tasks: list[Awaitable[None]] = []
        if told is None or not within(told, flap.last.time, self.options.quiet):
            self._told[flap.watcher] = flap.last.time
            tasks += self._tell(flap, name)
        if self.options.stop:
            tasks.append(self._pauses.begin(flap.watcher, name, self.options.retry_in))
        await asyncio.gather(*tasks)

    def _tell(self, flap: Flap, name: str) -> list[Awaitable[None]]:
        """Log the alert and return what is still to be awaited."""
        text = flap.describe(name)
        self.logger.warning("%s", text)
        deliveries: list[Delivery] = []
        if self.options.command:
            env = {
                "CIRCUSPLUG_ALERT": text,
                "CIRCUSPLUG_WATCHER": name,
                "CIRCUSPLUG_DEATHS": str(flap.deaths),
                "CIRCUSPLUG_EXIT_CODE": str(flap.last.payload.get("exit_code", "")),
            }
            deliveries.append(CommandDelivery(self.options.command, text + "\n", env))
        if self.options.mail_to:
            mail = make_mail(
                text, f"circus: {name} dies too often", self.options.mail_from, self.options.mail_to
            )
            deliveries.append(MailDelivery(mail, self._mail_server, self.options.deadline + 1.0))
        return [self._deliver(delivery, name) for delivery in deliveries]

    async def _deliver(self, delivery: Delivery, name: str) -> None:
        if self._under_way >= MAX_UNDER_WAY:
            self.logger.error("%s: alert not sent, %d are still under way", name, self._under_way)
            return
        self._under_way += 1
        try:
            await deliver(delivery, self.options.deadline)
        except DeliveryError as error:
            self.logger.error("%s: alert not sent: %s", name, error)
        finally:
            self._under_way -= 1
