# Where a traceback or a stack begins to be about a plugin: what is above are calls of the
# host's, of the standard library and of pyzmq.

from __future__ import annotations

import os
import traceback
from itertools import dropwhile
from types import FrameType, TracebackType

import zmq

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STANDARD_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_ZMQ = os.path.dirname(os.path.abspath(zmq.__file__)) + os.sep
_NOT_PLUGINS = (_OURS, _STANDARD_LIBRARY, _ZMQ, "<frozen ")
#: Built-in plugins are plugins; what pip installed there is no part of the standard library.
_PLUGINS = (_OURS + "plugins" + os.sep, _STANDARD_LIBRARY + "site-packages" + os.sep)


def _is_plugins(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return not file.startswith(_NOT_PLUGINS) or file.startswith(_PLUGINS)


def from_plugin_on(error: object, trace: TracebackType | None) -> TracebackType | None:
    """The part of an exception's traceback that begins in the plugin.

    One that no plugin is in, such as that of a bug here, stays whole.
    """
    here = trace
    while here is not None:
        if _is_plugins(here.tb_frame):
            return here
        here = here.tb_next
    # A file that does not even compile is in no frame; the error itself tells file and line.
    return None if isinstance(error, SyntaxError) else trace


def place_of(error: BaseException) -> str:
    """``FILE:LINE`` of the plugin's innermost call that led to an exception.

    It is the innermost call of all if no plugin is in the traceback; empty if there is none.
    """
    place, plugins = "", False
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _is_plugins(frame) or not plugins:
            plugins = plugins or _is_plugins(frame)
            place = f"{frame.f_code.co_filename}:{line}"
    return place


def plugin_stack(frame: FrameType | None) -> str:
    """What a thread is at, outermost call first, without the calls that lead to the plugin.

    Args:
        frame: The thread's innermost, as of `sys._current_frames`; None gives an empty text.

    Returns:
        Lines as of `traceback.format_stack`, without the last line end. A stack that no plugin
        is in stays whole.
    """
    whole = list(traceback.walk_stack(frame))[::-1] if frame is not None else []
    shown = list(dropwhile(lambda item: not _is_plugins(item[0]), whole)) or whole
    return "".join(traceback.StackSummary.extract(iter(shown)).format()).rstrip()
