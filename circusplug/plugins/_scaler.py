# Adds and removes processes of one watcher by their load, or by the number that a command prints
# (_command_number.py).
#
# Owner: the plugin's thread.

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

from circusplug import CallError, CircusPlugin, SpecError
from circusplug.options import Command, Percent, Seconds, declare, option

from ._command_number import CommandNumber
from ._delivery import DeliveryError, deliver, need_program
from ._processes import Meter, processes_of


@dataclass(frozen=True)
class LoadScalerOptions:
    """What a `LoadScaler` can be told."""

    watcher: str = option(
        meaning="the name of the watcher to scale",
        example="web",
    )
    min_processes: int = option(1, minimum=0, meaning="never fewer processes")
    max_processes: int | None = option(
        None,
        minimum=1,
        meaning="never more; without it none is added beyond the number of CPUs, and those that "
        "are there stay",
    )
    period: Seconds = option(10, above=0, meaning="how often to look")
    up_above: Percent = option(
        80, meaning="add a process above this", unit="percent of one CPU, or what command prints"
    )
    down_below: Percent = option(
        20, meaning="remove a process below this", unit="percent of one CPU, or what command prints"
    )
    cooldown: Seconds = option(30, meaning="how long to leave the watcher alone after a change")
    command: Command = option(
        "",
        meaning="a command that prints the number to go by, a queue's length, instead of the CPU",
        example="redis-cli llen jobs",
    )
    command_timeout: Seconds = option(10, above=0, meaning="how long the command may take")
    dry_run: bool = option(False, meaning="only tell what would be done")

    def __post_init__(self) -> None:
        most = self.max_processes
        if most is not None and self.min_processes > most:
            raise SpecError(
                f"'min_processes' ({self.min_processes}) is more than 'max_processes' ({most})",
                key="min_processes",
            )
        if self.down_below >= self.up_above:
            raise SpecError(
                f"'down_below' ({self.down_below:g}) must be less than 'up_above' "
                f"({self.up_above:g})",
                key="down_below",
            )


class LoadScaler(CircusPlugin):
    """Adds and removes processes of one watcher, one at a time, by CPU or by a command's number.

    It looks every `period`: above `up_above` it adds a process, below `down_below` it removes
    one, and then leaves the watcher alone for `cooldown`. A number of processes outside the
    bounds is corrected at the next look. The CPU load is the mean of what the processes use, with
    all that they have started, measured here if circusd runs here and psutil is installed.
    Otherwise it is what circusd's ``stats`` says, which is 0 for children: for a watcher that runs
    its program in a shell it means nothing.

    `command` is run without a shell. While it fails, prints anything but a number or takes too
    long, that is told, and nothing is scaled.

    Raises:
        SpecError: There is no such command.
    """

    name = "load_scaler"
    options = declare(LoadScalerOptions)
    topics = ()

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self._looking = asyncio.Lock()
        self._known: set[int] = set()
        self._meter = Meter.of_plugin(self)
        self._leave_alone_until = float("-inf")
        self._trouble = ""
        self._told = ""

    def handle_init(self) -> None:
        if self.options.command:
            need_program(self.options.command)
        self.periodic(self.look, self.options.period)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        """Nothing to do: this plugin subscribes to no topic."""

    async def handle_reconnect(self) -> None:
        """Look at once: a circusd that was restarted begins with the numbers of its file."""
        self._known.clear()
        self._leave_alone_until = float("-inf")
        await self.look()

    def clock(self) -> float:
        """Seconds that only ever go forward, for the cooldown."""
        moment: float = self.loop.time()
        return moment

    async def look(self) -> None:
        """Look at the watcher and scale it; trouble is left to the next look."""
        async with self._looking:
            try:
                await self._scale()
            except (CallError, DeliveryError) as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    self.logger.warning("%s; trying again every %g s", error, self.options.period)
            else:
                self._trouble = ""

    async def _scale(self) -> None:
        load = await self._look()
        # What is wanted, not what runs: while a crashed process is missing, an `incr` would
        # otherwise lead beyond the maximum.
        reply = await self.call_async("get", name=self.options.watcher, keys=["numprocesses"])
        count = int(reply["options"]["numprocesses"])
        most = self.options.max_processes
        if most is None:
            most = max(os.cpu_count() or 1, self.options.min_processes, count)
        wanted = self._decide(count, load, most)
        if wanted == count:
            self._told = ""
            return
        if count < self.options.min_processes:
            why = f"fewer than min_processes ({self.options.min_processes})"
        elif count > most:
            why = f"more than max_processes ({most})"
        elif self.options.command:
            why = f"{self.options.command[0]} says {load:g}"
        else:
            why = f"load {load or 0.0:.1f} %"
        text = f"{self.options.watcher}: {why}, {count} -> {wanted} processes"
        if not self.options.dry_run:
            await self._change(wanted - count)
            self.logger.info("%s", text)
        elif text != self._told:
            self._told = text
            self.logger.info("%s, if this were no dry run", text)
        self._leave_alone_until = self.clock() + self.options.cooldown

    async def _look(self) -> float | None:
        """What to go by: the mean load, in percent, or the number that the command prints."""
        if self.options.command:
            delivery = CommandNumber(self.options.command)
            await deliver(delivery, self.options.command_timeout)
            return delivery.number
        stats = await self.call_async("stats", name=self.options.watcher)
        return self._mean_load(stats.get("info"))

    async def _change(self, by: int) -> None:
        command = "incr" if by > 0 else "decr"
        reply = await self.call_async(command, name=self.options.watcher, nb=abs(by))
        if reply.get("singleton"):
            raise CallError(command, {"name": self.options.watcher}, "a singleton cannot be scaled")

    def _decide(self, count: int, load: float | None, most: int) -> int:
        """How many processes there should be."""
        bounded = min(max(count, self.options.min_processes), most)
        if bounded != count or load is None or self.clock() < self._leave_alone_until:
            return bounded
        if load > self.options.up_above:
            return min(count + 1, most)
        if load < self.options.down_below:
            return max(count - 1, self.options.min_processes)
        return count

    def _mean_load(self, infos: Any) -> float | None:
        """The mean CPU load, in percent; None if there is no figure.

        A process's first figure is left out: it is 0 always, for there was no earlier look to
        count from.
        """
        loads = {info["pid"]: self._meter.family_of(info).cpu for info in processes_of(infos)}
        self._meter.forget_gone()
        known, self._known = self._known, set(loads)
        figures = [load for pid, load in loads.items() if pid in known and load is not None]
        return sum(figures) / len(figures) if figures else None
