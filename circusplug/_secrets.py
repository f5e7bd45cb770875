# Secrets are not shown: what is masked wherever a value is printed, logged or sent on, by its name,
# because a plugin declares it, or because it is the login in a URL.
#
# Owner: `declared_secrets` grows as plugins are loaded, on any thread; nothing is ever taken out.

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: What is shown instead of a secret.
MASK = "****"
#: Names of properties and options whose values are not to be shown; `notify` is where an Alert
#: sends to, URLs of apprise that say by which account.
_SECRET = re.compile(r"passw|passphrase|secret|token|credential|key|\bnotify$", re.IGNORECASE)
#: The property of ``get`` that says which options are asked for.
_NO_SECRET = "keys"
#: How a URL says who logs in, and with which password.
_LOGIN = re.compile(r"(?<=://)[^/?#@\s]*:[^/?#\s]*(?=@)")
#: How deep `shown` looks into values; what lies deeper is left out.
_DEPTH = 4
#: Names of options that plugins of this process have declared as secrets.
declared_secrets: set[str] = set()


def is_secret(name: str) -> bool:
    """Whether what stands under a name is likely a secret, so that it is not to be shown."""
    if name.rpartition(".")[2] in declared_secrets:
        return True
    return bool(_SECRET.search(name)) and name != _NO_SECRET


def masked(value: Any) -> Any:
    """A value with its secrets masked, however deep: what a name or a URL's login tells of."""
    if isinstance(value, Mapping):
        return {key: MASK if is_secret(key) else masked(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(masked, value))
    return _LOGIN.sub(MASK, value) if isinstance(value, str) else value


def shown(name: object, value: Any, depth: int = _DEPTH) -> Any:
    """A property's value as it may be shown: its secrets masked, and left out where it is deep."""
    if isinstance(name, str) and is_secret(name):
        return MASK
    if not isinstance(value, dict | list | tuple):
        return masked(value)
    if not depth:
        return ...
    if isinstance(value, dict):
        return {key: shown(key, inner, depth - 1) for key, inner in value.items()}
    return [shown(None, inner, depth - 1) for inner in value]
