# A real SMTP server for the mails of Alert, and what sends them: a plugin, or one delivery.
#
# Owner: aiosmtpd's own thread has the mailbox's methods called; tests take mails from its queue.

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from fixture_types import Run
from patience import PATIENCE

from circusplug.plugins import Alert
from circusplug.plugins._mail import MailDelivery, MailServer, make_mail
from circusplug.testing import RunningPlugin


class Mailbox:
    """Takes mails, but not for everybody; the handler of an aiosmtpd server."""

    def __init__(
        self,
        refused: tuple[str, ...] = (),
        data: str = "250 taken",
        answer: str = "550 no such user",
    ) -> None:
        self.mails: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
        self.logins: list[tuple[bytes, bool]] = []
        self.refused = refused
        self._answer = answer
        self._data = data

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return self._answer
        envelope.rcpt_tos.append(address)
        return "250 fine"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self._data.startswith("250"):
            self.mails.put(envelope)
        return self._data

    def log_in(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        secure = server.transport.get_extra_info("sslcontext") is not None
        self.logins.append((data.login, secure))
        return AuthResult(success=data.password == b"secret", handled=False)


class Server(Controller):
    """An SMTP server that ends when its clients have gone, as aiosmtpd forgets their sockets."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connected = 0
        self._changed = threading.Condition()

    def factory(self) -> SMTP:
        self._count(1)
        protocol = super().factory()
        connection_lost = protocol.connection_lost

        def count_lost(error: Exception | None) -> None:
            connection_lost(error)
            self._count(-1)

        protocol.connection_lost = count_lost
        return protocol

    def _count(self, change: int) -> None:
        with self._changed:
            self._connected += change
            self._changed.notify_all()

    def stop(self, no_assert: bool = False) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: not self._connected, PATIENCE)
        super().stop(no_assert)


@contextlib.contextmanager
def smtp(mailbox: Mailbox, tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[int]:
    """An SMTP server; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    controller = Server(
        mailbox,
        "127.0.0.1",
        port,
        ssl_context=tls,
        authenticator=mailbox.log_in,
        auth_require_tls=False,
        **options,
    )
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def alert(run_plugin: Run, port: int, **options: Any) -> RunningPlugin:
    options = {"mail_to": "ops@example.org", "smtp_port": port, "tries": 1, **options}
    return run_plugin(Alert, batch=0, well_again=0, smtp_host="127.0.0.1", **options)


def delivery(port: int = 25, host: str = "127.0.0.1") -> MailDelivery:
    mail = make_mail("text", "subject", "me@example.org", ["ops@example.org"])
    return MailDelivery(mail, MailServer(host, port), PATIENCE)
