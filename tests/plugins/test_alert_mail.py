# The mails of Alert: a real SMTP server gets them, refuses them, or never answers.

from __future__ import annotations

import contextlib
import queue
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from bundled import Journal, die, let_pass
from patience import PATIENCE

from circusplug import SpecError
from circusplug.plugins import Alert
from circusplug.plugins._delivery import DeliveryError
from circusplug.plugins._mail import MailDelivery, MailServer, make_mail
from circusplug.testing import FakeCircusd, RunningPlugin

Run = Callable[..., RunningPlugin]


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


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The TLS of a server whose certificate this system trusts."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return context


def alert(run_plugin: Run, port: int, **options: Any) -> RunningPlugin:
    options = {"mail_to": "ops@example.org", "smtp_port": port, "tries": 1, **options}
    return run_plugin(Alert, batch=0, well_again=0, smtp_host="127.0.0.1", **options)


def delivery(port: int = 25, host: str = "127.0.0.1") -> MailDelivery:
    mail = make_mail("text", "subject", "me@example.org", ["ops@example.org"])
    return MailDelivery(mail, MailServer(host, port), PATIENCE)


def test_a_mail_goes_out(fake_circusd: FakeCircusd, run_plugin: Run, journal: Journal) -> None:
    fake_circusd.add_watcher("My App")
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        running = alert(
            run_plugin,
            port,
            mail_to="ops@example.org, boss@example.org",
            mail_from="circus@example.org",
        )
        die(running, watcher="My App")
        envelope = mailbox.mails.get(timeout=PATIENCE)
        running.wait(lambda _: not running.plugin._outboxes[0].left)
    assert envelope.mail_from == "circus@example.org"
    assert envelope.rcpt_tos == ["ops@example.org", "boss@example.org"]
    assert isinstance(envelope.content, bytes)
    mail = message_from_bytes(envelope.content)
    assert mail["Subject"] == f"circus on {socket.gethostname()}: My App crashed"
    assert mail["To"] == "ops@example.org, boss@example.org"
    assert mail["Date"]
    assert mail["Message-ID"].startswith("<")
    assert " My App: a process (pid 7) died with exit code 3" in str(mail.get_payload())
    assert mailbox.logins == []
    assert "not sent" not in str(journal.messages)


def test_a_recipient_that_is_refused_is_told_and_the_others_have_the_mail(
    run_plugin: Run, journal: Journal
) -> None:
    mailbox = Mailbox(refused=("boss@example.org",))
    with smtp(mailbox) as port:
        die(alert(run_plugin, port, mail_to="ops@example.org, boss@example.org", tries=2))
        assert mailbox.mails.get(timeout=PATIENCE).rcpt_tos == ["ops@example.org"]
        journal.wait(
            f"alert not sent: mail server 127.0.0.1:{port}: "
            "boss@example.org is refused: 550 no such user; the others have it"
        )


def test_recipients_that_are_all_refused_are_told_and_not_tried_again(
    run_plugin: Run, journal: Journal
) -> None:
    mailbox = Mailbox(refused=("ops@example.org", "boss@example.org"))
    with smtp(mailbox) as port:
        die(alert(run_plugin, port, mail_to="ops@example.org, boss@example.org", tries=2))
        record = journal.wait("ops@example.org is refused: 550 no such user, boss@example.org is")
    assert "the others" not in record.getMessage()
    assert "next try" not in record.getMessage()


def test_a_server_that_refuses_for_now_is_tried_again(run_plugin: Run, journal: Journal) -> None:
    mailbox = Mailbox(refused=("ops@example.org",), answer="450 come back later")
    with smtp(mailbox) as port:
        running = alert(run_plugin, port, tries=2, retry_in=1000)
        die(running)
        journal.wait("not sent, next try in 1000 s")
        mailbox.refused = ()
        let_pass(running, 1000)
        assert mailbox.mails.get(timeout=PATIENCE).rcpt_tos == ["ops@example.org"]


