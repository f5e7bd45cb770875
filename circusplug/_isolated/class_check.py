# Looking at the classes of isolated plugins while their host runs: in processes that are set up as
# the plugins' own, so that their code runs with no other user's rights, path or limits, and does
# no harm here.
#
# Owner: the calling thread waits; each check has a thread and a process until it is done.

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Sequence
from typing import Any

from .._config.specs import HostConfig, PluginSpec
from .._plugin.status import Counters
from .._runners.runner import Kind, Notice, Surroundings
from .._wire.endpoints import Link
from .pipes import Pipes
from .process_runner import ProcessRunner

#: How many classes are checked at the same time.
_AT_ONCE = 2 + (os.cpu_count() or 1)


def check_classes(
    specs: Sequence[PluginSpec], config: HostConfig, host_over: concurrent.futures.Future[None]
) -> list[str]:
    """What is wrong with the classes and options of isolated plugins, a line each.

    Args:
        specs: The plugins.
        config: Of their host.
        host_over: Is done when nobody wants to know any more.
    """
    if not specs:
        return []
    with Pipes() as pipes, concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
        found = threads.map(lambda spec: _problem(spec, config, pipes, host_over), specs)
        return list(filter(None, found))


def _problem(
    spec: PluginSpec,
    config: HostConfig,
    pipes: Pipes,
    host_over: concurrent.futures.Future[None],
) -> str:
    if host_over.done():
        return ""
    ended: concurrent.futures.Future[Notice] = concurrent.futures.Future()

    def take(notice: Notice) -> None:
        if notice.kind is Kind.ENDED:
            ended.set_result(notice)

    around = Surroundings(config, Link(), take)
    runner = ProcessRunner(spec, around, Counters(), pipes, only_check=True)
    runner.start()
    seconds = spec.host.start_timeout
    either: list[concurrent.futures.Future[Any]] = [ended, host_over]
    concurrent.futures.wait(either, seconds, concurrent.futures.FIRST_COMPLETED)
    if not ended.done():
        runner.abandon()
        return f"{spec.place}: the class of {spec.use_name} is not loaded after {seconds:g} s"
    notice = ended.result()
    if notice.permanent or not notice.error:  # it is said as `load_checked` says it
        return notice.error or ""
    return f"{spec.place}: {notice.error}"
