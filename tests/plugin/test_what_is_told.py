# What people are told of a plugin's mishaps: in few words, and what to do only where that is known.

from __future__ import annotations

import asyncio
import logging

import pytest

from circusplug._logs import Repeats
from circusplug._plugin.hints import hint_for
from circusplug._plugin.owner import tell_garbage
from circusplug._plugin.worker import Worker, _await_all

LOGGER = logging.getLogger("circusplug.plugin.told")


def raised(code: str, file: str = "/x/tornado/ioloop.py") -> Exception:
    try:
        exec(compile(code, file, "exec"), {})
    except Exception as error:
        return error
    raise AssertionError("it raises nothing")


PERIODIC = "def {name}(): raise {error}('jitter')\n{name}()"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ValueError("signal only works in main thread of the main interpreter"), "add_signal_han"),
        (ValueError("another one"), ""),
        (TypeError("signal only works in main thread"), ""),
        (raised(PERIODIC.format(name="_update_next", error="TypeError")), "leave it out"),
        (raised(PERIODIC.format(name="_update_next", error="ValueError")), ""),
        (raised(PERIODIC.format(name="start", error="TypeError")), ""),
        (raised(PERIODIC.format(name="_update_next", error="TypeError"), "/x/mine.py"), ""),
        (TypeError("raised nowhere"), ""),
    ],
)
def test_what_to_do_is_told_where_it_is_known(error: Exception, hint: str) -> None:
    told = hint_for(error)
    assert (hint in told) if hint else told == ""


def test_a_message_that_is_no_event_is_shown_in_short(caplog: pytest.LogCaptureFixture) -> None:
    tell_garbage(Repeats(), LOGGER, b"x" * 1000)
    (message,) = caplog.messages
    assert message.endswith(repr(b"x" * 80))


def test_what_a_loop_complains_of_without_an_exception_is_logged_and_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker("told")
    worker.loop.call_exception_handler({"message": "a task was destroyed"})
    worker.loop.close()
    assert caplog.record_tuples == [(LOGGER.name, logging.ERROR, "a task was destroyed")]
    assert (worker.counters.errors, worker.last_error) == (0, None)


def test_all_that_is_to_be_awaited_is() -> None:
    done: list[int] = []

    async def one(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    asyncio.run(_await_all([one(1), one(2)]))
    assert done == [1, 2]
