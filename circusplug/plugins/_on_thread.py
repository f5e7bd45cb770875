# Has something done that blocks, without keeping the plugin's loop waiting.
#
# It runs on a thread of its own, and is ended from the plugin's thread. Nobody waits for that
# thread, as there is no way out of looking up a host's name; a daemon, and not the loop's executor,
# which Python waits for at its end. Not asyncio's subprocesses either: a task that is cancelled
# while one is being started never ends.

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def on_thread(
    run: Callable[[], T], abort: Callable[[], object], deadline: float, name: str
) -> T:
    """Return what a function returns that may block, or raise what it raises.

    Args:
        run: Called on a thread of its own.
        abort: Has *run* return soon; called from the plugin's thread when all is over, be it done,
            too late or cancelled; also before *run* began, or when it is over.
        deadline: How long it may take, in seconds.
        name: Of the thread.

    Raises:
        TimeoutError: It takes longer.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, failure: Exception | None) -> None:
        if done.done():
            return  # it was given up
        if failure is None:
            done.set_result(result)  # type: ignore[arg-type]
        else:
            done.set_exception(failure)

    def work() -> None:
        result, failure = None, None
        try:
            result = run()
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
            loop.call_soon_threadsafe(finish, result, failure)

    try:
        threading.Thread(target=work, name=name, daemon=True).start()
        with getattr(loop, "outside", contextlib.nullcontext)():  # a plugin's loop has it
            return await asyncio.wait_for(done, deadline)
    except asyncio.TimeoutError:  # its own class on Python 3.10
        if not done.cancelled():
            raise  # the function has raised it
        raise TimeoutError(f"not done within {deadline:g} s") from None
    finally:
        abort()
