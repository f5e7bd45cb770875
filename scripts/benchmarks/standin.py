# Stands in for circusd: a process of its own that answers any command with an "ok" and
# publishes events as it is told to, on a socket per contender, so that only the one whose
# turn it is has anything to do.

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

import zmq

from .processes import end

#: circusd's own, ZMQ's default; 0 keeps everything.
CIRCUSD_SNDHWM = 1000
TOPIC = b"watcher.web_worker.spawn"
PAYLOAD = b'{"process_pid": 12345, "time": 1762345678.1234567}'


class StandIn:
    """The bench's side of it; a context manager.

    Args:
        publishers: How many event sockets to have.
        sndhwm: How many events each keeps for a slow subscriber.
    """

    def __init__(self, publishers: int, sndhwm: int = 0) -> None:
        self._publishers = publishers
        self._sndhwm = sndhwm
        self._context = zmq.Context()
        self.endpoint = ""
        self.pubsub: list[str] = []

    def __enter__(self) -> StandIn:
        self._control = self._context.socket(zmq.PAIR)
        port = self._control.bind_to_random_port("tcp://127.0.0.1")
        options = port, self._publishers, self._sndhwm
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.standin", *map(str, options)]
        )
        self.pid = self._process.pid
        hello = self._receive()
        self.endpoint, self.pubsub = hello["endpoint"], hello["pubsub"]
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
        self._context.destroy(0)

    def wait_subscribed(self, publisher: int, count: int = 1) -> None:
        """Wait until a publisher has that many subscriptions."""
        self._ask({"do": "wait", "publisher": publisher, "count": count})

    def flood(self, publisher: int, count: int) -> None:
        """Publish events as fast as possible; returns when all are on their way."""
        self._ask({"do": "flood", "publisher": publisher, "count": count})

    def bursts(self, publishers: list[int], count: int, size: int, pause: float) -> None:
        """Publish events in bursts with a pause between, in seconds, on several sockets."""
        self._ask(
            {"do": "bursts", "publishers": publishers, "count": count, "size": size, "pause": pause}
        )

    def pace(self, publisher: int, count: int, rate: float) -> None:
        """Publish time-stamped events, *rate* a second; returns when all are sent."""
        self.begin_pace(publisher, count, rate)
        self.end_pace()

    def begin_pace(self, publisher: int, count: int, rate: float) -> None:
        """The same, but return at once; `end_pace` waits."""
        order = {"do": "pace", "publisher": publisher, "count": count, "rate": rate}
        self._control.send_json(order)

    def end_pace(self) -> None:
        """Wait until all is sent that `begin_pace` began."""
        self._receive()

    def _ask(self, order: dict[str, Any]) -> None:
        self._control.send_json(order)
        self._receive()

    def _receive(self) -> Any:
        if not self._control.poll(60_000):
            raise TimeoutError("the process that stands in for circusd does not answer")
        return self._control.recv_json()


def serve(control_port: int, count: int, sndhwm: int) -> None:
    """Be the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # a connection takes a descriptor
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    control = context.socket(zmq.PAIR)
    publishers = [context.socket(zmq.XPUB) for _ in range(count)]
    ports = []
    for socket in publishers:
        socket.setsockopt(zmq.SNDHWM, sndhwm)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        ports.append(socket.bind_to_random_port("tcp://127.0.0.1"))
    router_port = router.bind_to_random_port("tcp://127.0.0.1")
    control.connect(f"tcp://127.0.0.1:{control_port}")
    control.send_json(
        {
            "endpoint": f"tcp://127.0.0.1:{router_port}",
            "pubsub": [f"tcp://127.0.0.1:{port}" for port in ports],
        }
    )
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(control, zmq.POLLIN)
    while True:
        for socket, _ in poller.poll():
            if socket is router:
                _answer(router)
            else:
                _obey(control.recv_json(), publishers)
                control.send_json({"status": "done"})


def _answer(router: Any) -> None:
    peer, frame = router.recv_multipart()
    request = json.loads(frame)
    if request.get("msg_type") != "cast":
        reply = {"id": request.get("id"), "status": "ok", "time": time.time(), "numprocesses": 1}
        router.send(peer, zmq.SNDMORE)
        router.send(json.dumps(reply).encode())


def _obey(order: dict[str, Any], publishers: list[Any]) -> None:
    if order["do"] == "wait":
        for _ in range(order["count"]):
            while publishers[order["publisher"]].recv()[:1] != b"\x01":
                pass
    elif order["do"] == "flood":
        _publish([publishers[order["publisher"]]], order["count"])
    elif order["do"] == "bursts":
        sockets = [publishers[number] for number in order["publishers"]]
        for _ in range(order["count"] // order["size"]):
            began = time.monotonic()
            _publish(sockets, order["size"])
            time.sleep(max(0.0, began + order["pause"] - time.monotonic()))
    else:
        _pace(publishers[order["publisher"]], order["count"], 1 / order["rate"])


def _publish(sockets: list[Any], count: int) -> None:
    sends = [socket.send for socket in sockets]
    for _ in range(count):
        for send in sends:
            send(TOPIC, zmq.SNDMORE)
            send(PAYLOAD)


def _pace(socket: Any, count: int, interval: float) -> None:
    due = time.monotonic()
    for _ in range(count):
        due += interval
        time.sleep(max(0.0, due - time.monotonic()))
        socket.send(TOPIC, zmq.SNDMORE)
        socket.send(b'{"time": %d}' % time.monotonic_ns())


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
