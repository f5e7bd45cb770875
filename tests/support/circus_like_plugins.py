# Plugins written the ways that plugins for Circus are written, one idiom a class. They say
# what they do by casting ``say`` to circusd, so that a test sees it wherever they run.
# The tests also run this very text with one import changed, see `write_on_our_base`.
# ruff: noqa: SIM115, UP008 - existing plugins are written like that

from __future__ import annotations

import json
import os
import socket
import threading
import time

from circus.plugins import CircusPlugin
from circus.util import AsyncPeriodicCallback
from tornado import gen
from tornado.ioloop import IOLoop, PeriodicCallback


def write_on_our_base(directory):
    """Write this module with the import of the base class changed; returns its new name."""
    with open(__file__) as file:
        text = file.read()
    theirs = "\nfrom circus.plugins import"
    assert text.count(theirs) == 1
    with open(os.path.join(directory, "circusplug_like_plugins.py"), "w") as file:
        file.write(text.replace(theirs, "\nfrom circusplug import"))
    return "circusplug_like_plugins"


class Positional(CircusPlugin):
    """Names every argument and passes them on by position."""

    name = "positional"

    def __init__(self, endpoint, pubsub_endpoint, check_delay, ssh_server, **config):
        super().__init__(endpoint, pubsub_endpoint, check_delay, ssh_server, **config)
        self.word = config.get("word")

    def handle_init(self):
        self.cast("say", words=["init", self.word, self.config.get("word"), self.check_delay])

    def handle_recv(self, data):
        watcher_name, action, message = self.split_data(data)
        self.cast("say", words=[watcher_name, action, self.load_message(message)["process_pid"]])


class Star(CircusPlugin):
    """Passes on whatever comes, and takes its name from the options."""

    name = None

    def __init__(self, *args, **config):
        super(Star, self).__init__(*args, **config)
        self.name = config.get("name")

    def handle_init(self):
        self.cast("say", words=["init", self.name, self.config["word"]])

    def handle_recv(self, data):
        pass


class Dropper(CircusPlugin):
    """Drops its options on the way up, and passes the ssh server by name."""

    def __init__(self, endpoint, pubsub_endpoint, check_delay, ssh_server, **config):
        super(Dropper, self).__init__(endpoint, pubsub_endpoint, check_delay, ssh_server=ssh_server)
        self.word = config.get("word")

    def handle_init(self):
        self.cast("say", words=["init", self.word, dict(self.config)])

    def handle_recv(self, data):
        pass


class Initializer(CircusPlugin):
    """Overrides `initialize` and asks circusd at its end, as it asked in `handle_init`."""

    def handle_init(self):
        self.watchers = [self.call("list")["watchers"]]

    def initialize(self):
        super().initialize()
        self.watchers.append(self.call("list")["watchers"])
        self.cast("say", words=["initialized", self.watchers])

    def handle_recv(self, data):
        pass


class Timers(CircusPlugin):
    """Builds its periodic callbacks in `__init__`, and starts one of them there."""

    def __init__(self, *args, **config):
        super().__init__(*args, **config)
        self.early = PeriodicCallback(lambda: self.tick("early"), 10)
        self.early.start()
        self.late = AsyncPeriodicCallback(lambda: self.tick("late"), 10)
        self.loop.add_timeout(time.time() + 0.01, self.cast, "say", words=["timeout"])
        self.loop.add_callback(self.cast, "say", words=["callback"])

    def handle_init(self):
        self.late.start()
        self.coroutine = AsyncPeriodicCallback(self.tick_later, 10)
        self.coroutine.start()

    def handle_recv(self, data):
        pass

    def tick(self, word):
        # What a periodic callback looks up must be the loop that the plugin knows.
        current = getattr(IOLoop.current(), "asyncio_loop", None)
        self.cast("say", words=[word, current is getattr(self.loop, "asyncio_loop", self.loop)])

    @gen.coroutine
    def tick_later(self):
        yield gen.sleep(0.001)
        self.tick("coroutine")

    def handle_stop(self):
        self.early.stop()
        self.late.stop()
        self.coroutine.stop()
        self.cast("say", words=["stopped"])


