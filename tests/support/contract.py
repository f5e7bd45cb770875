# What the tests share that ask the same of a fake and of a real circusd.

from __future__ import annotations

from typing import Any

from circusd_real import RealCircusd

from circusplug.testing import FakeCircusd

SENTINEL = "sentinel"
WATCHERS: dict[str, dict[str, Any]] = {
    "My App.v1": {"numprocesses": 2, "flapping.max_retry": 3},
    "Single": {"singleton": True, "autostart": False},
    SENTINEL: {"autostart": False},
}


def new_circusd(kind: str) -> FakeCircusd | RealCircusd:
    return FakeCircusd(WATCHERS) if kind == "fake" else RealCircusd(WATCHERS)


def content(reply: dict[str, Any]) -> dict[str, Any]:
    """Check what every good reply holds, and return the rest."""
    rest = dict(reply)
    assert rest.pop("status") == "ok", reply
    assert isinstance(rest.pop("time"), float)
    assert isinstance(rest.pop("id"), int)
    return rest


def actions(events: list[tuple[str, dict[str, Any]]], name: str = "the_job") -> list[str]:
    prefix = f"watcher.{name}."
    assert all(topic.startswith(prefix) for topic, _ in events)
    return [topic.removeprefix(prefix) for topic, _ in events]
