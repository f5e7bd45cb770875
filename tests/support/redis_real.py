# A real Redis server, on a Unix socket of its own; tests are left out where there is none.

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import debian
import pytest

PROGRAM = debian.find("redis-server")

needs_redis = pytest.mark.skipif(
    PROGRAM is None, reason="no redis-server here (Debian's package redis-tools)"
)


@contextlib.contextmanager
def redis_server(directory: Path, *options: str) -> Iterator[str]:
    """Runs a server; gives its URL."""
    path = directory / "redis"
    assert PROGRAM is not None
    command = [
        *(PROGRAM, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(directory)),
        *options,
    ]
    environment = debian.environment("redis-server")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "server is now ready to accept connections" in line:
                break
        try:
            yield f"unix://{path}"
        finally:
            process.kill()
