# The table that `circusplug status` prints.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TITLES = (
    *("NAME", "STATE", "RUNS ON", "UPTIME", "EVENTS", "ERRORS", "RESTARTS", "LAG", "CPU"),
    "LAST ERROR",
)
_RIGHT = frozenset({"UPTIME", "EVENTS", "ERRORS", "RESTARTS", "LAG", "CPU"})


def table(plugins: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of a host's plugins.

    Args:
        plugins: What the host tells of each, by name.
    """
    rows = [_TITLES, *(_row(name, plugin) for name, plugin in plugins.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if title in _RIGHT else cell.ljust(width)
            for cell, width, title in zip(row, widths, _TITLES, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(name: str, plugin: Mapping[str, Any]) -> tuple[str, ...]:
    pid, cpu = plugin["pid"], plugin.get("cpu")
    where = "-" if pid is None else f"process {pid}" if plugin["isolated"] else "thread"
    return (
        name,
        plugin["state"],
        where,
        _duration(plugin["uptime"]),
        f"{plugin['handled']:,}",
        str(plugin["errors"]),
        str(plugin["restarts"]),
        f"{1000 * plugin['lag']:.0f} ms",
        f"{cpu:.1f} %" if isinstance(cpu, float) else "-",
        _one_line(plugin["last_error"] or ""),
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d {hours}h"
    if whole >= 3600:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {whole % 60:02}s" if minutes else f"{whole}s"


def _one_line(text: str, longest: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."
