# Plugins that behave badly on request, and some that behave well and tell what happens to
# them: by the command ``say``, which a FakeCircusd keeps wherever the plugin runs. A module of
# its own, and a light one, since each isolated plugin's process imports it.

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

from circusplug import CallError, CallTimeout, CircusPlugin, PluginStateError
from circusplug._isolated.messages import STATE_LIMIT

Frames = tuple[bytes, bytes]

#: Ends the waiting of all plugins of this process that hang on a thread.
released = threading.Event()


def _leads_to_host(fd: int) -> bool:
    """Whether a descriptor is a socket that another process has made."""
    try:
        with socket.socket(fileno=os.dup(fd)) as found:
            maker = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED)
            return found.family is socket.AF_UNIX and maker != os.getpid()
    except OSError:
        return False


def here() -> str:
    """Say which kind of thread this is."""
    return "main" if threading.current_thread() is threading.main_thread() else "other"


class Talker(CircusPlugin):
    """Tells what happens to it, under its own name."""

    raise_call_errors = False

    def say(self, what: str, **more: Any) -> Any:
        name = self.config.get("name")
        return self.call("say", what=what, plugin=name, pid=os.getpid(), on=here(), **more)

    def handle_init(self) -> None:
        self.say("init")

    def handle_recv(self, data: Frames) -> None:
        pass

    def handle_stop(self) -> None:
        self.say("stop")


class Caller(Talker):
    """Calls, casts, and meets deadlines."""

    def handle_recv(self, data: Frames) -> None:
        event = self.parse_event(data)
        if event.action == "ask":
            reply = self.call("numprocesses", name="web")
            self.cast("say", what="answer", number=reply["numprocesses"])
        elif event.action == "wait":
            try:
                self.call("dstats", timeout=0.05)
            except CallTimeout as error:
                self.say("timeout", error=str(error))

    def handle_stop(self) -> None:
        self.say("number", number=self.call("numprocesses", name="web")["numprocesses"])
        self.cast("incr", name="web")
        self.say("stop")


class Surveyor(Talker):
    """Tells what its process is like."""

    def handle_init(self) -> None:
        for key in ("import", "setting"):
            if self.config.get(key):
                __import__(self.config[key])
        self.say(
            "surroundings",
            cwd=os.getcwd(),
            uid=os.getuid(),
            gid=os.getgid(),
            groups=os.getgroups(),
            nice=os.getpriority(os.PRIO_PROCESS, 0),
            env={key: os.environ.get(key) for key in ("COLOUR", "HOME")},
            nofile=resource.getrlimit(resource.RLIMIT_NOFILE),
            config={key: value for key, value in self.config.items() if isinstance(value, str)},
            path=sys.path[0],
        )


class Printer(Talker):
    """Prints and logs, in each way there is."""

    def handle_recv(self, data: Frames) -> None:
        action = self.parse_event(data).action
        if action == "print":
            print("printed to stdout")
            print("printed to stderr", file=sys.stderr)
            os.write(1, b"written without a line end")
            subprocess.run(["echo", " by a command"], check=True)
        elif action == "log":
            self.logger.warning("logged by %s", "its own logger")
            logging.getLogger("elsewhere.deep").error("logged elsewhere")
            warnings.warn("a warning of its own", stacklevel=1)
            logging.getLogger("elsewhere").error("%d is no number", "this")
        elif action == "raise":
            raise LookupError("raised on purpose")
        elif action == "novel":
            logging.getLogger("elsewhere").error("begin %s end", "é" * 1_000_000)
        elif action == "many loggers":
            for number in range(100):
                logging.getLogger(f"made.up.{number}").error("a name %d", number)
        self.say("done", action=action)

    def handle_stop(self) -> None:
        print("last words")
        self.logger.warning("last record")
        self.say("stop")


