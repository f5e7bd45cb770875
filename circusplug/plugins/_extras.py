# The packages that only some of the plugins need, which come with extras of circusplug.

from __future__ import annotations

import importlib.util

from circusplug import SpecError

#: The package that each extra brings, as it is imported.
_PACKAGES = {
    "metrics": "prometheus_client",
    "notify": "apprise",
    "redis": "redis",
    "watch": "watchfiles",
}


def need(extra: str, who: str, key: str = "use") -> None:
    """Make sure that what an extra brings is installed.

    Args:
        extra: Its name.
        who: Who needs it, for the message.
        key: The option that is to blame.

    Raises:
        SpecError: It is not.
    """
    package = _PACKAGES[extra]
    if importlib.util.find_spec(package) is None:
        raise SpecError(f"{who} needs {package}: pip install 'circusplug[{extra}]'", key=key)
