# A plugin without a host, in a process of its own: started by hand, by Circus's circus-plugin or by
# ours. The contract is that of a host, bounds included.

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from command import COMMAND, Running, environment
from patience import PATIENCE

from circusplug.testing import FakeCircusd

#: Says which thread each hook runs on. What it hangs in, it says before.
PLUGIN = """\
import sys, threading, time
from circusplug import CircusPlugin
from circusplug._plugin import standalone, stop_guard

# So that what hangs need not be waited for so long.
standalone.GRACEFUL_TIMEOUT = 0.2
standalone.STOP_TIMEOUT = stop_guard._LEAST = 0.5

class Contract(CircusPlugin):
    name = "contract"

    def say(self, what):
        on_main = threading.current_thread() is threading.main_thread()
        print(what, "on main" if on_main else "on its thread", flush=True)

    def handle_init(self):
        self.say("init")
        self.made_on = threading.get_ident()

    def handle_connect(self):
        self.say("connect")

    def handle_recv(self, data):
        self.say(self.split_data(data)[1])
        if self.split_data(data)[1] == "block":
            time.sleep(1000)

    def handle_stop(self):
        self.say("stop")
        if self.config.get("hang"):
            time.sleep(1000)

if __name__ == "__main__":
    try:
        Contract(*sys.argv[1:3]).start()
    finally:
        print("started returned", flush=True)
"""
CIRCUS = [sys.executable, "-c", "from circus.plugins import main; main()"]
QUIET = environment(PYTHONWARNINGS="")


@pytest.fixture(params=["by hand", "circus's circus-plugin", "ours"])
def started(request: pytest.FixtureRequest, tmp_path: Path, fake_circusd: FakeCircusd) -> Running:
    """The plugin above, in a process, started in one of the ways."""
    (tmp_path / "contract.py").write_text(PLUGIN)
    ends = fake_circusd.endpoint, fake_circusd.pubsub_endpoint
    options = ["--endpoint", ends[0], "--pubsub", ends[1], "contract.Contract"]
    how = {
        "by hand": ([sys.executable, "contract.py"], [*ends]),
        "circus's circus-plugin": (CIRCUS, options),
        "ours": (COMMAND, ["plugin", "--config", "host.graceful_timeout:0.2", *options]),
    }
    program, arguments = how[request.param]
    env = {**QUIET, "PYTHONPATH": str(tmp_path)}
    return Running(tmp_path, *arguments, program=program, env=env)


def test_every_hook_runs_on_the_thread_it_should(
    started: Running, fake_circusd: FakeCircusd
) -> None:
    with started as command:
        command.wait_for_all("init on its thread", "connect on its thread")
        fake_circusd.wait_subscribed(1, PATIENCE)
        fake_circusd.publish("web", "spawn")
        command.wait_for("spawn on its thread")
        command.signal(signal.SIGTERM)
        assert command.end() in (0, 143)
    assert sum(line.endswith("stop on main\n") for line in command.lines) == 1


def test_a_callback_that_blocks_is_left_behind_and_handle_stop_runs(
    started: Running, fake_circusd: FakeCircusd
) -> None:
    with started as command:
        fake_circusd.wait_subscribed(1, PATIENCE)
        fake_circusd.publish("web", "block")
        command.wait_for("block on its thread")
        command.signal(signal.SIGTERM)
        command.end()
    assert sum(line.endswith("stop on main\n") for line in command.lines) == 1


def test_a_handle_stop_that_waits_for_ever_is_ended(
    tmp_path: Path, fake_circusd: FakeCircusd
) -> None:
    (tmp_path / "contract.py").write_text(PLUGIN)
    options = ["--endpoint", fake_circusd.endpoint, "--pubsub", fake_circusd.pubsub_endpoint]
    env = {**QUIET, "PYTHONPATH": str(tmp_path)}
    arguments = [*options, "--config", "hang:yes", "contract.Contract"]
    with Running(tmp_path, *arguments, program=CIRCUS, env=env) as command:
        command.wait_for("init on its thread")
        command.signal(signal.SIGTERM)
        assert command.end() == 0
    assert "stop on main\n" in command.lines
    assert "it did not return within" in command.output


def test_ctrl_c_stops_one_started_by_hand_cleanly(
    tmp_path: Path, fake_circusd: FakeCircusd
) -> None:
    (tmp_path / "contract.py").write_text(PLUGIN)
    ends = fake_circusd.endpoint, fake_circusd.pubsub_endpoint
    with Running(tmp_path, *ends, program=[sys.executable, "contract.py"], env=QUIET) as command:
        command.wait_for("connect on its thread")
        command.signal(signal.SIGINT)
        command.end()
    assert sum(line.endswith("stop on main\n") for line in command.lines) == 1
    assert "started returned\n" in command.lines


@pytest.mark.parametrize(
    "use", ["circusplug.plugins.Logger", "circusplug.plugins.Alert",
            "circusplug.plugins.LoadScaler"],
)  # fmt: skip
@pytest.mark.parametrize("program", [CIRCUS, [*COMMAND, "plugin"]], ids=["circus", "ours"])
def test_each_bundled_plugin_runs_by_both_commands(
    use: str, program: list[str], tmp_path: Path
) -> None:
    config = {
        "circusplug.plugins.Logger": "filename:events.log",
        "circusplug.plugins.Alert": "command:true",
        "circusplug.plugins.LoadScaler": "watcher:web:::period:0.05",
    }[use]
    with FakeCircusd(["web"]) as circusd:
        ends = "--endpoint", circusd.endpoint, "--pubsub", circusd.pubsub_endpoint
        arguments = [*ends, "--config", config, use]
        with Running(tmp_path, *arguments, program=program, env=QUIET) as command:
            if use.endswith("LoadScaler"):  # which subscribes to nothing
                circusd.wait_command("stats", timeout=PATIENCE)
            else:
                circusd.wait_subscribed(1, PATIENCE)
                circusd.publish("web", "spawn", process_pid=1)
            command.signal(signal.SIGTERM)
            assert command.end() == 0
            assert "Traceback" not in command.output
