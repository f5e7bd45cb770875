# What `circusplug run`, `circusplug up` and `circus-plugin` do once their arguments are known.

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import zmq

from .. import _logs
from .._config.control import AUTO
from .._config.specs import PLUGIN_PREFIX, HostConfig, PluginSpec
from .._errors import ConfigError, HostError, PluginLoadError
from .._host.arbiter import Arbiter
from .._host.own_process import OwnProcess
from .._host.systemd_notify import SystemdNotify
from .._plugin.load import load_plugin_class
from .._plugin.plugin_path import find_plugins_beside
from .._wire.commands import decode_reply, encode_command
from .._wire.endpoints import connectable
from .pid_file import pid_file
from .process_signals import signals_of_process

if TYPE_CHECKING:
    from .._config.ini_includes import Ini
    from .own_circusd import OwnCircusd

#: How long a plugin that computes keeps the interpreter from the others at a time, in seconds: a
#: tenth of Python's own value, which neighbours of such a plugin feel at once.
SWITCH_INTERVAL = 0.0005

#: How often a circusd that does not answer is looked for, in milliseconds at most.
_RECONNECT_MAX = 5000


def host_file(
    path: str,
    *,
    with_circusd: bool,
    endpoint: str | None,
    pubsub_endpoint: str | None,
    loglevel: str | None,
    logoutput: str | None,
    pidfile: str | None,
) -> int:
    """Host the plugins of a circus.ini until a signal ends it; returns the exit status.

    Raises:
        ConfigError: The file has errors.
        CircusdError: A circusd was to be started, and did not.
        HostError: A critical plugin or all plugins failed for good, circusd ended and was not
            told to, or there is no writing the pid file.
    """
    from .._config import ini_file
    from .._config.ini_includes import read_ini

    fixed: dict[str, Any] = {
        key: value
        for key, value in (
            ("endpoint", endpoint),
            ("pubsub_endpoint", pubsub_endpoint),
            ("loglevel", loglevel),
            ("logoutput", logoutput),
        )
        if value is not None
    }

    told = _LogChanges()
    ini: Ini  # as it was read last

    def read() -> HostConfig:
        nonlocal ini
        ini = read_ini(path)
        config = replace(ini_file.build(ini), **fixed)
        config = replace(config, control=config.control or AUTO)
        refuse_hosts(config)
        find_plugins_beside(path, config.python_path)
        _logs.configure(config.loglevel, config.logoutput, config.log_format)
        ini_file.log_warnings(ini)
        told.tell(config)
        return config

    gc.freeze()  # what was imported stays: no collection need look at it
    systemd = SystemdNotify.take(os.environ)  # nothing that is started here shall speak for it
    _logs.mark_output()
    config = read()
    if not any(spec.active for spec in config.plugins):
        _logs.logger.warning("%s: no [plugin:NAME] section that is active", path)
    circusd: OwnCircusd | None = None
    process = OwnProcess(systemd)
    if with_circusd:
        from .own_circusd import OwnCircusd

        circusd = OwnCircusd(ini, config)
        reload_circusd = circusd.reload
        process = OwnProcess(
            systemd,
            circusd.private_endpoint,
            circusd.endpoint_owner,
            lambda: reload_circusd(ini, arbiter),
            circusd.let_go,
        )
    arbiter: Arbiter = Arbiter.from_config(
        config, reload=read, exit_when_done=config.exit_when_done, process=process
    )
    sys.setswitchinterval(config.switch_interval or SWITCH_INTERVAL)
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(signals_of_process(arbiter))
        stack.enter_context(pid_file(pidfile))
        if circusd is not None:
            # The circusd that was started stays where it is, whatever the file says later.
            fixed.update(endpoint=config.endpoint, pubsub_endpoint=config.pubsub_endpoint)
            circusd.start(stack, arbiter)
        elif not config.ssh_server:
            stack.enter_context(_warning_of_doubles(config))
        try:
            with signals.host_has_it():
                arbiter.start()
        except HostError:
            if circusd is None or not circusd.has_quit:
                raise
            _logs.logger.info("circusd was told to quit, and so the host has stopped")
    failed = [name for name, status in arbiter.plugins.items() if status.state == "failed"]
    if failed and len(failed) == sum(spec.active for spec in arbiter.config.plugins):
        have = "have" if len(failed) > 1 else "has"
        raise HostError(f"no plugin is left that runs: {', '.join(failed)} {have} failed for good")
    return 0


