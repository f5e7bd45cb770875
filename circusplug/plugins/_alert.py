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
from typing import Any

from circusplug import CallError, CircusPlugin, SpecError

from ._delivery import CommandDelivery, Delivery, DeliveryError, deliver
from ._flapping import DeathWatch, Flap, within
from ._mail import TLS_KINDS, MailDelivery, MailServer, make_mail
from ._options import Options, check_by_construction
from ._pause import Pauses

#: How many alerts may be under way at a time; those beyond only go to the log.
MAX_UNDER_WAY = 4


class FlappingAlert(CircusPlugin):
    """Tells when a watcher's processes die too often.

    Deaths that circusd asked for are not counted: those of a stop, a reload, a decr, of
    processes that became too old. The alert always goes to the log, as a warning.

    Options:
        attempts: How many deaths it takes; default 3.
        window: Within how many seconds; default 30.
        quiet: No second alert for the same watcher within so many seconds; default 300.
        watchers: Names of watchers, ``*`` and ``?`` allowed, separated by commas; default ``*``.
        kill_grace: For how many seconds a signal of circusd's excuses the death of a process;
            default 60. It should be more than the watcher's ``graceful_timeout``.
        command: A command to run, without a shell. It gets the alert on its standard input and
            as CIRCUSPLUG_ALERT, and CIRCUSPLUG_WATCHER, CIRCUSPLUG_DEATHS and
            CIRCUSPLUG_EXIT_CODE; what it prints goes to the host's standard error.
        mail_to: Addresses to write to, separated by commas.
        mail_from: The sender's address; default ``circusplug@`` and this host's name.
        smtp_host: The mail server; default ``localhost``.
        smtp_port: Its port; default 25.
        smtp_user: Whom to log in as; by default nobody.
        smtp_password: The password of `smtp_user`.
        smtp_tls: ``yes`` (from the start, mostly at port 465), ``starttls`` (mostly at port 587)
            or ``no``; default ``starttls`` with `smtp_user`, else ``no``. The server's
            certificate has to be one that this system trusts.
        deadline: How long the command may take, and the mail, in seconds; default 30.
        stop: Whether to stop the watcher, even when the alert is left out; default no.
        retry_in: Start it again so many seconds later, 0: never; default 60. When the plugin
            itself is stopped meanwhile, it starts the watcher at once.

    Raises:
        SpecError: An option has a value that does not fit, or there is no such command.
    """

    name = "flapping_alert"
    check_config = check_by_construction

    #: How long a command that meets conflicts is sent again, in seconds: stopping a watcher keeps
    #: circusd busy for its ``graceful_timeout``.
    patience = 120.0

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        options = Options(config)
        self._deaths = DeathWatch(
            options.integer("attempts", 3, minimum=1),
            options.seconds("window", 30.0),
            options.seconds("kill_grace", 60.0),
        )
        self._quiet = options.seconds("quiet", 300.0)
        # Events carry names in lower case, with underscores for spaces.
        self._patterns = [
            re.compile(fnmatch.translate(pattern.lower().replace(" ", "_")))
            for pattern in options.names("watchers", "*")
        ]
        self._command = options.command("command")
        self._mail_to = options.names("mail_to")
        self._mail_from = options.text("mail_from")
        user = options.text("smtp_user")
        self._mail_server = MailServer(
            options.text("smtp_host", "localhost"),
            options.integer("smtp_port", 25, minimum=1, maximum=65535),
            user,
            options.text("smtp_password"),
            options.choice("smtp_tls", "starttls" if user else "no", TLS_KINDS),
        )
        self._deadline = options.seconds("deadline", 30.0, above=0.0)
        self._stop = options.flag("stop", False)
        retry_in = options.seconds("retry_in", 60.0)
        self._pauses = Pauses(self, retry_in, self.patience)
        self._options = options
        self._told: dict[str, float] = {}
        self._under_way = 0

    def handle_init(self) -> None:
        for line in self._options.misspelt():
            self.logger.warning("%s", line)
        if self._command and shutil.which(self._command[0]) is None:
            raise SpecError(
                f"'command': there is no program {self._command[0]!r} here", key="command"
            )

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        watcher, action, _ = self.split_data(data)
        if action in ("start", "remove"):
            self._pauses.cancel(watcher)
        if not any(pattern.match(watcher) for pattern in self._patterns):
            return
        flap = self._deaths.observe(self.parse_event(data))
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
        if told is None or not within(told, flap.last.time, self._quiet):
            self._told[flap.watcher] = flap.last.time
            tasks += self._tell(flap, name)
        if self._stop:
            tasks.append(self._pauses.begin(flap.watcher, name))
        await asyncio.gather(*tasks)

    def _tell(self, flap: Flap, name: str) -> list[Awaitable[None]]:
        """Log the alert and return what is still to be awaited."""
        text = flap.describe(name)
        self.logger.warning("%s", text)
        deliveries: list[Delivery] = []
        if self._command:
            env = {
                "CIRCUSPLUG_ALERT": text,
                "CIRCUSPLUG_WATCHER": name,
                "CIRCUSPLUG_DEATHS": str(flap.deaths),
                "CIRCUSPLUG_EXIT_CODE": str(flap.last.payload.get("exit_code", "")),
            }
            deliveries.append(CommandDelivery(self._command, text + "\n", env))
        if self._mail_to:
            mail = make_mail(text, f"circus: {name} dies too often", self._mail_from, self._mail_to)
            deliveries.append(MailDelivery(mail, self._mail_server, self._deadline + 1.0))
        return [self._deliver(delivery, name) for delivery in deliveries]

    async def _deliver(self, delivery: Delivery, name: str) -> None:
        if self._under_way >= MAX_UNDER_WAY:
            self.logger.error("%s: alert not sent, %d are still under way", name, self._under_way)
            return
        self._under_way += 1
        try:
            await deliver(delivery, self._deadline)
        except DeliveryError as error:
            self.logger.error("%s: alert not sent: %s", name, error)
        finally:
            self._under_way -= 1