class Troublemaker(Talker):
    """Does what an event's action says; ``for`` in the payload may name the one that is meant."""

    def handle_recv(self, data: Frames) -> None:
        event = self.parse_event(data)
        if event.payload.get("for", self.config["name"]) == self.config["name"]:
            getattr(self, "do_" + event.action.replace(" ", "_"), lambda: None)()

    def do_raise(self) -> None:
        raise ValueError("on purpose")

    def do_raise_at_length(self) -> None:
        raise ValueError("on purpose " + "x" * 200_000)

    def do_exit(self) -> None:
        os._exit(7)

    def do_sys_exit(self) -> None:
        sys.exit(3)

    def do_segfault(self) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)

    def do_kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def do_freeze(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def do_hog(self) -> None:
        try:
            bytearray(1 << 31)
        finally:
            self.say("hogged")

    def do_flood(self) -> None:
        line = b"a line that says nothing in particular, over and over again\n" * 16
        for _ in range(int(self.config["flood"]) // len(line)):
            os.write(1, line)
        os.write(2, b"\0" * 300_000)
        self.say("flooded")

    def do_gibber(self) -> None:
        """Write nonsense into every pipe that the process has, among them those to the host."""
        for fd in range(3, 64):
            try:
                if os.readlink(f"/proc/self/fd/{fd}").startswith(("pipe:", "socket:")):
                    os.write(fd, b'{"is": [nonsense\n[1]\n{"is": "counters", "counters": 3}\n')
            except OSError:
                continue

    def do_rain(self) -> None:
        """Print, or log, or report to the host, as fast as it goes, for ever."""
        self.say("rains")
        if self.config["rain"] == "logs":
            while True:
                logging.getLogger("rain").error("it rains")
        fd, drops = 1, b"it rains\n" * 1000
        if self.config["rain"] == "reports":
            drops = b'{"kind": "Running"}\n' * 1000
            (fd,) = (fd for fd in range(3, 64) if _leads_to_host(fd))
        while True:
            select.select([], [fd], [])
            with contextlib.suppress(BlockingIOError):
                os.write(fd, drops)

    def do_keep_lock(self) -> None:
        """Keep the interpreter's lock, as a C function does that computes."""
        self.say("keeps the lock")
        ctypes.PyDLL(None).sleep(1000)

    def do_spawn(self) -> None:
        child = subprocess.Popen(["sleep", "1000"])
        child.returncode = 0  # nobody waits for it, and that shall be no warning
        self.say("spawned", child=child.pid)

    def do_deafen(self) -> None:
        """Be deaf to signals and to parking."""
        self.say("deaf")
        released.wait()

    def do_stop(self) -> None:
        self.stop()

    def do_hang(self) -> None:
        self.say("hangs")
        released.wait(float(self.config.get("hang", 1000)))


class Deaf(Troublemaker):
    """Does not come back from its stop, and minds no signal."""

    def handle_stop(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(PluginStateError):  # it may be stuck in a handler, too
            self.say("stop")
        released.wait()


class Fumbler(Troublemaker):
    """Stops in a way that asks much of a host: it prints, calls, and leaves by sys.exit."""

    def handle_stop(self) -> None:
        print("stopping")
        try:
            self.call("say", what="stop", plugin=self.config["name"], pid=os.getpid())
        except (CallError, PluginStateError) as error:
            with open(self.config["file"], "a") as file:
                file.write(f"{error}\n")
        sys.exit("left by the side door")


class StuckFumbler(Fumbler, Troublemaker):
    """The same, with a handler that may hang."""


class Mutterer(Talker):
    """Prints last words without an end of line."""

    def handle_stop(self) -> None:
        print("last words", end="")


class Diarist(Talker):
    """Prints and notes its stop in a file of its own."""

    def handle_stop(self) -> None:
        print("stopping" * 1000)
        self.logger.warning("stopping")
        with open(os.path.join(self.config["directory"], self.config["name"]), "w") as file:
            file.write("stopped")


class Unready(Diarist):
    """Fails to start, and cleans up in a stop of its own."""

    def handle_init(self) -> None:
        raise ZeroDivisionError

    def stop(self) -> None:
        self.handle_stop()
        super().stop()


class Parent(Talker):
    """Has started a program that holds a FIFO, and takes its time to stop."""

    def handle_init(self) -> None:
        script = 'exec 3>"$0" && echo up >&3 && exec sleep 120'
        self.program = subprocess.Popen(["sh", "-c", script, self.config["fifo"]])
        super().handle_init()

    def handle_stop(self) -> None:
        self.say("stop")
        with open(self.config["pipe"]) as pipe:
            pipe.read()
        print("stopped")
        with open(self.config["diary"], "w") as file:
            file.write("stopped")


class Ender(Talker):
    """Ends each of its lives in the way that ``end`` says, until circusd tells it to be good.

    circusd's reply to ``say`` has ``good``: whether this life shall be a quiet one.
    """

    def handle_init(self) -> None:
        self.good = self.say("init").get("good")
        end = "none" if self.good else self.config["end"]
        if end == "init failure":
            raise RuntimeError("cannot begin")
        if end == "hang in init":
            released.wait()
        elif end == "clean end":
            self.loop.call_soon(self.stop)
        elif end == "crash":
            self.loop.call_soon(self._crash)
        elif end == "handler error":
            # Until one gets through: the subscription may arrive after the first.
            self.periodic(lambda: self.cast("incr", name="web"), 0.02)

    def _crash(self) -> None:
        if self.config.get("on") == "thread":
            sys.exit(3)
        os._exit(3)

    def handle_recv(self, data: Frames) -> None:
        if self.config["end"] == "handler error" and not self.good:
            raise ValueError("cannot handle that")


class Sleeper(Talker):
    """Blocks in a handler until somebody opens the other end of a pipe with a name."""

    def handle_recv(self, data: Frames) -> None:
        if self.parse_event(data).action == "sleep":
            self.sleep_until_woken()

    def sleep_until_woken(self) -> None:
        with open(self.config["pipe"]) as pipe:
            pipe.read()
        self.say("awake")


class Fruitless(Talker):
    """Fails as it starts."""

    def handle_init(self) -> None:
        raise LookupError("bears no fruit")


class Hog(Talker):
    """Keeps the interpreter's lock for a while at each event."""

    def handle_recv(self, data: Frames) -> None:
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            sum(range(1_000_000))


class HandsOver(CircusPlugin):
    """Says what it has got, and hands over what its option says."""

    def handle_init(self) -> None:
        self.cast("say", what="init")

    def handle_recv(self, data: Frames) -> None:
        raise SystemExit("had enough")

    def get_state(self) -> Any:
        state = {"numbers": (1, 2), "text": '"\u2028\\é\x1b'}
        return {"long": "x" * STATE_LIMIT, "odd": {1, 2}}.get(self.config["hands"], state)

    def set_state(self, state: Any) -> None:
        self.cast("say", what="set", state=state)
