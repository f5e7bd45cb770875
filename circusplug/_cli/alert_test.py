# `circusplug alert-test`: whether alerts would reach anybody.

from __future__ import annotations

from .._config.declared import declared_by
from .._config.ini_file import load
from .._config.specs import PluginSpec
from .._config.values import did_you_mean
from .._errors import ConfigError, SpecError
from .._plugin.load import load_plugin_class
from .._plugin.plugin_path import find_plugins_beside


def send(path: str, name: str | None) -> int:
    """Send the alerts, and print what has become of them; returns the exit status.

    Raises:
        ConfigError: The file is not valid, or has no such section.
        PluginLoadError: The class of a section cannot be imported.
        SpecError: An option is not valid.
    """
    config = load(path)
    find_plugins_beside(path, config.python_path)
    names = [spec.name for spec in config.plugins]
    if name is not None and name not in names:
        guess = did_you_mean(name, names) or f"; there are {', '.join(names) or 'none'}"
        raise ConfigError(f"{path}: there is no [plugin:{name}]{guess}")
    sent = failed = 0
    for spec in config.plugins:
        for to, error in _send(spec) if name in (None, spec.name) else ():
            outcome = f"not sent: {error}" if error else "sent"
            print(f"[plugin:{spec.name}] {to}: {outcome}")
            sent += 1
            failed += bool(error)
    if not sent:
        where = f"[plugin:{name}]" if name else "no section"
        text = "use circusplug.plugins.Alert, and give it a 'command', 'notify' or 'mail_to'"
        raise ConfigError(f"{path}: {where} sends alerts to anybody; {text}")
    return 1 if failed else 0


def _send(spec: PluginSpec) -> list[tuple[str, str]]:
    plugin_class = load_plugin_class(spec.use, spec.place)
    declared = declared_by(plugin_class)
    if declared is None or not hasattr(plugin_class, "send_test"):
        return []
    try:
        return list(plugin_class.send_test(declared.read(spec.config)))
    except SpecError as error:
        raise SpecError.of([error], spec.place) from None
