# The least that as many subscribers can be: a thread with the two sockets and nothing else.
# With libzmq's heartbeats on, to tell what an idle connection would cost with them.

from __future__ import annotations

import sys
import threading
import time

import zmq

#: Milliseconds.
HEARTBEAT = 2000


def main(count: int, endpoint: str, pubsub: str, report: str) -> None:
    """Run so many threads, until killed."""
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 8192)
    for _ in range(count):
        threading.Thread(target=wait, args=(context, endpoint, pubsub, report)).start()


def wait(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, pubsub: str, report: str) -> None:
    """Receive and forget, as a subscriber with a command socket beside it."""
    sub, dealer = context.socket(zmq.SUB), context.socket(zmq.DEALER)
    for socket in (sub, dealer):
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT)
    sub.setsockopt(zmq.SUBSCRIBE, b"watcher.")
    sub.connect(pubsub)
    dealer.connect(endpoint)
    with open(report, "a") as file:
        file.write(f"ready {time.monotonic()} 0\n")
    while True:
        sub.recv()
        sub.recv()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
