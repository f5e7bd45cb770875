# What an `Alert` can be told, and the receivers that it names.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from circusplug.options import Command, Endpoint, Names, Seconds, Secret, option

from ._delivery import CommandDelivery, Delivery, Receiver, need_program
from ._extras import need
from ._mail import MailDelivery, MailServer, make_mail
from ._message import SUBJECT_FIELDS, TEXT_FIELDS, Message, check_template
from ._troubles import Kind

_KINDS = "crash, flapping, gave_up, start_failed, hook_failed, plugin_failed"


@dataclass(frozen=True)
class AlertOptions:
    """What an `Alert` can be told."""

    watchers: Names = option(
        "*", meaning="names of watchers, with * and ?; plugins are plugin:NAME"
    )
    what: tuple[Kind, ...] = option(_KINDS, meaning="the kinds of trouble that are told")
    exit_codes: tuple[int, ...] = option(
        "0", per_watcher=True, meaning="exit codes that are no crash"
    )
    attempts: int = option(
        3, minimum=1, per_watcher=True, meaning="how many crashes are flapping, if they come"
    )
    window: Seconds = option(
        30, per_watcher=True, meaning="within that time; also how soon after a crash a stop is "
        "a sign that the watcher was given up"
    )  # fmt: skip
    gave_up_after: Seconds = option(
        60, meaning="a watcher that is then not started for so long was given up"
    )
    kill_grace: Seconds = option(
        60,
        meaning="how long a signal of circusd's excuses the death of a process; more than the "
        "watcher's graceful_timeout",
    )
    plugin_events: Endpoint | None = option(
        None,
        meaning="the host's control_pubsub, to hear of plugins that fail",
        example="tcp://127.0.0.1:5557",
    )
    batch: Seconds = option(5, meaning="what comes within that time is told together")
    quiet: Seconds = option(
        300,
        meaning="what a watcher has had told is held back so long if it comes again; then one "
        "alert says how often it came",
    )
    well_again: Seconds = option(
        600, meaning="after so long without trouble that is told; 0: never"
    )
    subject: str = option("circus on {host}: {summary}", meaning="a template of the subject")
    text: str = option(
        r"{time} {watcher}: {what}\n{output}",
        meaning=r"a template of what is said of each trouble; \n begins a line",
    )
    output_lines: int = option(
        10,
        minimum=0,
        maximum=1000,
        meaning="how many last lines of a watcher's output go along, if its stdout_stream or "
        "stderr_stream is a file with an absolute path",
    )
    command: Command = option("", meaning="a command to run", example="/usr/local/bin/page-me")
    notify: tuple[Secret, ...] = option("", meaning="where apprise sends it: its URLs")
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
    deadline: Seconds = option(30, above=0, meaning="how long each receiver may take")
    retry_in: Seconds = option(
        15, above=0, meaning="how long after a failure the next try is; the delay doubles each time"
    )
    tries: int = option(10, minimum=1, meaning="how often each receiver is tried")

    def __post_init__(self) -> None:
        check_template("subject", self.subject, SUBJECT_FIELDS)
        check_template("text", self.text, TEXT_FIELDS)
        if self.notify:
            need("notify", "'notify'", "notify")


def receivers(options: AlertOptions) -> Iterator[Receiver]:
    """Who is to get the messages: the command, each of apprise's URLs, the mail server.

    Raises:
        SpecError: There is no such command, or apprise does not know a URL.
    """
    if options.command:
        yield _by_command(options.command)
    if options.notify:
        from ._notify import notify_receivers

        yield from notify_receivers(options.notify)
    if options.mail_to:
        yield _by_mail(options)


def _by_command(command: tuple[str, ...]) -> Receiver:
    need_program(command)

    def make(message: Message) -> Delivery:
        return CommandDelivery(command, message.as_json(), message.as_environment())

    return Receiver(f"command {command[0]!r}", make)


def _by_mail(options: AlertOptions) -> Receiver:
    server = MailServer(
        options.smtp_host,
        options.smtp_port,
        options.smtp_user,
        options.smtp_password,
        options.smtp_tls or ("starttls" if options.smtp_user else "no"),
    )

    def make(message: Message) -> Delivery:
        mail = make_mail(message.text, message.subject, options.mail_from, options.mail_to)
        return MailDelivery(mail, server, options.deadline + 1.0)

    return Receiver(f"mail server {server.host}:{server.port}", make)
