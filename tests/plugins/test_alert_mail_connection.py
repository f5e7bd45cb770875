# The connection to the mail server of Alert: the server refuses it, never answers, has several
# addresses, or is left before it has answered.

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from bundled import Journal, die, let_pass
from fixture_types import Run
from patience import PATIENCE
from smtp_server import Mailbox, alert, delivery, smtp

from circusplug.plugins import Alert


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
