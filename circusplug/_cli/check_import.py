# Importing a plugin as its start does, to tell what would go wrong: in this process, or in one of
# its own where the plugin has a path of its own to import from, which is no other plugin's.

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator

from .._config.specs import PluginSpec
from .._plugin.load import load_problem

#: Stands before the problem in what a process of its own prints; one that ended by itself has none.
_DONE = "\0done:"


def import_problem(spec: PluginSpec) -> str:
    """What is wrong with a plugin's class or its options, in one line; or nothing."""
    return _in_a_process(spec) if spec.host.python_path else _here(spec)


def _here(spec: PluginSpec) -> str:
    with _output_to_stderr():
        return load_problem(spec)


def _in_a_process(spec: PluginSpec) -> str:
    path = [*spec.host.python_path, *sys.path]
    program = f"import sys; sys.path[:] = {path!r}; from {__name__} import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(spec),
        stdout=subprocess.PIPE,
        env={**os.environ, **spec.host.env},
        check=False,
    )
    _, done, problem = ended.stdout.decode("utf-8", "replace").partition(_DONE)
    if done:
        return problem
    return (
        f"{spec.place}: importing {spec.use_name} ended the process that did it, with status "
        f"{ended.returncode}"
    )


def main() -> None:
    """Be the process of its own: a specification on standard input, the problem on output."""
    problem = _here(pickle.load(sys.stdin.buffer))
    sys.stdout.buffer.write(f"{_DONE}{problem}".encode("utf-8", "replace"))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # whatever threads the import has left


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """What a module prints when it is imported, by whatever means, is no part of our output."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(ours, 1)
        os.close(ours)