class Failing(CircusPlugin):
    """Fails in a periodic callback, each time."""

    def handle_init(self):
        self.period = AsyncPeriodicCallback(self.look_after, 10)
        self.period.start()

    def look_after(self):
        raise LookupError("nothing to look after")

    def handle_stop(self):
        self.period.stop()

    def handle_recv(self, data):
        pass


class Listener(CircusPlugin):
    """Waits for datagrams on a socket of its own, which it forgets to take off the loop."""

    def handle_init(self):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.loop.add_handler(self.sock.fileno(), self.receive, IOLoop.READ)
        self.cast("say", words=["port", self.sock.getsockname()[1]])

    def receive(self, fd, events):
        text = self.sock.recvfrom(1024)[0].decode()
        self.cast("say", words=[text, fd == self.sock.fileno(), events == IOLoop.READ])

    def handle_stop(self):
        self.sock.close()

    def handle_recv(self, data):
        pass


class Threaded(CircusPlugin):
    """Asks and tells circusd from a thread of its own, which outlives the plugin."""

    def handle_init(self):
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        self.cast("say", words=["thread", self.call("numwatchers")["numwatchers"]])
        self.done.wait()
        self.outcomes = []
        for ask in (self.call, self.cast):
            try:
                self.outcomes.append(ask("list"))
            except Exception as error:
                self.outcomes.append(type(error).__name__)

    def handle_recv(self, data):
        pass


class Stopper(CircusPlugin):
    """Overrides `start` and `stop`, closes things in `stop`, and bears being stopped twice."""

    def __init__(self, *args, **config):
        super().__init__(*args, **config)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def start(self):
        self.started = ["started"]
        super().start()
        self.started.append("ended")

    def handle_recv(self, data):
        self.stop()
        self.stop()

    def handle_stop(self):
        self.cast("say", words=["handle_stop", self.started])

    def stop(self):
        self.sock.close()
        super(Stopper, self).stop()


class Namesakes(CircusPlugin):
    """Has attributes of its own under names that mean something to circusplug."""

    def __init__(self, *args, **config):
        super().__init__(*args, **config)
        self.topics = {"queue": 1}
        self.ignore_plugins = True
        self.watcher_name = "web"
        self.periodic = None
        self.logger = "mine"
        self._worker = threading.Thread(target=int)

    def handle_recv(self, data):
        self.cast("say", words=[self.split_data(data)[0], sorted(self.topics)])


class ByName(CircusPlugin):
    """Calls the base class by its name, everywhere."""

    def __init__(self, endpoint, pubsub_endpoint, check_delay, ssh_server=None, **config):
        CircusPlugin.__init__(
            self, endpoint, pubsub_endpoint, check_delay, ssh_server=ssh_server, **config
        )
        self.loop.add_timeout(time.time(), self.cast, "say", words=["timeout"])
        self.early = PeriodicCallback(lambda: self.cast("say", words=["early"]), 10)
        self.early.start()

    def start(self):
        CircusPlugin.start(self)

    def handle_init(self):
        CircusPlugin.handle_init(self)
        self.cast("say", words=["init", self.config.get("word")])

    def initialize(self):
        CircusPlugin.initialize(self)
        self.cast("say", words=["initialized", self.call("list")["watchers"]])

    def handle_recv(self, data):
        self.cast("say", words=[*self.split_data(data)[:2]])

    def handle_stop(self):
        CircusPlugin.handle_stop(self)
        self.early.stop()
        self.cast("say", words=["handle_stop"])

    def stop(self):
        CircusPlugin.stop(self)


class Recorder(CircusPlugin):
    """Writes each event of the watchers it is told to a file, and a last line when stopped."""

    name = "recorder"

    def __init__(self, *args, **config):
        super().__init__(*args, **config)
        self.filename = config["filename"]
        self.watchers = config["watchers"].split()

    def handle_init(self):
        self.file = open(self.filename, "a", buffering=1)
        self.write("init", os.getpid())

    def handle_recv(self, data):
        watcher_name, action, _ = self.split_data(data)
        if watcher_name in self.watchers:
            self.write(watcher_name, action)

    def write(self, *words):
        self.file.write(json.dumps(words) + "\n")

    def handle_stop(self):
        self.write("stop")
        self.file.close()