class _LogChanges:
    """Tells where the log goes, if a file says so anew."""

    def __init__(self) -> None:
        self._log: tuple[str, str] | None = None

    def tell(self, config: HostConfig) -> None:
        """Log it; the first time there is nothing to compare with."""
        log = config.loglevel, config.logoutput
        if self._log not in (None, log):
            _logs.logger.info("logging %s and above to %s from now on", *log)
        self._log = log


def refuse_hosts(config: HostConfig) -> None:
    """Refuse a section that stands for a host, which needs a circusd of its own to run it."""
    from .._config import ini_file

    problems = [
        f"{spec.place}: stands for a host that circusd runs; start this file with 'circusd', or "
        "put its plugins back with 'circusplug migrate --undo'"
        for spec in config.plugins
        if spec.use == ini_file.HOST_USE and spec.active
    ]
    if problems:
        raise ConfigError(*problems)


def host_plugin(
    use: str,
    config: str,
    *,
    endpoint: str,
    pubsub_endpoint: str,
    check_delay: float,
    ssh_server: str | None,
    loglevel: str,
    logoutput: str,
) -> int:
    """Host one plugin as Circus's circus-plugin does; returns the exit status.

    Raises:
        ConfigError: The options cannot be read.
        SpecError: An option of the host's is not valid.
        PluginLoadError: There is no such plugin.
        HostError: The plugin failed.
    """
    # What restarts this command when the plugin fails is whoever runs it.
    options = {"host.restart": "never", **parse_plugin_config(config), "use": use}
    spec = PluginSpec.from_options(options, where="--config")
    if not spec.active:
        raise HostError(f"{use} is not active ('active' is {spec.config['active']}), not started")
    arbiter = Arbiter(
        [replace(spec, where="")],
        endpoint,
        pubsub_endpoint,
        check_delay,
        ssh_server,
        exit_when_done=True,
    )
    sys.setswitchinterval(SWITCH_INTERVAL)
    _logs.mark_output()
    _logs.configure(loglevel, logoutput)
    log = _logs.logger
    with _logs.speaking(spec.name):
        log.info("Loading the plugin...")
        if not spec.isolate:
            _load(use)
        log.info("Endpoint: %r", endpoint)
        log.info("Pub/sub: %r", pubsub_endpoint)
        log.info("Starting")
        with signals_of_process(arbiter) as signals, signals.host_has_it():
            arbiter.start()
    status = arbiter.plugins[spec.name]
    if status.state == "failed":
        raise HostError(f"{spec.name} has failed: {status.last_error}")
    return 0


def _load(use: str) -> None:
    try:
        load_plugin_class(use)
    except PluginLoadError as error:
        # On a command line there is no 'use'.
        text = str(error).replace(f"'use' names {use}, but ", f"{use}: ")
        text = text.replace(f"'use' names {use!r}, which is", f"{use!r} is")
        text = text.replace(f"'use' names {use}, which is", f"{use} is")
        raise PluginLoadError(text) from error.__cause__


def parse_plugin_config(text: str) -> dict[str, Any]:
    """Read plugin options from a command line: ``key:value:::key:value``, or a JSON object.

    Raises:
        ConfigError: It is neither.
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            decoded: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"--config: not valid JSON: {error}") from None
        return decoded
    options = {}
    for item in text.split(":::") if text else ():
        key, colon, value = item.partition(":")
        if not colon or not key.strip():
            raise ConfigError(
                f"--config: {item!r} is not key:value; write key:value:::key:value, or JSON"
            )
        options[key.strip()] = value.strip()
    return options


@contextlib.contextmanager
def _warning_of_doubles(config: HostConfig) -> Iterator[None]:
    """Meanwhile, wait for circusd on a thread, and look whether it runs the same plugins."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    thread = threading.Thread(
        target=_look_for_doubles, args=(context, config), name="circusplug-doubles", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        context.term()  # which ends the wait
        thread.join()


def _look_for_doubles(context: zmq.Context[zmq.Socket[bytes]], config: HostConfig) -> None:
    with contextlib.suppress(zmq.ZMQError), context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX)
        socket.connect(connectable(config.endpoint))
        socket.send(encode_command(1, "list", {}))
        reply = decode_reply(socket.recv())
        watchers = reply.get("watchers") if reply else None
        if not isinstance(watchers, list):
            return
        for spec in config.plugins:
            if spec.active and f"{PLUGIN_PREFIX}{spec.name}".lower() in watchers:
                _logs.logger.warning(
                    "circusd at %s runs %s%s itself, so it now runs twice; take the section out "
                    "of circusd's file, or use 'circusplug up' or 'circusplug migrate'",
                    config.endpoint,
                    PLUGIN_PREFIX,
                    spec.name,
                )
