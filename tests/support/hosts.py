# Hosts for tests that need several plugins, or isolated ones, under a FakeCircusd.

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from patience import PATIENCE

from circusplug import Arbiter, PluginStatus
from circusplug.testing import FakeCircusd

Host = Callable[..., Arbiter]


def all_run(now: Mapping[str, PluginStatus]) -> bool:
    """For `Arbiter.wait`: whether every plugin runs."""
    return all(status.state == "running" for status in now.values())


@contextlib.contextmanager
def circusd_on_unix_sockets(watchers: Iterable[str] = ()) -> Iterator[FakeCircusd]:
    """A fake circusd whose place nobody else takes while it is away, as happens to ports."""
    with tempfile.TemporaryDirectory() as directory:  # a test's own has too long a path
        ends = (f"ipc://{directory}/{name}" for name in ("commands", "events"))
        with FakeCircusd(
            watchers, **dict(zip(("endpoint", "pubsub_endpoint"), ends, strict=True))
        ) as circusd:
            yield circusd


@contextlib.contextmanager
def hosts(circusd: FakeCircusd, **defaults: Any) -> Iterator[Host]:
    """A function that runs plugins until the block ends; `defaults` are the host's options."""
    with contextlib.ExitStack() as stack:

        def start(*plugins: dict[str, Any], **options: Any) -> Arbiter:
            arbiter = Arbiter(
                plugins, circusd.endpoint, circusd.pubsub_endpoint, **{**defaults, **options}
            )
            stack.enter_context(arbiter)
            arbiter.wait(all_run, PATIENCE)
            circusd.wait_subscribed(len(plugins), PATIENCE)
            return arbiter

        yield start
