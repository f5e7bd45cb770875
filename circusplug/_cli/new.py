# `circusplug new`: a package with a plugin in it, its test and a circus.ini to try it with. What it
# writes is in new_files.py.

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import tempfile
from pathlib import Path

from .._errors import CircusPlugError
from .new_files import FILES

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*", re.IGNORECASE)


def make(name: str, directory: str | None) -> int:
    """Make the package and say what to type next; returns the exit status.

    Args:
        name: Of the package and the plugin.
        directory: Where to make it, by default a new directory of that name here.

    Raises:
        CircusPlugError: The name does not fit, or there is something already.
    """
    if not _NAME.fullmatch(name):
        raise CircusPlugError(
            f"new: {name!r} cannot be a package's name; take letters, digits and -, as in my-probe"
        )
    words = re.split("[-_]", name.lower())
    module = "_".join(words)
    if module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise CircusPlugError(f"new: there is a module {module!r} already; take another name")
    place = Path(directory or name).expanduser()
    values = {
        "NAME": "-".join(words),
        "MODULE": module,
        "CLASS": "".join(word.capitalize() for word in words),
    }
    try:
        _write(place, values)
    except OSError as error:
        raise CircusPlugError(f"new: {error.filename or place}: {error.strerror}") from None
    print(f"{place} is there. Next:\n")
    print(f"  cd {place}")
    print("  pip install -e '.[test]' && pytest && circusplug up circus.ini")
    return 0


def _write(place: Path, values: dict[str, str]) -> None:
    """Write all files, or none."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CircusPlugError(f"new: {place} is there and is not empty; give another directory")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as directory:
        made = Path(directory, "new")
        for name, text in FILES.items():
            file = made / _filled(name, values)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_filled(text, values), encoding="utf-8")
        if place.exists():  # and is empty; it may be the current directory, which has to stay
            for item in made.iterdir():
                shutil.move(item, place / item.name)
        else:
            made.rename(place)


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], text)
