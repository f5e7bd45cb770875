# CPU for each call(), with its reply, and how long it takes from beginning to end. Small
# pieces in turn, so that a change of the machine's mood meets all contenders.

from __future__ import annotations

from statistics import median

from ..field import contenders
from ..report import Goal, Row, times
from ..scale import Scale, progress

#: Most of a call is the kernel and libzmq, which are the same for all.
NOISE = 0.03

KINDS = ("bare", "ours", "circus", "client")


def measure(scale: Scale) -> list[Row]:
    """Measure the CPU's row and that of the round trip."""
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    trip: dict[str, list[float]] = {kind: [] for kind in KINDS}
    rounds = 3 * scale.short_rounds
    options = [str(scale.calls)]
    with contenders("calls", dict.fromkeys(KINDS, options)) as (stand_in, runners):
        for number in range(rounds + 1):
            progress("calls", number, rounds)
            for runner in runners:
                stand_in.pace(runner.number, 1, 1e6)
                said = runner.hear()
                if number:
                    cpu[runner.kind].append(said["cpu"] * 1e6)
                    trip[runner.kind].append(median(said["trips"]) * 1e6)
    return [
        _row("CPU per call()", cpu),
        _row("round trip of a call()", trip),
    ]


def _row(what: str, values: dict[str, list[float]]) -> Row:
    return Row.of(
        what,
        values,
        Goal(times(values["ours"], values["circus"]), 1.0, "x Circus", noise=NOISE),
        Goal(times(values["ours"], values["client"]), 1.0, "x CircusClient"),
        unit="µs",
    )
