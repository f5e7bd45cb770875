# A process that is forked while other threads print and log can print and log as well: no stream
# or handler of ours leaves it a lock that nobody gives back.

from __future__ import annotations

from pathlib import Path

import pytest
from command import Running, plugin, write_ini
from patience import PATIENCE

from circusplug.testing import FakeCircusd

#: How often each way to fork is tried. Where a lock is left, one in about thirty hangs.
FORKS = 30

FORKING = """\
import logging, multiprocessing, os, sys, threading
from pathlib import Path
from circusplug._logs import mark_output
from forkers import exit_status
from tellers import Teller

class Forks(Teller):
    def handle_init(self):
        if self.config["marked"] == "True":
            mark_output()
        over = threading.Event()
        noise = [threading.Thread(target=self.make_noise, args=(over,)) for _ in range(2)]
        for thread in noise:
            thread.start()
        self.loop.call_soon(self.fork, over, noise)

    def make_noise(self, over):
        while not over.is_set():
            self.speak()

    def speak(self):
        print("on standard output")
        print("on standard error", file=sys.stderr)
        self.logger.warning("to its log")
        logging.getLogger("elsewhere").warning("to another log")

    def fork(self, over, noise):
        ends = []
        context = multiprocessing.get_context("fork")
        while len(ends) < 2 * int(self.config["forks"]) and set(ends) <= {0, 3}:
            pid = os.fork()
            if pid == 0:
                self.speak()
                sys.exit(3)
            ends.append(exit_status(pid))
            process = context.Process(target=self.speak)
            process.start()
            process.join(float(self.config["patience"]))
            if process.exitcode is None:
                process.kill()
                process.join()
            ends.append(process.exitcode)
        over.set()
        for thread in noise:
            thread.join()
        Path(self.config["result"]).write_text(str(sorted(set(ends))))
        self.stop()
"""


@pytest.mark.parametrize("isolate", ["no", "yes"], ids=["thread", "process"])
def test_a_child_that_is_forked_while_others_print_can_print(isolate: str, tmp_path: Path) -> None:
    (tmp_path / "forking.py").write_text(FORKING)
    (tmp_path / "patience.py").write_text(f"PATIENCE = {PATIENCE}\n")
    for module in "forkers", "troublemakers":
        source = Path(__file__).parents[1] / "support" / f"{module}.py"
        (tmp_path / f"{module}.py").write_text(source.read_text())
    result = tmp_path / "result"
    section = plugin(
        "forks",
        "forking.Forks",
        isolate=isolate,
        marked=isolate == "no",
        result=str(result),
        forks=str(FORKS),
        patience=str(PATIENCE),
        host_stall_timeout="0",
    )
    with FakeCircusd() as circusd:
        ends = circusd.endpoint, circusd.pubsub_endpoint
        path = write_ini(tmp_path, *ends, "[circusplug]\nexit_when_done = yes\n", section)
        with Running(tmp_path, "run", path) as command:
            assert command.end() == 0, command.output[-3000:]
        assert "Exception ignored" not in command.output
    assert result.read_text() == "[0, 3]"