@pytest.mark.parametrize(
    ("codes", "final"), [((550, 500), True), ((550, 450), False), ((499,), False)]
)
def test_if_one_recipient_is_refused_for_now_it_is_tried_again(
    codes: tuple[int, ...], final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def post() -> Any:
        raise smtplib.SMTPRecipientsRefused({f"{code}@b": (code, b"no") for code in codes})

    mail = delivery()
    monkeypatch.setattr(mail, "_post", post)
    with pytest.raises(DeliveryError) as caught:
        mail.run()
    assert caught.value.final is final


def test_a_server_that_goes_away_when_it_has_the_mail_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def quit_(_: smtplib.SMTP) -> None:
        raise smtplib.SMTPServerDisconnected("gone")

    monkeypatch.setattr(smtplib.SMTP, "quit", quit_)
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        delivery(port).run()
        assert len(mailbox.mails.get(timeout=PATIENCE).rcpt_tos) == 1


def test_a_mail_that_is_refused_is_told(run_plugin: Run, journal: Journal) -> None:
    with smtp(Mailbox(data="554 no")) as port:
        die(alert(run_plugin, port))
        journal.wait(f"alert not sent: mail server 127.0.0.1:{port}: (554, b'no')")


@pytest.mark.parametrize(("tls", "secure"), [("starttls", True), ("yes", True), ("no", False)])
def test_it_logs_in_if_there_is_a_user(
    tls: str, secure: bool, run_plugin: Run, certified: ssl.SSLContext
) -> None:
    mailbox = Mailbox()
    contexts = {"starttls": {"tls_context": certified}, "yes": {"tls": certified}, "no": {}}
    with smtp(mailbox, **contexts[tls]) as port:
        die(alert(run_plugin, port, smtp_user="me", smtp_password="secret", smtp_tls=tls))
        assert mailbox.mails.get(timeout=PATIENCE)
    assert mailbox.logins == [(b"me", secure)]


def test_with_a_user_a_password_is_not_sent_in_the_clear_unless_that_is_asked_for(
    run_plugin: Run, journal: Journal
) -> None:
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        die(alert(run_plugin, port, smtp_user="me", smtp_password="secret"))
        journal.wait("STARTTLS extension not supported by server")
    assert mailbox.logins == []


def test_a_wrong_password_is_told_without_it(run_plugin: Run, journal: Journal) -> None:
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        die(alert(run_plugin, port, smtp_user="me", smtp_password="hush", smtp_tls="no"))
        journal.wait("alert not sent")
    assert "Authentication credentials invalid" in str(journal.messages)
    assert "hush" not in str(journal.messages)


def test_a_certificate_that_nobody_trusts_is_refused(
    run_plugin: Run,
    journal: Journal,
    certified: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    mailbox = Mailbox()
    with smtp(mailbox, tls_context=certified) as port:
        die(alert(run_plugin, port, smtp_tls="starttls"))
        journal.wait("certificate verify failed")


def test_so_it_is_if_tls_is_there_from_the_start(
    run_plugin: Run,
    journal: Journal,
    certified: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        die(alert(run_plugin, listener.getsockname()[1], smtp_tls="yes"))
        connection, _ = listener.accept()
        with connection, pytest.raises(ssl.SSLError):
            certified.wrap_socket(connection, server_side=True)
        journal.wait("certificate verify failed")


def test_another_kind_of_tls_is_refused(run_plugin: Run) -> None:
    with pytest.raises(SpecError, match="'smtp_tls': 'ssl' is none of no, starttls, yes"):
        alert(run_plugin, 25, smtp_tls="ssl")


# A server that does not answer


def test_a_mail_server_that_refuses_the_connection_is_told(
    run_plugin: Run, journal: Journal
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    die(alert(run_plugin, port))
    journal.wait(f"mail server 127.0.0.1:{port}: [Errno 111] Connection refused")


def test_a_mail_server_that_says_nothing_is_left_at_the_deadline(
    run_plugin: Run, journal: Journal
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        running = alert(run_plugin, port, deadline="1000")
        die(running)
        connection, _ = listener.accept()
        with connection:
            let_pass(running, 1000)
            journal.wait(f"alert not sent: mail server 127.0.0.1:{port}: not done within 1000 s")
            assert connection.recv(1) == b""


@pytest.mark.parametrize("tls", ["no", "yes"])
def test_a_mail_on_its_way_does_not_outlive_the_plugin(run_plugin: Run, tls: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = alert(run_plugin, listener.getsockname()[1], deadline=1000, smtp_tls=tls)
        die(running)
        connection, _ = listener.accept()
        with connection:
            if tls == "yes":
                assert connection.recv(10_000)  # what TLS begins with
            running.stop()
            assert connection.recv(1) == b""


@contextlib.contextmanager
def never_accepting() -> Iterator[int]:
    """A port where connecting takes for ever, as the queue of the listener is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_stop_does_not_wait_for_a_mail_server_that_never_accepts(
    run_plugin: Run, journal: Journal
) -> None:
    with never_accepting() as port:
        running = alert(run_plugin, port, deadline=1000)
        die(running)
        journal.wait("web: a process (pid 7) died")
        running.stop()
    # That no thread is left is looked at after each test.


def test_a_connection_has_as_long_as_the_deadline_and_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = []

    class Poll:
        def register(self, *_: Any) -> None:
            pass

        def poll(self, milliseconds: float) -> list[Any]:
            waits.append(milliseconds)
            return []

    monkeypatch.setattr("select.poll", Poll)
    plugin: Any = Alert(mail_to="a@b", smtp_host="127.0.0.1", deadline=7)
    plugin.loop.close()
    (told,) = Alert.send_test(plugin.options)
    assert waits == [8000]
    assert told[1] == "no connection within 8 s"


def test_a_connection_that_does_not_come_to_stand_is_a_failure() -> None:
    with never_accepting() as port:
        mail = delivery(port)
        mail._timeout = 0.01
        with pytest.raises(TimeoutError, match=r"no connection within 0\.01 s"):
            mail.run()


def test_a_delivery_may_be_given_up_before_it_begins_and_after_it_is_over() -> None:
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        early, late = delivery(port), delivery(port)
        early.abort()
        with pytest.raises(ConnectionAbortedError):
            early.run()
        late.run()
        late.abort()
        assert len(mailbox.mails.get(timeout=PATIENCE).rcpt_tos) == 1
    assert mailbox.mails.empty()


def test_each_address_of_a_server_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()
    with smtp(mailbox) as port:
        kind = socket.AF_INET, socket.SOCK_STREAM, 0, ""
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda *_, **__: [(*kind, closed), (*kind, ("127.0.0.1", port))]
        )
        delivery(port, "mail.example.org").run()
        assert mailbox.mails.get(timeout=PATIENCE)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
        with pytest.raises(OSError, match=r"mail\.example\.org has no address"):
            delivery(port, "mail.example.org").run()


def test_a_name_that_takes_for_ever_to_look_up_keeps_no_process_from_ending() -> None:
    program = (
        "import socket, threading\n"
        "from circusplug import Arbiter\n"
        "from circusplug.plugins import Alert\n"
        "from circusplug.testing import FakeCircusd\n"
        "asked = threading.Event()\n"
        "def look_up(*_, **__):\n"
        "    asked.set()\n"
        "    threading.Event().wait()\n"
        "socket.getaddrinfo = look_up\n"
        "plugin = {'use': Alert, 'batch': 0, 'mail_to': 'a@b', 'deadline': 1000}\n"
        "with FakeCircusd() as circusd:\n"
        "    with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint):\n"
        "        circusd.wait_subscribed()\n"
        "        circusd.publish('web', 'reap', process_pid=7, exit_code=3)\n"
        "        asked.wait()\n"
        "print('stopped', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.communicate(timeout=PATIENCE) == (b"stopped\n", None)
        finally:
            process.kill()
