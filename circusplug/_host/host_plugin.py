# The host as a plugin of Circus's: one section of a circus.ini stands for all plugins.
#
# circusd starts it as it starts its own plugins, and Circus's starter has set up logging by then.
# The host sets it up anew: to the same place, unless its file names another.
#
# Owner: the main thread of that process.

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from .. import _logs
from .._config.control import AUTO
from .._config.specs import PLUGIN_PREFIX, HostConfig
from .._errors import CircusPlugError, ConfigError, PluginLoadError
from .._logs import logger
from .._plugin.base import CircusPlugin
from .._plugin.plugin_path import find_plugins_beside
from .._plugin.receiver import Frames
from .arbiter import Arbiter
from .circusd_watch import watching_circusd


class Host(CircusPlugin):
    """Hosts the plugins of a file under a stock circusd, which runs it as one plugin::

        [plugin:circusplug]
        use = circusplug.Host
        config = plugins.ini

    That file is a circus.ini like any other, but the endpoints are those of the circusd. A
    relative path is relative to the section's ``working_dir``, or to where circusd was started.

    Its log goes where ``[circus]`` of its own file says: ``logoutput``, ``loglevel``, and
    ``log_format`` in ``[circusplug]``; SIGHUP reads them again. If the file does not say, it goes
    where circusd's goes, but a circusd that has carried out ``reloadconfig`` does not tell its
    plugins any more where that is; and without a log of circusd's, circusd has closed standard
    output and error. So the file should say.

    It ends, and stops its plugins, when the circusd that has started it has ended, however.
    """

    name = "circusplug"

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        if self._circusplug_worker.owner is not None:
            raise PluginLoadError(
                "circusplug.Host is a host, which cannot be hosted by another; put the sections "
                "of its file into this host's own"
            )
        self._arbiter: Arbiter | None = None

    def handle_recv(self, data: Frames) -> None:
        """Nothing: the plugins receive for themselves."""

    def start(self) -> None:
        """Host the plugins until SIGTERM; on the main thread.

        Raises:
            SystemExit: The file is missing or has errors, or a critical plugin gave up; said in
                the log.
        """
        self.loop.close()  # each hosted plugin has its own
        try:
            arbiter = self._arbiter = Arbiter.from_config(self._read(), reload=self._read)
            with self._watching_circusd(arbiter):
                arbiter.start()
        except CircusPlugError as error:
            for line in str(error).splitlines():
                logger.error("%s", line)
            raise SystemExit(1) from None

    def stop(self) -> None:
        """Stop all plugins; may be called twice."""
        if self._arbiter is not None:
            self._arbiter.stop()
        super().stop()

    def _read(self) -> HostConfig:
        """The file's plugins, on the circusd that has started this."""
        from .._config import ini_file
        from .._config.ini_includes import read_ini

        path = self.config.get("config")
        if not path:
            raise ConfigError(
                f"[{self.config.get('name', 'plugin:circusplug')}]: 'config' is missing; give the "
                "path of the file with the plugins' sections"
            )
        ini = read_ini(os.path.expanduser(path))
        config = ini_file.build(ini)
        find_plugins_beside(ini.path, config.python_path)
        level, output = _log_of_circusd()
        if ini.circus_option("loglevel") is not None:
            level = config.loglevel
        if config.logoutput != HostConfig.logoutput:
            output = config.logoutput
        _logs.configure(level, output, config.log_format)
        ini_file.log_warnings(ini)
        if ini.circus_option("check_delay") is None:
            config = replace(config, check_delay=self.check_delay)
        return replace(
            config,
            control=config.control or AUTO,
            endpoint=self.endpoint,
            pubsub_endpoint=self.pubsub_endpoint,
            ssh_server=self.ssh_server,
        )

    def _watching_circusd(self, arbiter: Arbiter) -> AbstractContextManager[None]:
        name = str(self.config.get("name", ""))
        if not name.startswith(PLUGIN_PREFIX):  # somebody else has started this
            return nullcontext()
        endpoint = None if self.ssh_server else self.endpoint
        return watching_circusd(endpoint, name, arbiter.fail)


def _log_of_circusd() -> tuple[str, str]:
    """Level and place of the log, as circusd has told Circus's starter on its command line."""
    import argparse  # which nobody else needs

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-output", default=HostConfig.logoutput)
    told, _ = parser.parse_known_args(sys.argv[1:])
    # Circus takes a level that it does not know for "info".
    return told.log_level if told.log_level.lower() in _logs.LEVELS else "info", told.log_output
