# The options of commands that say where a circusd is.

from __future__ import annotations

import argparse

from .._config.specs import HostConfig
from .._errors import SpecError


def add_options(command: argparse.ArgumentParser) -> None:
    """Add those of a command that otherwise looks into a file."""
    command.add_argument(
        "--endpoint", type=read, help="circusd's command endpoint instead of the file's"
    )
    command.add_argument(
        "--pubsub", type=read, help="circusd's event endpoint instead of the file's"
    )


def read(text: str) -> str:
    """Read an endpoint; raises ArgumentTypeError if it is none."""
    try:
        HostConfig(endpoint=text)
    except SpecError as error:
        raise argparse.ArgumentTypeError(error.message.removeprefix("'endpoint': ")) from None
    return text
