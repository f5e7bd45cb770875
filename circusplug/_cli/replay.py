# `circusplug replay`: what a plugin would have done, had it been there when a recording was made.

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .._errors import HostError
from .._plugin.load import load_plugin_class
from .workshop import read_option

if TYPE_CHECKING:
    from ..testing import Deed


def replay(given: argparse.Namespace) -> int:
    """Replay, and print what is done; returns the exit status.

    Raises:
        PluginLoadError: There is no such plugin.
        RecordingError: The file is no recording.
        SpecError: An option is not valid.
        HostError: The plugin does not come to rest.
    """
    from .. import testing

    plugin_class = load_plugin_class(given.use)
    options = dict(map(read_option, given.option))
    bad = 0

    def show(deed: Deed) -> None:
        nonlocal bad
        bad += deed.kind in ("error", "clock")
        print(deed.to_json() if given.json else deed)

    try:
        result = testing.replay(
            given.recording,
            plugin_class,
            speed=given.speed,
            strict=given.strict,
            on_deed=show,
            **options,
        )
    except AssertionError as error:
        raise HostError(f"{given.use}: {error}") from None
    for line in result.warnings:
        print(f"circusplug: warning: {line}", file=sys.stderr)
    print(f"{result.events} events in {result.seconds:.0f} s", file=sys.stderr)
    return 1 if bad else 0
