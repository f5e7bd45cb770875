# Where a traceback begins to be about a plugin, and which line of it is to blame.

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import pytest
import zmq

import circusplug
from circusplug._logging.stacks import from_plugin_on, place_of

OURS = str(Path(circusplug.__file__).parent)
LIBRARY = os.path.dirname(os.__file__)
ZMQ = os.path.dirname(zmq.__file__)
PLUGIN = "/srv/plugins/mine.py"


def raised(*files: str) -> tuple[BaseException, TracebackType | None]:
    """An error that came through code of these files, outermost first, and its traceback."""
    call: object = None
    for file in reversed(files):
        names: dict[str, object] = {"inner": call}
        body = "1 / 0" if call is None else "inner()"
        exec(compile(f"def outer():\n    {body}\n", file, "exec"), names)
        call = names["outer"]
    with pytest.raises(ZeroDivisionError) as caught:
        call()  # type: ignore[operator]
    trace = caught.tb.tb_next  # without this test's own call
    return caught.value.with_traceback(trace), trace


def first(error: BaseException, trace: TracebackType | None) -> str:
    shown = from_plugin_on(error, trace)
    assert shown is not None
    return shown.tb_frame.f_code.co_filename


@pytest.mark.parametrize(
    "file",
    [
        PLUGIN,
        f"{OURS}/plugins/logger.py",
        f"{LIBRARY}/site-packages/somebodys.py",
        f"{OURS}_more/mine.py",
        "<string>",
    ],
)
def test_what_is_no_part_of_the_host_or_of_python_is_a_plugins(file: str) -> None:
    error, trace = raised(f"{OURS}/_plugin/worker.py", file, f"{LIBRARY}/json/decoder.py")
    assert first(error, trace) == file
    assert place_of(error) == f"{file}:2"


@pytest.mark.parametrize(
    "file",
    [
        f"{OURS}/_plugin/worker.py",
        f"{LIBRARY}/asyncio/events.py",
        f"{ZMQ}/sugar/socket.py",
        "<frozen importlib._bootstrap>",
    ],
)
def test_what_calls_a_plugin_is_left_out(file: str) -> None:
    error, trace = raised(file, PLUGIN)
    assert first(error, trace) == PLUGIN
    error, trace = raised(file, f"{LIBRARY}/json/decoder.py")  # a bug of ours stays whole
    assert first(error, trace) == file
    assert place_of(error) == f"{LIBRARY}/json/decoder.py:2"


def test_the_innermost_of_several_calls_of_plugins_is_to_blame() -> None:
    error, _ = raised(PLUGIN, f"{LIBRARY}/functools.py", "/srv/plugins/other.py", f"{OURS}/x.py")
    assert place_of(error) == "/srv/plugins/other.py:2"
    assert place_of(ValueError("never raised")) == ""


def test_a_file_that_does_not_compile_needs_no_traceback_of_ours() -> None:
    _, trace = raised(f"{OURS}/_plugin/load.py")
    assert from_plugin_on(SyntaxError("wrong"), trace) is None
    _, trace = raised(f"{OURS}/_plugin/load.py", PLUGIN)
    assert first(SyntaxError("wrong"), trace) == PLUGIN
