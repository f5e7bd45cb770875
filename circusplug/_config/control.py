# Where a host takes commands: what the options `control` and `control_pubsub` may say.

from __future__ import annotations

import os
import re

#: No control endpoint, and one that is named after the file.
OFF, AUTO = "off", "auto"

_LOOPBACK = re.compile(r"tcp://(127\.[0-9.]+|localhost|\[::1\]):[0-9]{1,5}")
#: The longest path of a socket, in bytes, as of unix(7).
_LONGEST_PATH = 107


def control_endpoint(value: object) -> str:
    """Look at an endpoint as the user wrote it.

    Raises:
        ValueError: It is none, or could be reached from another machine.
    """
    text = str(value).strip()
    if text in (OFF, AUTO):
        return text
    path = text.removeprefix("ipc://")
    if path != text and path.startswith("/"):
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise ValueError(f"{path} is too long for a socket; {_LONGEST_PATH} bytes at most")
        return text
    if _LOOPBACK.fullmatch(text):
        return text
    raise ValueError(
        f"{text!r} is none of ipc:///PATH, tcp://127.0.0.1:PORT, {AUTO!r} and {OFF!r}; from "
        "another machine go through ssh"
    )
