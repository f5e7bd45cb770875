# Hosts for tests that need several plugins, or isolated ones, under a FakeCircusd.

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from circusplug import Arbiter
from circusplug.testing import FakeCircusd

#: How long plugins may take to start before the test fails, in seconds.
PATIENCE = 20.0

Host = Callable[..., Arbiter]


@contextlib.contextmanager
def hosts(circusd: FakeCircusd, **defaults: Any) -> Iterator[Host]:
    """A function that runs plugins until the block ends; `defaults` are the host's options."""
    with contextlib.ExitStack() as stack:

        def start(*plugins: dict[str, Any], **options: Any) -> Arbiter:
            arbiter = Arbiter(
                plugins, circusd.endpoint, circusd.pubsub_endpoint, **{**defaults, **options}
            )
            stack.enter_context(arbiter)
            arbiter.wait(
                lambda now: all(status.state == "running" for status in now.values()), PATIENCE
            )
            circusd.wait_subscribed(len(plugins), PATIENCE)
            return arbiter

        yield start
