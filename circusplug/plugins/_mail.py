# Hands a mail to a mail server in a way that can be given up at any moment.
#
# Owner: the thread that `run` is called on; `_lock` guards what `abort` needs from another one.

from __future__ import annotations

import contextlib
import os
import select
import smtplib
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

from ._delivery import DeliveryError

#: From this SMTP code on it is of no use to try again.
_FOR_GOOD = 500


@dataclass(frozen=True)
class MailServer:
    """Where mails are handed in.

    Attributes:
        host: Its name or address.
        port: Its port.
        user: Who to log in as; empty: nobody.
        password: The password of `user`.
        tls: ``yes`` from the start, ``starttls``, or ``no``.
    """

    host: str
    port: int
    user: str = ""
    password: str = ""
    tls: str = "no"


class MailDelivery:
    """Hands a mail to a mail server; an abort ends the connection.

    Args:
        mail: The mail; its headers say from whom and to whom.
        server: The server.
        timeout: How long the server may take for a connection and for each answer, in seconds.
    """

    def __init__(self, mail: EmailMessage, server: MailServer, timeout: float) -> None:
        self.to = f"mail server {server.host}:{server.port}"
        self._mail = mail
        self._server = server
        self._timeout = timeout
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._aborted = False

    def run(self) -> None:
        try:
            refused = self._post()
        except smtplib.SMTPRecipientsRefused as error:
            final = all(code >= _FOR_GOOD for code, _ in error.recipients.values())
            raise DeliveryError(_describe_refused(error.recipients), final) from None
        finally:
            self._hold(None)
        if refused:
            text = f"{_describe_refused(refused)}; the others have it"
            raise DeliveryError(text, final=True)

    def _post(self) -> Mapping[str, tuple[int, bytes]]:
        """Hand it in; returns the recipients that were refused, if some others were not."""
        server = self._server
        smtp = _Smtp(server, self._timeout, self._connect)
        try:
            if server.tls == "starttls":
                smtp.starttls(context=ssl.create_default_context())
            if server.user:
                smtp.login(server.user, server.password)
            refused = smtp.send_message(self._mail)
            with contextlib.suppress(OSError, smtplib.SMTPException):
                smtp.quit()  # the mail is the server's by now
        finally:
            smtp.close()
        return refused

    def _connect(self, host: str, port: int) -> socket.socket:
        """As `socket.create_connection`, but there is no moment that `abort` misses."""
        failure = OSError(f"{host} has no address")
        for *kind, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            connection = socket.socket(*kind)
            try:
                connection.setblocking(False)
                self._hold(connection, address)
                poll = select.poll()
                poll.register(connection, select.POLLOUT)
                if not poll.poll(self._timeout * 1000):
                    raise TimeoutError(f"no connection within {self._timeout:g} s")
                if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(number, os.strerror(number))
            except OSError as error:
                connection.close()
                failure = error
            else:
                connection.settimeout(self._timeout)
                return connection
        raise failure

    def _hold(self, connection: socket.socket | None, address: Any = None) -> None:
        """Begin to connect, with a second handle for `abort`; TLS takes the first one away."""
        with self._lock:
            if self._line is not None:
                self._line.close()
                self._line = None
            if connection is not None:
                if self._aborted:
                    raise ConnectionAbortedError("it was given up")
                self._line = connection.dup()
                connection.connect_ex(address)

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            if self._line is not None:
                with contextlib.suppress(OSError):
                    self._line.shutdown(socket.SHUT_RDWR)


class _Smtp(smtplib.SMTP):
    def __init__(self, server: MailServer, timeout: float, connect: Any) -> None:
        self._connect = connect
        self._tls = server.tls == "yes"
        super().__init__(server.host, server.port, timeout=timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection: socket.socket = self._connect(host, port)
        if self._tls:
            return ssl.create_default_context().wrap_socket(connection, server_hostname=host)
        return connection


def _describe_refused(refused: Mapping[str, tuple[int, bytes]]) -> str:
    return ", ".join(
        f"{address} is refused: {code} {' '.join(text.decode(errors='replace').split())}"
        for address, (code, text) in refused.items()
    )


def make_mail(text: str, subject: str, sender: str, to: Sequence[str]) -> EmailMessage:
    """Make a mail of a text; without a sender it is circusplug at this host."""
    mail = EmailMessage()
    mail["Subject"] = subject
    mail["From"] = sender or f"circusplug@{socket.gethostname()}"
    mail["To"] = ", ".join(to)
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = make_msgid("circusplug", socket.gethostname())
    mail.set_content(text + "\n")
    return mail
