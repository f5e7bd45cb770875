# Writes the tables of options into the pages of circusplug/docs, from their declarations: the
# host's into options.md, those of the plugins that come along into plugins.md. With --check it only
# tells whether they are up to date. Run by scripts/check.

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circusplug._cli.describe import examine
from circusplug._config.host_options import OPTIONS

PAGES = Path(__file__).resolve().parent.parent / "circusplug" / "docs"
_BLOCK = re.compile(r"(<!-- options(?:: (\w+))? -->\n).*?(<!-- /options -->)", re.DOTALL)


def table(plugin: str | None) -> str:
    """A table in Markdown: of the host's options, or of those of a plugin."""
    if plugin is not None:
        return "\n".join(examine(f"circusplug.plugins.{plugin}").table()) + "\n"
    rows = ["| option | default | meaning | for |", "|---|---|---|---|"]
    rows.append("| `isolate` | no | a process of its own | |")
    for name, option in OPTIONS.items():
        default = option.default
        if default is False:
            shown = "no"
        elif default in (None, "", ()):
            shown = ""
        elif name == "stop_signal":
            shown = "SIGTERM"
        elif name == "max_message":
            shown = f"{default // 1024**2}M"
        else:
            shown = f"{default:g}" if isinstance(default, float) else str(default)
        meta = option.metadata
        words = f"; one of {', '.join(meta['values'])}" if meta["values"] else ""
        rows.append(f"| `host.{name}` | {shown} | {meta['help']}{words} | {_who(name, meta)} |")
    rows.append("| `host.env.NAME` | | an environment variable | isolated only |")
    rows.append(
        "| `host.rlimit_NAME` | | a limit as of setrlimit, `host.rlimit_as` for instance, in its "
        "unit | isolated only, also as `rlimit_NAME` |"
    )
    return "\n".join(rows) + "\n"


def _who(name: str, meta: Mapping[str, Any]) -> str:
    """Which plugins can have an option, and whether they can have it without the prefix."""
    who = "isolated only" if meta["isolated_only"] else ""
    for value in meta["isolated_values"]:
        who = f"`{value}`: isolated only"
    if meta["circus"]:
        who = f"{who}, also as `{name}`" if who else f"also as `{name}` if isolated"
    return who


def main() -> int:
    """Write the tables, or check them; returns the exit status."""
    status = 0
    for page in (PAGES / "options.md", PAGES / "plugins.md"):
        text = page.read_text(encoding="utf-8")
        fresh = _BLOCK.sub(lambda found: found[1] + table(found[2]) + found[3], text)
        if fresh == text:
            continue
        if "--check" in sys.argv:
            print(f"{page.name}: a table of options is out of date; run scripts/check --fix")
            status = 1
        else:
            page.write_text(fresh, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
