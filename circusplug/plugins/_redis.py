# Sends what a Redis server tells of itself to statsd; restarts watchers when it does not answer.
#
# Owner: the plugin's thread.

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from circusplug import SpecError
from circusplug.options import Names, Seconds, declare, option

from ._extras import need
from ._probing import ProbeOptions, Prober
from ._statsd_client import clean

_FIGURES = (
    "blocked_clients, client_biggest_input_buf, client_longest_output_list, connected_clients, "
    "connected_slaves, evicted_keys, expired_keys, keyspace_hits, keyspace_misses, lru_clock, "
    "mem_fragmentation_ratio, pubsub_channels, pubsub_patterns, total_commands_processed, "
    "total_connections_received, uptime_in_seconds, used_cpu_sys, used_cpu_sys_children, "
    "used_cpu_user, used_memory, used_memory_peak, used_memory_rss"
)


@dataclass(frozen=True)
class RedisObserverOptions(ProbeOptions):
    """What `RedisObserver` can be told."""

    application_name: str = option(
        "redis_observer", meaning="the application, a part of each figure's name"
    )
    redis_url: str = option(
        "redis://localhost:6379/0", meaning="where Redis is: redis://, rediss:// or unix://"
    )
    timeout: Seconds = option(5, above=0, meaning="how long an answer may take")
    restart_on_timeout: Names = option(
        "", meaning="names of watchers to restart when it does not answer, with * and ?"
    )
    figures: Names = option(_FIGURES, meaning="what to send of INFO; what is not there is left out")

    def __post_init__(self) -> None:
        need("redis", "RedisObserver")
        from redis.asyncio.connection import parse_url

        try:
            parse_url(self.redis_url)
        except ValueError as error:
            raise SpecError(f"'redis_url': {error}", key="redis_url") from None


class RedisObserver(Prober):
    """Sends figures of a Redis server to statsd, and restarts watchers when it does not answer.

    Every `loop_rate` it asks for ``INFO``. What of it is a number and among `figures` goes to
    statsd as the gauge ``redis_stats.FIGURE``; no answer is counted as ``redis_stats.error``, a
    restart as ``redis_stats.restart_on_error``. Needs redis: ``pip install 'circusplug[redis]'``.
    """

    name = "redis_observer"
    options = declare(RedisObserverOptions)
    group = "redis_stats"

    def to_restart(self) -> Names:
        return self.options.restart_on_timeout

    async def probe(self) -> None:
        try:
            with self.loop.outside():
                found = await asyncio.wait_for(self._info(), self.options.timeout)
        except Exception as error:  # noqa: BLE001 - whatever a server's rubbish leads to
            await self.ill("Redis", str(error) or "no answer")
            return
        self.well("Redis")
        for what in self.options.figures:
            value = found.get(what)
            if isinstance(value, int | float):
                self.gauge(clean(what), value, group=self.group)

    async def _info(self) -> dict[str, Any]:
        import redis.asyncio

        timeout = self.options.timeout
        async with redis.asyncio.from_url(
            self.options.redis_url, socket_timeout=timeout, socket_connect_timeout=timeout
        ) as client:
            found: dict[str, Any] = await client.info()
            return found
