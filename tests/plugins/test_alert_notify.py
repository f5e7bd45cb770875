# Alerts by apprise: a real HTTP server gets them, refuses them, or hangs.

from __future__ import annotations

import http.server
import importlib.util
import json
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from bundled import Journal, die, let_pass
from fixture_types import Run
from patience import PATIENCE

from circusplug import SpecError
from circusplug.plugins import Alert
from circusplug.plugins._notify import _overheard
from circusplug.testing import RunningPlugin

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("apprise") is None, reason="no apprise here"),
    # apprise imports it to find out whether it is there.
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
]


class Web(http.server.ThreadingHTTPServer):
    """Takes notifications as JSON; answers as told, or only when released."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.taken: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        self.status = 200
        self.release = threading.Event()
        self.release.set()

    @property
    def url(self) -> str:
        return f"json://me:hush@127.0.0.1:{self.server_address[1]}/path"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Web

    def do_POST(self) -> None:
        self.server.taken.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.release.wait(PATIENCE)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


def alert(run_plugin: Run, *urls: str, **options: object) -> RunningPlugin:
    options = {"batch": 0, "well_again": 0, "quiet": 0, "retry_in": 1000, **options}
    return run_plugin(Alert, notify=", ".join(urls), **options)


def test_a_message_is_sent_to_each_url(run_plugin: Run, web: Web) -> None:
    running = alert(run_plugin, web.url, web.url + "2", subject="{summary}", well_again=10_000)
    die(running)
    for _ in range(2):
        sent = web.taken.get(timeout=PATIENCE)
        assert sent["title"] == "web crashed"
        assert sent["message"].endswith("web: a process (pid 7) died with exit code 3")
        assert sent["type"] == "warning"
    running.wait(lambda _: not any(box.left for box in running.plugin._outboxes), PATIENCE)
    let_pass(running, 10_000)
    assert web.taken.get(timeout=PATIENCE)["type"] == "success"


def test_a_server_that_refuses_is_tried_again_and_no_secret_is_shown(
    run_plugin: Run, web: Web, journal: Journal, capfd: pytest.CaptureFixture[str]
) -> None:
    web.status = 503
    running = alert(run_plugin, web.url)
    die(running)
    record = journal.wait("alert not sent, next try in 1000 s: notify 1 (json): ")
    assert "503" in record.getMessage()
    web.status = 200
    let_pass(running, 1000)
    running.wait(lambda _: not running.plugin._outboxes[0].left, PATIENCE)
    assert web.taken.qsize() == 2
    assert "hush" not in str(journal.messages)
    assert capfd.readouterr() == ("", "")


def test_a_server_that_hangs_is_left_at_the_deadline(
    run_plugin: Run, web: Web, journal: Journal
) -> None:
    web.release.clear()
    running = alert(run_plugin, web.url, deadline=1000, tries=1)
    die(running)
    web.taken.get(timeout=PATIENCE)
    let_pass(running, 1000)
    journal.wait("alert not sent: notify 1 (json): not done within 1000 s")


def test_what_apprise_says_is_taken_on_this_thread_and_for_this_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger("apprise")
    with _overheard() as said:
        logger.debug("a detail")
        logger.warning("refused")
        other = threading.Thread(target=logger.warning, args=("of another",))
        other.start()
        other.join()
    logger.warning("later")
    assert said == ["refused"]
    assert caplog.messages == ["of another", "later"]


def test_an_env_name_is_looked_up(
    run_plugin: Run, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER", web.url)
    die(alert(run_plugin, "env:PAGER"))
    assert web.taken.get(timeout=PATIENCE)


@pytest.mark.parametrize("url", ["s3cret", "slack://", "nothing://s3cret/"])
def test_a_url_that_apprise_does_not_know_is_refused_and_not_shown(
    url: str, run_plugin: Run, caplog: pytest.LogCaptureFixture
) -> None:
    told = "'notify': URL number 2 is none that apprise knows"
    with caplog.at_level(logging.DEBUG), pytest.raises(SpecError, match=told):
        alert(run_plugin, "json://localhost", url)
    assert "s3cret" not in caplog.text


def test_without_apprise_the_start_and_the_check_say_what_to_install(
    run_plugin: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "apprise" else found(name)
    )
    told = r"'notify' needs apprise: pip install 'circusplug\[notify\]'$"
    with pytest.raises(SpecError, match=told):
        Alert.check_config({"notify": "json://localhost"})
    with pytest.raises(SpecError, match=told):
        alert(run_plugin, "json://localhost")
    Alert.check_config({})


def test_apprise_is_imported_only_if_it_is_asked_for() -> None:
    program = (
        "import sys\n"
        "from circusplug.plugins import Alert\n"
        "Alert(command='true', mail_to='a@b')\n"
        "assert 'apprise' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
