# A plugin of which everything fails now and then, and a journal of what became of each instance. A
# module of its own, since isolated plugins import it.

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from troublemakers import released

from circusplug import CallError, CircusPlugin

Frames = tuple[bytes, bytes]

_instances = itertools.count()


class Failing(CircusPlugin):
    """Fails at random, or on request: an event's action says how, ``for`` in it says who."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.me = f"{config['name']} {os.getpid()}.{next(_instances)}"
        # Each instance fails differently, and all of it follows from the seed.
        self.note("made")
        with open(config["journal"]) as journal:
            age = journal.read().count(f" {config['name']} ")
        self.chance = random.Random(f"{config['seed']} {config['name']} {age}")
        self.fails("constructor")

    def note(self, what: str) -> None:
        """Write a line to the journal, whole however many write to it."""
        with open(self.config["journal"], "ab", buffering=0) as journal:
            journal.write(f"{what}: {self.me} \n".encode())

    def fails(self, where: str, chance: float = 0.15) -> None:
        if self.chance.random() < chance:
            self.note(f"{where} fails")
            raise LookupError(where)

    def handle_init(self) -> None:
        self.fails("handle_init")
        if self.chance.random() < 0.5:
            try:
                self.call("list", timeout=0.2)
            except CallError:
                self.note("away")
                raise
        self.note("init")

    def handle_recv(self, data: Frames) -> None:
        event = self.parse_event(data)
        if event.payload.get("for") == self.config["name"]:
            self.note(event.action)
            getattr(self, f"do_{event.action}")()

    def handle_stop(self) -> None:
        self.note("stop")
        if self.chance.random() < 0.2:
            time.sleep(0.05)
        self.fails("handle_stop", 0.3)

    def do_raise(self) -> None:
        raise ValueError("on purpose")

    def do_exit(self) -> None:
        sys.exit(self.chance.randrange(3))

    def do_die(self) -> None:
        os._exit(7)

    def do_kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def do_hang(self) -> None:
        released.wait(float(self.config["hang"]))


class Journal:
    """What the plugins have written."""

    def __init__(self, path: Path) -> None:
        self.by_instance: dict[str, Counter[str]] = {}
        self.by_name: dict[str, Counter[str]] = {}
        for line in path.read_text().splitlines():
            what, _, who = line.strip().partition(": ")
            self.by_instance.setdefault(who, Counter())[what] += 1
            self.by_name.setdefault(who.partition(" ")[0], Counter())[what] += 1
