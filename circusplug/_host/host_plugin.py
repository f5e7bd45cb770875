# The host as a plugin of Circus's: one section of a circus.ini stands for all plugins.
#
# circusd starts it as it starts its own plugins, and Circus's starter has configured logging
# by then; that stays as it is, but for the name in front of each message.
#
# Owner: the main thread of that process.

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

from .. import _logs
from .._config.specs import HostConfig
from .._errors import CircusPlugError, ConfigError, PluginLoadError
from .._logs import logger
from .._plugin.base import CircusPlugin
from .._plugin.receiver import Frames
from .arbiter import Arbiter


class Host(CircusPlugin):
    """Hosts the plugins of a file under a stock circusd, which runs it as one plugin::

        [plugin:circusplug]
        use = circusplug.Host
        config = plugins.ini

    That file is a circus.ini like any other, but the endpoints are those of the circusd. A
    relative path is relative to the section's ``working_dir``, or to where circusd was started.

    The host's file should say where to log: ``[circus]`` there with ``logoutput``, and
    ``loglevel``. If not, it logs to where circusd logs if ``[circus]`` there has a ``logoutput``,
    until a ``reloadconfig`` of circusd's, which forgets that; else circusd has closed its standard
    output and error (stream options in a plugin's section do not help).
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
        _show_plugin_names()
        try:
            config = self._read()
            self._arbiter = Arbiter.from_config(config, reload=self._read)
            self._arbiter.start()
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
        if config.logoutput != HostConfig.logoutput:
            _logs.configure(config.loglevel, config.logoutput, config.log_format)
        ini_file.log_warnings(ini)
        if ini.circus_option("check_delay") is None:
            config = replace(config, check_delay=self.check_delay)
        return replace(
            config,
            endpoint=self.endpoint,
            pubsub_endpoint=self.pubsub_endpoint,
            ssh_server=self.ssh_server,
        )


def _show_plugin_names() -> None:
    """Have what is logged begin with the plugin's name instead of the logger's."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_logs.PluginFilter())
        formatter = handler.formatter
        if formatter is not None and formatter._fmt is not None:
            shown = formatter._fmt.replace("%(name)s", "%(plugin)s")
            handler.setFormatter(_logs.Formatter(shown, formatter.datefmt))
