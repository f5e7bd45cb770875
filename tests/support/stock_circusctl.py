# Circus's own circusctl, as often as a test likes: a process that has imported it forks for each
# command, as its imports take most of its time.

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType

_PROGRAM = """\
import json, os, sys, traceback
from circus import circusctl

for line in sys.stdin:
    arguments, out = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
            os.dup2(1, 2)
            sys.argv = ["circusctl", *arguments]
            circusctl.main()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else error.code is not None
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Circusctl:
    """Runs circusctl; a context manager."""

    def __init__(self, out: object) -> None:
        self._out = str(out)

    def __enter__(self) -> Circusctl:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def run(self, *arguments: str) -> tuple[int, str]:
        """Its exit status, and what it prints on whichever stream."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, self._out]) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        with open(self._out, encoding="utf-8") as said:
            return status, said.read()
