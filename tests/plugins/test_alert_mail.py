# The mails of Alert: a real SMTP server gets them, or refuses them. Servers that do not answer are
# in test_alert_mail_connection.py.

from __future__ import annotations

import smtplib
import socket
import ssl
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
import trustme
from bundled import Journal, die, let_pass
from fixture_types import Run
from patience import PATIENCE
from smtp_server import Mailbox, alert, delivery, smtp

from circusplug import SpecError
from circusplug.plugins._delivery import DeliveryError
from circusplug.testing import FakeCircusd


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The TLS of a server whose certificate this system trusts."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return context


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
