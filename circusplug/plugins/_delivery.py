# Hands an alert to a command or to a mail server, without keeping the plugin's loop waiting.
#
# Both block, so each runs on a thread of the loop's own executor, and is ended from the
# plugin's thread by `abort`: a command by a signal, a mail by the loss of its connection. Not
# asyncio's subprocesses: a task that is cancelled while one is being started never ends.

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import smtplib
import socket
import subprocess
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Protocol

from circusplug import CircusPlugError

#: What a command prints belongs with the host's log, not with what the Logger may print.
_STDERR = 2


class DeliveryError(CircusPlugError):
    """An alert could not be delivered."""


class Delivery(Protocol):
    """One alert on one way to somebody.

    Attributes:
        to: Who or what gets it, for messages.
    """

    to: str

    def run(self) -> None:
        """Deliver it; blocks, on a thread of its own. May raise anything."""

    def abort(self) -> None:
        """Have `run` return soon; from another thread, also before it began or when it is over."""


async def deliver(delivery: Delivery, deadline: float) -> None:
    """Deliver an alert; when the awaiting is cancelled, it is aborted.

    Args:
        delivery: What to deliver, and how.
        deadline: How long it may take, in seconds; then it is aborted.

    Raises:
        DeliveryError: It fails or takes too long.
    """
    running = asyncio.get_running_loop().run_in_executor(None, delivery.run)
    try:
        await asyncio.wait_for(running, deadline)
    except asyncio.TimeoutError:  # its own class on Python 3.10
        raise DeliveryError(f"{delivery.to}: not done within {deadline:g} s") from None
    except Exception as error:
        raise DeliveryError(f"{delivery.to}: {error}") from error
    finally:
        delivery.abort()


class CommandDelivery:
    """Runs a command, without a shell; an abort kills it with all that it started.

    Args:
        command: The program and its arguments.
        text: What it reads from its standard input.
        env: Variables added to its environment.
    """

    def __init__(self, command: Sequence[str], text: str, env: Mapping[str, str]) -> None:
        self.to = f"command {command[0]!r}"
        self._command = command
        self._text = text
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._aborted = False

    def run(self) -> None:
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=_STDERR,
            env={**os.environ, **self._env},
            start_new_session=True,
        ) as self._process:
            if self._aborted:
                self.abort()
            self._process.communicate(self._text.encode())
        if self._process.returncode:
            raise DeliveryError(f"exit code {self._process.returncode}")

    def abort(self) -> None:
        self._aborted = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


class MailDelivery:
    """Hands a mail to a mail server; an abort ends the connection.

    Args:
        mail: The mail; its headers say from whom and to whom.
        host: The server.
        port: Its port.
        timeout: How long the server may take for an answer, in seconds: what ends the wait for
            a connection, which cannot be aborted. It should be more than the deadline.
    """

    def __init__(self, mail: EmailMessage, host: str, port: int, timeout: float) -> None:
        self.to = f"mail server {host}:{port}"
        self._mail = mail
        self._address = host, port
        self._timeout = timeout
        self._connection: socket.socket | None = None
        self._aborted = False

    def run(self) -> None:
        # Connected here and not by smtplib, so that there is no moment that `abort` misses.
        with socket.create_connection(self._address, self._timeout) as self._connection:
            if not self._aborted:
                self._post(self._connection)

    def _post(self, connection: socket.socket) -> None:
        smtp = smtplib.SMTP()
        smtp.sock = connection
        try:
            code, text = smtp.getreply()
            if code != 220:
                raise smtplib.SMTPConnectError(code, text)
            smtp.send_message(self._mail)
            with contextlib.suppress(OSError, smtplib.SMTPException):
                smtp.quit()  # the mail is the server's by now
        finally:
            smtp.close()

    def abort(self) -> None:
        self._aborted = True
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)


def make_mail(text: str, subject: str, sender: str, to: Sequence[str]) -> EmailMessage:
    """Make a mail of a text; without a sender it is circusplug at this host."""
    mail = EmailMessage()
    mail["Subject"] = " ".join(subject.split())
    mail["From"] = sender or f"circusplug@{socket.gethostname()}"
    mail["To"] = ", ".join(to)
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = make_msgid("circusplug", socket.gethostname())
    mail.set_content(text + "\n")
    return mail
