# CPU for each event received, while a flood of them comes in: without decoding, and with what
# nearly every plugin does first.
#
# What is compared is the CPU of the whole process, with libzmq's I/O thread, as that is what a
# machine pays for an event, and no cost can hide on another thread. The I/O thread's part is
# the same for all, which brings the ratios nearer to 1; what the receiving thread alone takes
# is in the JSON.

from __future__ import annotations

from ..field import Runner, contenders
from ..processes import cpu_seconds, thread_cpu_seconds
from ..report import Goal, Row, spread, times
from ..scale import Scale, progress
from ..standin import StandIn

KINDS = ("bare", "ours", "circus")


def measure(scale: Scale) -> list[Row]:
    """Measure both rows."""
    return [
        _row(scale, "receive", "CPU per event, not decoded", 1.3, 14),
        _row(scale, "decode", "CPU per event, split_data and load_message", 1.4, 5),
    ]


def _row(scale: Scale, mode: str, what: str, times_bare: float, less: float) -> Row:
    process: dict[str, list[float]] = {kind: [] for kind in KINDS}
    thread: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with contenders(mode, {kind: [] for kind in KINDS}) as (stand_in, runners):
        for number in range(scale.short_rounds + 1):
            progress(what, number, scale.short_rounds)
            for runner in runners:
                whole, part = _flood(stand_in, runner, scale.events)
                if number:  # the first one warms up
                    process[runner.kind].append(whole)
                    thread[runner.kind].append(part)
    return Row.of(
        what,
        process,
        Goal(times(process["ours"], process["bare"]), times_bare, "x bare"),
        Goal(times(process["circus"], process["ours"]), less, "x less than Circus", at_least=True),
        unit="µs",
        headline=mode == "decode",
        receiving_thread={kind: spread(values) for kind, values in thread.items()},
    )


def _flood(stand_in: StandIn, runner: Runner, events: int) -> tuple[float, float]:
    """CPU per event in microseconds: of the process, and of the thread that receives."""
    pid = runner.process.pid
    runner.settle()
    before = cpu_seconds(pid), thread_cpu_seconds(pid, runner.thread)
    stand_in.flood(runner.number, events)
    runner.settle()
    after = cpu_seconds(pid), thread_cpu_seconds(pid, runner.thread)
    return (after[0] - before[0]) / events * 1e6, (after[1] - before[1]) / events * 1e6
