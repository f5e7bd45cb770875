# The rows that have a goal, drawn: how far each is from Circus and from bare pyzmq.

from __future__ import annotations

from collections.abc import Sequence

from .report import Row, figure


def draw(rows: Sequence[Row], caption: str, path: str) -> None:
    """Draw what ours takes of what Circus takes, and what bare pyzmq takes, to a file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [row for row in rows if row.ours and row.circus][::-1]
    figure_, axes = plt.subplots(figsize=(10, 1.5 + 0.45 * len(shown)))
    for place, row in enumerate(shown):
        assert row.ours
        assert row.circus
        axes.barh(place, 1, 0.7, color="#d9d9d9", label="Circus" if not place else "")
        axes.barh(place, row.ours / row.circus, 0.4, color="#2b7bba", label="ours" * (not place))
        if row.bare:
            axes.plot(row.bare / row.circus, place, "k|", markersize=16)
        text = f"{figure(row.ours, row.unit)}, Circus {figure(row.circus, row.unit)}"
        axes.text(1.15 * max(1, row.ours / row.circus), place, text, va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [row.what for row in shown], fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(right=12)
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_xlabel("part of what Circus takes (log scale); the bar across: bare pyzmq")
    axes.legend(loc="lower left", fontsize=8)
    figure_.text(0.01, 0.005, caption, fontsize=6)
    figure_.tight_layout()
    figure_.savefig(path, dpi=120)
    plt.close(figure_)
