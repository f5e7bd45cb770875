# `circusplug docs`: the reference that comes with the package, a page of Markdown a topic.

from __future__ import annotations

import pydoc
import re
import sys
from pathlib import Path

from .._config.values import did_you_mean
from .._errors import CircusPlugError

_PAGES = Path(__file__).parent.parent / "docs"


#: A line that only those who write and test the pages need.
_COMMENT = re.compile(r"^ *<!--.*-->\n", re.MULTILINE)


def topics() -> dict[str, str]:
    """Each topic's name and the title of its page, in alphabetical order."""
    pages = sorted(_PAGES.glob("*.md"))
    return {page.stem: _text(page).partition("\n")[0].lstrip("# ") for page in pages}


def print_page(topic: str | None) -> int:
    """Print a page, a screen at a time on a terminal; returns the exit status.

    Raises:
        CircusPlugError: There is no such page.
    """
    titles = topics()
    if topic is None:
        width = max(map(len, titles))
        for name, title in titles.items():
            print(f"{name:{width}}  {title}")
        return 0
    name = topic.lower().removesuffix(".md")
    if name not in titles:
        guess = did_you_mean(name, titles) or f"; there are {', '.join(titles)}"
        raise CircusPlugError(f"docs: there is no page {topic!r}{guess}")
    text = _COMMENT.sub("", _text(_PAGES / f"{name}.md"))
    if sys.stdout.isatty():
        pydoc.pager(text)
    else:
        sys.stdout.write(text)
    return 0


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")
