# What the scripts share: a virtual environment per Python version, .venv/3.11 and the like,
# made when it is missing or broken and brought up to date when pyproject.toml has changed.
# Runs on a plain Python 3.10 with nothing installed.

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import NoReturn

OLDEST = (3, 10)
NEWEST = (3, 13)

ROOT = Path(__file__).resolve().parent.parent
NAME = Path(sys.argv[0]).name
PIP = ["-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input", "--retries", "2"]

#: Words of pip's when it cannot connect.
NO_NETWORK = ("NewConnectionError", "Failed to establish", "name resolution", "timed out")

#: Which extras bring which others, as in pyproject.toml.
BRINGS = {
    "dev": {"dev", "test", "circusd", "metrics", "notify", "redis", "watch"},
    "test": {"test", "circusd", "metrics", "notify", "redis", "watch"},
    "bench": {"bench", "circusd", "metrics"},
}


def say(message: str) -> None:
    """Tell the user what takes time."""
    print(f"scripts/{NAME}: {message}", file=sys.stderr, flush=True)


def fail(message: str) -> NoReturn:
    """End with a message."""
    say(message)
    sys.exit(1)


def take_python(arguments: list[str]) -> tuple[str, list[str]]:
    """Take ``--python X`` out of the arguments, or the variable PYTHON; "" if neither is given.

    X is a version (3.12), a command (python3.12) or a path.
    """
    rest = list(arguments)
    wanted = os.environ.get("PYTHON", "")
    for position, argument in enumerate(arguments):
        if argument == "--python" and position + 1 < len(arguments):
            wanted = arguments[position + 1]
            del rest[position : position + 2]
            break
        if argument.startswith("--python="):
            wanted = argument.partition("=")[2]
            del rest[position]
            break
    return wanted, rest


def environment(extra: str, python: str = "") -> Path:
    """Return the bin directory of an environment with the project and an extra of it.

    Args:
        extra: An optional dependency group of pyproject.toml, e.g. ``dev``.
        python: The interpreter wanted, see `take_python`.
    """
    base, version = find_python(python)
    venv = ROOT / ".venv" / version
    venv.parent.mkdir(exist_ok=True)
    with open(venv.parent / f"{version}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two scripts may start at once
        stamp = venv / "circusplug-stamp.json"
        content = (ROOT / "pyproject.toml").read_bytes()
        wanted = {"root": str(ROOT), "pyproject": hashlib.sha256(content).hexdigest()}
        extras = installed_extras(venv, stamp, wanted, version)
        if extras is None:
            say(f"making .venv/{version} (Python {version})")
            make(venv, base)
            extras = set()
        if extra not in extras:
            say(f"installing circusplug[{extra}] into .venv/{version}")
            stamp.unlink(missing_ok=True)
            install(venv, extra)
            extras |= BRINGS.get(extra, {extra})
            stamp.write_text(json.dumps({**wanted, "extras": sorted(extras)}))
    return venv / "bin"


def find_python(wanted: str) -> tuple[str, str]:
    """Return the path of a fitting interpreter and its version, such as ``3.11``."""
    if wanted:
        names = [wanted]
        if wanted[0].isdigit():
            pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
            names = [f"python{wanted}", *sorted(glob(f"{pyenv}/versions/{wanted}*/bin/python"))]
    else:
        newest_first = range(NEWEST[1], OLDEST[1] - 1, -1)
        names = [sys.executable, *(f"python3.{minor}" for minor in newest_first)]
    for name in names:
        found = ask(name, "import sys; print(sys.executable, *sys.version_info[:2], sep='\\n')")
        if len(found) == 3 and (int(found[1]), int(found[2])) >= OLDEST:
            return found[0], f"{found[1]}.{found[2]}"
    oldest = ".".join(map(str, OLDEST))
    if wanted:
        fail(f"{wanted}: no Python {oldest} or newer runs by that name here")
    fail(f"needs Python {oldest} or newer, and python3 is {sys.version.split()[0]}")


def ask(python: str | Path, program: str) -> list[str]:
    """Run a program in another interpreter; return its lines, none if that failed."""
    try:
        done = subprocess.run(
            [python, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def installed_extras(
    venv: Path, stamp: Path, wanted: dict[str, str], version: str
) -> set[str] | None:
    """Return the extras that are installed as wanted now; None if there is no sound venv."""
    program = "import sys; print('%d.%d' % sys.version_info[:2]); import pip"
    if ask(venv / "bin" / "python", program) != [version]:
        return None
    try:
        found = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return set()
    if found.get("root") != wanted["root"]:
        return None  # the checkout was moved, and scripts in there hold its old path
    return set(found["extras"]) if found.get("pyproject") == wanted["pyproject"] else set()


def make(venv: Path, base: str) -> None:
    """Make the environment anew."""
    shutil.rmtree(venv, ignore_errors=True)
    done = subprocess.run([base, "-m", "venv", venv], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        hint = " (on Debian and Ubuntu: install python3-venv)" if "ensurepip" in done.stdout else ""
        fail(f"{base} cannot make a virtual environment{hint}\n{done.stdout}{done.stderr}")


def install(venv: Path, extra: str) -> None:
    """Install the project, editable, with an extra.

    Circus has a command `circus-plugin`, too, and the package that was installed last owns
    it; so the project itself is installed once more, after what it needs.
    """
    for options in (["--editable", f"{ROOT}[{extra}]"], ["--no-deps", "--editable", str(ROOT)]):
        command = [str(venv / "bin" / "python"), *PIP, "install", *options]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if not done.returncode:
            continue
        output = (done.stderr + done.stdout).strip()
        if any(word in output for word in NO_NETWORK):
            fail(f"pip cannot reach the package index for circusplug[{extra}]; is there a network?")
        fail(f"pip could not install circusplug[{extra}]:\n{output}")


def run(program: Path, *arguments: str) -> NoReturn:
    """Become another program, so that signals reach it and its exit status is ours."""
    sys.stdout.flush()
    os.chdir(ROOT)
    # Where this is set, each of the many processes to come would compile all modules anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.execv(program, [str(program), *arguments])


def interruptible(main: Callable[[], object]) -> None:
    """Call *main*; a Ctrl-C during the set-up ends it without a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
