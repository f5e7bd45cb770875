# What a host is told of the process that it has for itself, by the commands.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .systemd_notify import SystemdNotify


@dataclass(frozen=True)
class OwnProcess:
    """A process whose whole business is one host.

    Attributes:
        systemd: Told what happens to the host.
        circusd_endpoint: Where its circusd takes commands, if the host takes them in its place at
            the endpoint of the configuration; else None.
        endpoint_owner: To whom that endpoint shall belong, if it is in the file system; empty: to
            who runs the host.
        after_reload: Does what else a reload is to do; returns what was done, a line each.
        on_listening: Called on the supervising thread when every plugin sees circusd's events, or
            has had its chance to.
    """

    systemd: SystemdNotify = field(default_factory=SystemdNotify)
    circusd_endpoint: str | None = None
    endpoint_owner: str = ""
    after_reload: Callable[[], list[str]] = list
    on_listening: Callable[[], object] = lambda: None
