# A command that is a receiver of Alert's, and what it is told of a death.

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

DIED = "a process (pid 7) died with exit code 3"


class Inbox:
    """A command that is an alert's receiver; what it gets can be read, and it can be refused."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.refuses = path.with_suffix(".refuses")
        self._path = path
        program = (
            "import json, os, sys; "
            "env = {k: v for k, v in os.environ.items() if k.startswith('CIRCUSPLUG_')}; "
            "open(sys.argv[1], 'w').write(json.dumps([json.load(sys.stdin), env])); "
            "sys.exit(os.path.exists(sys.argv[2]))"
        )
        self.command = shlex.join([sys.executable, "-c", program, str(path), str(self.refuses)])

    def wait(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Wait for a message; gives its JSON and the variables. The command ends only then."""
        message, environment = json.loads(self._path.read_text())
        return message, environment
