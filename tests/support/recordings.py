# Recordings as Recorder writes them, made by hand.

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

STARTED = 1_795_000_000.0
HEAD = {"recording": "circusplug", "version": 1, "started": STARTED, "check_delay": 1.0}


def event(at: float, watcher: str, action: str, **payload: Any) -> dict[str, Any]:
    """The record of an event."""
    said = {"time": STARTED + at, **payload}
    return {"at": at, "event": f"watcher.{watcher}.{action}", "payload": said}


def reap(at: float, watcher: str = "web", pid: int = 1) -> dict[str, Any]:
    return event(at, watcher, "reap", process_pid=pid, exit_code=1)


def figures(at: float, **stats: dict[str, Any]) -> dict[str, Any]:
    """The record of what circusd tells of active watchers, by name: their processes by pid."""
    return {"at": at, "status": dict.fromkeys(stats, "active"), "stats": stats, "dstats": {}}


def write(path: Path, *records: dict[str, Any] | str, **head: Any) -> Path:
    """Write a recording; text stands for a line that is wrong."""
    lines = [json.dumps({**HEAD, **head})]
    lines += [one if isinstance(one, str) else json.dumps(one) for one in records]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
