"""What was measured, as a table in README.md, a table of the tries in bench/README.md, and two figures.

`make bench` ends with it; `python -m bench.report` makes them again from the files in `bench/results`.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.ticker import FixedLocator, ScalarFormatter

from bench.worker import TOP
from r1repro import plots
from r1repro.run import between_marks, write_text

RESULTS = TOP / "bench" / "results"

TARGETS = {
    ("rollout-16x16-short", "TRL 1.16"): 5.0,
    ("rollout-16x16-long", "TRL 1.16"): 4.0,
    ("sample-32x16-1M", "transformers generate"): 6.0,
    ("sample-32x16-1M", "vLLM 0.32, CPU build"): 1.5,
    ("sample-32x16-20M", "vLLM 0.32, CPU build"): 1.0,
    ("sft-packed", "TRL 1.16"): 1.2,
}
"""(entry, peer) -> the ratio that was set as the aim before anything was measured."""

MATMUL_TARGET = 0.6


def faults(rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong with results: missing keys, ratios or medians that do not follow from the runs, doubled entries."""
    wanted = {"name": str, "peer": str, "ours": float, "theirs": float, "unit": str, "ratio": float, "runs": list}
    found = []
    for number, row in enumerate(rows):
        where = f"row {number} ({row.get('name')}, {row.get('peer')})"
        missing = [key for key, kind in wanted.items() if not isinstance(row.get(key), kind)]
        if missing:
            found.append(f"{where}: {', '.join(missing)} missing or of the wrong kind")
            continue
        if row["unit"] not in ("s", "tokens/s"):
            found.append(f"{where}: unit {row['unit']!r}")
        for what in [row, *row["runs"]]:
            right = what["theirs"] / what["ours"] if row["unit"] == "s" else what["ours"] / what["theirs"]
            if abs(what["ratio"] - right) > 1e-9 * right:
                found.append(f"{where}: ratio {what['ratio']}, not {right}")
        for side in ("ours", "theirs"):
            if row["runs"] and abs(median([r[side] for r in row["runs"]]) - row[side]) > 1e-9 * row[side]:
                found.append(f"{where}: {side} is not the median of the runs")
    keys = [(row.get("name"), row.get("peer")) for row in rows]
    return found + [f"{key}: twice" for key in sorted(set(keys), key=str) if keys.count(key) > 1]


def table(rows: list[dict[str, Any]]) -> str:
    """The README's table; the ratio with its lowest and highest round."""
    lines = ["| work | peer | ours | peer's | ratio (lowest to highest round) | aim |", "|---|---|---|---|---|---|"]
    for row in rows:
        ratios = [run["ratio"] for run in row["runs"]] or [row["ratio"]]
        aim = TARGETS.get((row["name"], row["peer"]))
        said = f"{aim:g}, {'met' if row['ratio'] >= aim else '**missed**'}" if aim else ""
        lines.append(
            f"| `{row['name']}` | {row['peer']} | {figure(row['ours'], row['unit'])} | "
            f"{figure(row['theirs'], row['unit'])} | **{row['ratio']:.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) | "
            f"{said} |"
        )
    shares = [row["share_of_matmul"] for row in rows if "share_of_matmul" in row]
    if shares:
        met = "met" if shares[0] >= MATMUL_TARGET else "**missed**"
        lines += ["", f"Our training step reaches {shares[0]:.0%} of the rate of plain matrix products of its shapes, "
                  f"measured beside it (aim {MATMUL_TARGET:.0%}, {met})."]  # fmt: skip
    return "\n".join(lines)


def figure(value: float, unit: str) -> str:
    """A value with its unit, three digits.

    >>> figure(12.345, "s"), figure(12345.6, "tokens/s")
    ('12.3 s', '12,300 tokens/s')
    """
    return f"{float(f'{value:.3g}'):,g} {unit}"


def tries_table(rows: list[dict[str, Any]]) -> str:
    """Every setting of a peer that was tried, each once."""
    lines = ["| work | peer | settings | figure |", "|---|---|---|---|"]
    for row in rows:
        said = ", ".join(f"{key}={value}" for key, value in row["settings"].items() if "env.VLLM_E" not in key)
        got = figure(row["value"], row["unit"]) if "value" in row else f"failed: {row['failed']}"
        if "value" in row:
            got += f", {row['tokens']:,} tokens"
        got = got.replace("|", "/")
        lines.append(f"| `{row['name']}` | {row['peer']} | {f'`{said}`' if said else 'none'} | {got} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]]):
    """Ratio of each entry, a dot a round, with its aim."""
    drawing, grid = plots.axes_grid(1, 1, (8, 0.55 * len(rows) + 1.2))
    axes = grid[0, 0]
    for y, row in enumerate(rows):
        axes.barh(y, row["ratio"], color=plots.SKY, height=0.6)
        axes.plot([run["ratio"] for run in row["runs"]], [y] * len(row["runs"]), "o", color=plots.BLUE, ms=4)
        aim = TARGETS.get((row["name"], row["peer"]))
        if aim:
            axes.plot([aim, aim], [y - 0.38, y + 0.38], color=plots.RED, lw=2, label="aim" if y == 0 else None)
    axes.axvline(1.0, color=plots.GREY, lw=1)
    axes.set_yticks(range(len(rows)), [f"{row['name']}\n{row['peer']}" for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="times as fast as the peer (bar: medians; dots: rounds; red: aim)")
    return drawing


def draw_scaling(rows: list[dict[str, Any]]):
    """Seconds of a rollout with its updates along each axis, and its parts."""
    names = list(dict.fromkeys(row["axis"] for row in rows))
    drawing, grid = plots.axes_grid(1, len(names), (3.4 * len(names), 3.2))
    for axes, name in zip(grid[0], names, strict=True):
        some = [row for row in rows if row["axis"] == name]
        x = [millions(row["value"]) if name == "size" else row["value"] for row in some]
        axes.loglog(x, [row["seconds"] for row in some], "o-", color=plots.BLUE, label="rollout")
        for part, colour in (("sample_s", plots.ORANGE), ("update_s", plots.GREEN)):
            axes.loglog(x, [row["parts"][part] for row in some], "--", color=colour, label=part.removesuffix("_s"))
        plots.finish(axes, name, "seconds" if name == names[0] else "", LABELS.get(name, name))
        axes.xaxis.set_major_locator(FixedLocator(x))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.minorticks_off()
    return drawing


LABELS = {
    "outputs": "outputs a group", "questions": "questions", "length": "tokens an output", "size": "million parameters"
}  # fmt: skip


def millions(size: str) -> int:
    return int(size.removesuffix("M"))


def main() -> None:
    def read(name: str) -> list[dict[str, Any]]:
        file = RESULTS / name
        return json.loads(file.read_text()) if file.exists() else []

    def refresh(file: Path, mark: str, content: str) -> None:
        write_text(file, between_marks(file, mark, content))

    rows, tries, scaling = read("cpu.json"), read("cpu-tries.json"), read("cpu-scaling.json")
    if faults(rows):
        raise SystemExit("\n".join(faults(rows)))
    if rows:
        refresh(TOP / "README.md", "bench", table(rows))
        draw(rows).savefig(RESULTS / "cpu.png")
    if tries:
        refresh(TOP / "bench" / "README.md", "tries", tries_table(tries))
    if scaling:
        draw_scaling(scaling).savefig(RESULTS / "cpu-scaling.png")


if __name__ == "__main__":
    main()
