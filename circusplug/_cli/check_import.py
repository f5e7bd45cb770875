# Importing a plugin as its start does, to tell what would go wrong: in this process, or in one of
# its own where the plugin has a path of its own to import from, which is no other plugin's.

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence

from .._config.specs import PluginSpec
from .._plugin.load import load_problems, watcher_problems
from .._secrets import declared_secrets

#: Stands before the answer in what a process of its own prints; one that ended by itself has none.
_DONE = "\0done:"

#: Place, key and value of what watchers' sections may say to a plugin.
Said = Sequence[tuple[str, str, str]]


def import_problems(spec: PluginSpec, watchers: Said) -> list[str]:
    """What is wrong with a plugin's class or its options, those for watchers too; a line each."""
    apart = spec.host.python_path or spec.host.env
    return _in_a_process(spec, watchers) if apart else _here(spec, watchers)


def _here(spec: PluginSpec, watchers: Said) -> list[str]:
    with _output_to_stderr():
        return load_problems(spec) + watcher_problems(spec, watchers)


def _in_a_process(spec: PluginSpec, watchers: Said) -> list[str]:
    path = [*spec.host.python_path, *sys.path]
    program = f"import sys; sys.path[:] = {path!r}; from {__name__} import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps((spec, watchers)),
        stdout=subprocess.PIPE,
        env={**os.environ, **spec.host.env},
        check=False,
    )
    _, done, answer = ended.stdout.decode("utf-8", "replace").partition(_DONE)
    if done:
        problems, secrets = json.loads(answer)
        declared_secrets.update(secrets)
        return list(problems)
    status = f"with status {ended.returncode}"
    return [f"{spec.place}: importing {spec.use_name} ended the process that did it, {status}"]


def main() -> None:
    """Be the process of its own: a specification on standard input, the problems on output."""
    problems = _here(*pickle.load(sys.stdin.buffer))
    sys.stdout.write(_DONE + json.dumps([problems, list(declared_secrets)]))
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
