"""Draws what was measured: stages beside their limits, and throughput against waiting.

Colours are Okabe and Ito's, which the colour-blind tell apart; stages also have patterns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common import Result

#: Colour and pattern of each stage, in the order in which they run.
_STAGES = {
    "decode, resize": ("#F0E442", ""),
    "stem": ("#E69F00", "//"),
    "encoder": ("#56B4E9", ""),
    "cross keys, values": ("#CC79A7", "xx"),
    "decoding": ("#009E73", ".."),
    "text": ("#999999", ""),
}
_PERCENTILES = {"p50": ("#0072B2", "o", "-"), "p90": ("#D55E00", "s", "--")}
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # The same file from the same numbers.
    "svg.hashsalt": "ofa",
    "hatch.linewidth": 0.5,
}


def draw_stages(results: Sequence[Result], file: Path) -> None:
    """A panel for each size: a bar for each result, by stage, with its limit as a line."""
    sizes: dict[str, list[Result]] = {}
    for result in results:
        sizes.setdefault(result["name"], []).append(result)
    if not sizes:
        return
    with mpl.rc_context(_STYLE):
        counts = [len(own) for own in sizes.values()]
        figure = Figure(figsize=(8, 1.3 + 0.45 * sum(counts) + 0.55 * len(counts)))
        panels = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=counts)[:, 0]
        for panel, (size, own) in zip(panels, sizes.items(), strict=True):
            _draw_size(panel, size, own)
        panels[-1].set_xlabel("seconds a picture")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=4, frameon=False)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.6 / figure.get_figheight()))
        _save(figure, file)


def _draw_size(panel: Axes, size: str, results: Sequence[Result]) -> None:
    names = []
    for row, result in enumerate(results):
        batch = f", batch {result['batch_size']}" * (result["batch_size"] > 1)
        names.append(f"{result['precision']}{batch}")
        start = 0.0
        for stage, (colour, pattern) in _STAGES.items():
            seconds = result["ours"][stage]
            label = stage if row == 0 else None
            panel.barh(
                row,
                seconds,
                left=start,
                height=0.6,
                color=colour,
                hatch=pattern,
                edgecolor="black",
                linewidth=0.4,
                label=label,
            )
            start += seconds
        # Where the generator would end at the machine's rates, decoding and resizing before it.
        limit = result["ours"]["decode, resize"] + result["limits"]["generator"]
        panel.plot(
            [limit, limit],
            [row - 0.4, row + 0.4],
            color="black",
            linewidth=2.5,
            label="limit" if row == 0 else None,
        )
        reference = result["reference"]
        whole = result["ours"]["whole"]
        ratio = f", {reference['whole'] / whole:.1f} x ModelScope" if reference else ""
        panel.annotate(
            f" {whole:.3g} s{ratio}",
            (start, row),
            va="center",
            xytext=(4, 0),
            textcoords="offset points",
        )
    longest = max(sum(result["ours"][stage] for stage in _STAGES) for result in results)
    # Room for the remark behind the longest bar.
    panel.set_xlim(0, 1.35 * longest)
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    panel.set_title(size, loc="left", fontweight="bold")


def draw_loads(results: Sequence[Result], file: Path) -> None:
    """How long clients wait by the answers a second, a panel for each ensemble."""
    if not results:
        return
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6, 3.6 * len(results)))
        panels = figure.subplots(len(results), 1, squeeze=False)[:, 0]
        for panel, result in zip(panels, results, strict=True):
            _draw_load(panel, result)
        figure.tight_layout()
        _save(figure, file)


def _draw_load(panel: Axes, result: Result) -> None:
    loads = result["loads"]
    rates = [load["per_second"] for load in loads]
    for percentile, (colour, marker, line) in _PERCENTILES.items():
        waits = [load["latencies_ms"][percentile] for load in loads]
        panel.plot(rates, waits, color=colour, marker=marker, linestyle=line, label=percentile)
    for load in loads:
        clients = "1 client" if load["num_clients"] == 1 else f"{load['num_clients']} clients"
        point = (load["per_second"], load["latencies_ms"]["p50"])
        panel.annotate(clients, point, xytext=(6, -11), textcoords="offset points")
    best = result["best_per_second"]
    panel.axvline(best, color="black", linestyle=":", label="the best without a server")
    panel.set_xlim(0, 1.1 * max([best, *rates]))
    panel.set_ylim(bottom=0)
    panel.set_xlabel("answers a second")
    panel.set_ylabel("milliseconds until the answer")
    panel.set_title(result["name"], loc="left", fontweight="bold")
    panel.legend(frameon=False, loc="upper left")


def draw_sweep(result: Result, file: Path) -> None:
    """A row for each candidate, as measured: answers a second, and what a single client waits."""
    candidates = result["candidates"]
    names, colours = [], []
    for candidate in candidates:
        settings = candidate["settings"]
        marks = [mark for mark in ("shipped", "best") if settings == result[mark]]
        remark = f" ({', '.join(marks)})" if marks else ""
        generators = f"{settings['generator_instances']} x {settings['threads']} threads"
        names.append(
            f"{settings['preprocess_instances']} preprocess, {generators}, "
            f"batch {settings['max_batch_size']}, {settings['delay_us'] / 1000:g} ms{remark}"
        )
        colours.append("#D55E00" if "best" in marks else "#0072B2" if marks else "#999999")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 1.2 + 0.32 * len(candidates)))
        left, right = figure.subplots(1, 2, sharey=True)
        rows = range(len(candidates))
        for panel, key, title in (
            (left, "per_second", "answers/s, 16 clients"),
            (right, "alone_ms", "ms until the answer, 1 client (p50)"),
        ):
            bars = panel.barh(rows, [each[key] for each in candidates], color=colours)
            panel.bar_label(bars, fmt="%.3g", padding=3)
            panel.margins(x=0.15)
            panel.set_title(title, loc="left")
        left.set_yticks(rows, names)
        left.invert_yaxis()
        figure.tight_layout()
        _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    metadata = {"Date": None} if file.suffix == ".svg" else None
    figure.savefig(file, metadata=metadata, dpi=150)
