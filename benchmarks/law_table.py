"""What benchmarks/ensemble_law.py found, as tables and as a figure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import law
import numpy as np
from law_measure import IMAGES, Line
from stacked_mnist import MODES

PAIR = ("k1/r0", "k2/r0")  # the two that predict: together they reach every budget that two members can
PREDICTED = ("mmd", "missing", "kl")
SHOWN = {"mmd": ("1000 × MMD²", 1000), "missing": ("modes missing", 1), "kl": ("KL", 1), "fd": ("Fréchet × 1000", 1000)}
Values = dict[str, float]


@dataclass(frozen=True)
class Cell:
    """Ensembles of `size` members with `nimg` images each. sets: what is measured of each set of members."""

    size: int
    level: int
    nimg: int
    sets: list[Line]

    @property
    def kimg(self) -> float:
        """The budget of all members."""
        return self.size * self.nimg / 1000

    def mean(self, metric: str) -> float:
        return fmean(line[metric] for line in self.sets)


class Results:
    """All lines of a grid; `cells` by size and level."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.seeds = sorted({line["seed"] for line in lines})
        self.members = {
            (line["seed"], line["level"], line["member"]): line for line in lines if line["kind"] == "member"
        }
        self.pairs = [line for line in lines if line["kind"] == "pair"]
        self.flops = next(line["flops_per_image"] for line in lines if line["kind"] == "end")
        self.real = {metric: fmean(line[metric] for line in with_missing(lines, "real")) for metric in SHOWN}
        self.cells: dict[tuple[int, int], Cell] = {}
        for line in with_missing(lines, "ensemble"):
            key = line["size"], line["level"]
            self.cells.setdefault(key, Cell(*key, line["nimg"], [])).sets.append(line)

    def of_size(self, size: int) -> list[Cell]:
        """Return the cells of one size, by ascending budget."""
        return [cell for _, cell in sorted(self.cells.items()) if cell.size == size]

    @property
    def sizes(self) -> list[int]:
        return sorted({cell.size for cell in self.cells.values()})

    def tflop(self, cell: Cell) -> float:
        """Return the operations of all members' training."""
        return cell.kimg * 1000 * self.flops / 1e12

    def predicted(self, cell: Cell) -> Values:
        """Return the mean over repetitions of what the two members predict; where one reached the budget, it alone."""
        named = (line for line in self.pairs if line["level"] == cell.level and is_named(line))
        found = [self.by_pair(line, cell.size) for line in named]
        if not found:
            found = [predict(one, one, one, cell.size) for one in self.alone(cell.level)]
        return {metric: fmean(values[metric] for values in found) for metric in PREDICTED}

    def alone(self, level: int) -> list[Line]:
        """Return the first of the two in each repetition."""
        return [self.members[seed, level, PAIR[0]] for seed in self.seeds]

    def by_any(self, cell: Cell, metric: str) -> list[float]:
        """Return what each pair of members would predict."""
        pairs = (line for line in self.pairs if line["level"] == cell.level)
        return [self.by_pair(line, cell.size)[metric] for line in pairs]

    def by_pair(self, pair: Line, size: int) -> Values:
        """Return what a pair predicts."""
        one, other = (self.members[pair["seed"], pair["level"], name] for name in pair["members"])
        return predict(one, other, pair, size)

    def held_out(self, metric: str) -> float:
        """Return the mean relative error of the two on ensembles of four or more of repetitions other than theirs."""
        errors = []
        for pair in filter(is_named, self.pairs):
            for cell in (cell for cell in self.cells.values() if cell.level == pair["level"] and cell.size >= 4):
                others = fmean(line[metric] for line in cell.sets if line["seed"] != pair["seed"])
                errors.append(abs(self.by_pair(pair, cell.size)[metric] / others - 1))
        return fmean(errors)


def is_named(pair: Line) -> bool:
    """Whether it is the pair that predicts."""
    return tuple(pair["members"]) == PAIR


def with_missing(lines: Sequence[Line], kind: str) -> list[Line]:
    """Return the lines of a kind with the number of modes that are missing."""
    return [{**line, "missing": MODES - line["modes"]} for line in lines if line["kind"] == kind]


def predict(one: Line, other: Line, pair: Line, size: int) -> Values:
    """Return the MMD², the modes missing and the KL of an ensemble, from two members and what they share.

    pair: MMD² between them, the mean product of their modes' relative frequencies less 1 (`chi`), and the shares of
    modes that both find. A member stands for a pair with itself where size is 1, which reads nothing of the pair.
    """
    apart = one["chi"] + other["chi"] - 2 * pair["chi"]
    uneven = law.of_size(size, (one["chi"] + other["chi"]) / 2, apart)
    share = (one["found"][str(size)] + other["found"][str(size)]) / 2
    return {
        "mmd": law.of_size(size, (one["mmd"] + other["mmd"]) / 2, pair["mmd"]),
        "missing": MODES * (1 - law.found_by(size, share, pair["found"][str(size)])),
        "kl": law.divergence_at(uneven, MODES, IMAGES),
    }


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def shown(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def tables(found: Results) -> str:
    """Return all tables as Markdown."""
    floor = ", ".join(f"{name} {shown(scale * found.real[metric])}" for metric, (name, scale) in SHOWN.items())
    said = f"{len(found.seeds)} repetitions; {found.flops / 1e6:.1f} MFLOP a training image; real images: {floor}"
    if len(found.seeds) > 1:
        errors = ", ".join(f"{SHOWN[metric][0]} {found.held_out(metric):.0%}" for metric in PREDICTED)
        said += f"\nmean error of two members on another repetition's ensembles of four or more: {errors}"
    return "\n\n".join([said, grid_table(found), overtaking_table(found), doubling_table(found)])


def grid_table(found: Results) -> str:
    """Return what is measured and predicted of each size and budget."""
    head = ["K", "kimg each", "all"]
    for metric in PREDICTED:
        head += [SHOWN[metric][0], "said by two (by any two)"]
    head += ["with weights", SHOWN["fd"][0]]
    lines = [row(*head), "|" + "---:|" * len(head)]
    for cell in sorted(found.cells.values(), key=lambda cell: (cell.kimg, cell.size)):
        predicted, cells = found.predicted(cell), [str(cell.size), f"{cell.nimg / 1000:g}", f"{cell.kimg:g}"]
        for metric in PREDICTED:
            scale, values = SHOWN[metric][1], [line[metric] for line in cell.sets]
            by_any = [scale * value for value in found.by_any(cell, metric)]
            low_high = " (" + "–".join(map(shown, np.quantile(by_any, (0.025, 0.975)))) + ")" if by_any else ""
            cells += [f"{shown(scale * fmean(values))} ± {shown(scale * pstdev(values))}"]
            cells += [shown(scale * predicted[metric]) + low_high]
        cells += [shown(1000 * cell.mean("mmd_weighted")), shown(1000 * cell.mean("fd"))]
        lines.append(row(*cells))
    return "\n".join(lines)


def overtaking_table(found: Results) -> str:
    """Return from which budget of all members, in kimg, each size is nearer than one model of that budget."""
    head = [
        "K",
        *(f"{SHOWN[metric][0].removeprefix('1000 × ')}{by}" for metric in PREDICTED for by in ("", ", predicted")),
    ]
    lines = [row(*head, "Fréchet"), "|" + "---:|" * (len(head) + 1)]
    for size in found.sizes[1:]:
        cells = [str(size)]
        for metric in PREDICTED:
            cells.append(crossing(found, size, lambda cell, name=metric: cell.mean(name)))
            cells.append(crossing(found, size, lambda cell, name=metric: found.predicted(cell)[name]))
        lines.append(row(*cells, crossing(found, size, lambda cell: cell.mean("fd"))))
    return "\n".join(lines)


def crossing(found: Results, size: int, value: Callable[[Cell], float]) -> str:
    """Return the budget in words: at most the least that was tried, or beyond the largest."""
    cells = found.of_size(size)
    single = [found.cells[1, size * cell.level] for cell in cells]
    budgets = [cell.kimg for cell in cells]
    from_on = law.overtaking(budgets, list(map(value, single)), list(map(value, cells)))
    if from_on is None:
        return f"> {budgets[-1]:.0f}"
    return f"≤ {from_on:.0f}" if from_on == budgets[0] else f"{from_on:.0f}"


def doubling_table(found: Results) -> str:
    """Return what each doubling gains in MMD², where members are alike: of their training, or of their number.

    M is one member's, D that of two members from one another; in brackets by the two members alone.
    """
    head = ["1000 × MMD², kimg each", "M", "D", "twice as long gains", "two instead of one, D/4", "any number, D/2"]
    lines = [row(*head), "|" + "---:|" * len(head)]
    singles = found.of_size(1)
    for cell, longer in pairwise(singles):
        pairs = [line for line in found.pairs if line["level"] == cell.level]
        every, two = fmean(line["mmd"] for line in pairs), fmean(line["mmd"] for line in pairs if is_named(line))
        alone, later = (found.predicted(one)["mmd"] for one in (cell, longer))
        values = [
            (cell.mean("mmd"), alone),
            (every, two),
            (cell.mean("mmd") - longer.mean("mmd"), alone - later),
            (every / 4, two / 4),
            (every / 2, two / 2),
        ]
        told = (f"{shown(1000 * value)} ({shown(1000 * by_two)})" for value, by_two in values)
        lines.append(row(f"{cell.nimg / 1000:g}", *told))
    return "\n".join(lines)


def draw(grids: Mapping[str, Results], path: Path) -> None:
    """Draw modes missing and MMD² against the operations of all members' training, a curve for each size.

    grids: a row of panels each, by what is said of it.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    figure, axes = pyplot.subplots(len(grids), 2, figsize=(10, 0.5 + 3.8 * len(grids)), squeeze=False)
    sizes = next(iter(grids.values())).sizes
    colours = dict(zip(sizes, pyplot.get_cmap("viridis")(np.linspace(0, 0.88, len(sizes))), strict=True))
    for panels, (name, found) in zip(axes, grids.items(), strict=True):
        for axis, metric in zip(panels, ("missing", "mmd"), strict=True):
            draw_panel(axis, found, metric, colours)
            axis.set_title(f"{name}: {SHOWN[metric][0]}", fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("training of all members, TFLOP")
    keys = [Line2D([], [], color=colour, linewidth=3) for colour in colours.values()]
    styles = (("-", "o"), ("--", "x"), (":", None))
    keys += [Line2D([], [], color="#444444", linestyle=line, marker=mark) for line, mark in styles]
    names = [*(f"K = {size}" for size in sizes), "measured", "predicted from two", "fitted weights"]
    figure.legend(keys, names, loc="lower center", ncols=len(names), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.08 / len(grids), 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_panel(axis: Any, found: Results, metric: str, colours: Mapping[int, Any]) -> None:
    """Draw what is measured, what is predicted and, for the distance, what fitted weights give."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    scale = SHOWN[metric][1]
    for size, colour in colours.items():
        cells = found.of_size(size)
        tflop = [found.tflop(cell) for cell in cells]
        axis.plot(tflop, [scale * cell.mean(metric) for cell in cells], "o-", color=colour, markersize=4)
        said = [scale * found.predicted(cell)[metric] for cell in cells]
        axis.plot(tflop, said, "x--", color=colour, markersize=6, linewidth=1.2)
        if metric == "mmd" and size > 1:
            axis.plot(tflop, [scale * cell.mean("mmd_weighted") for cell in cells], ":", color=colour, linewidth=1.2)
    axis.set(xscale="log", yscale="log", xticks=[found.tflop(cell) for cell in found.of_size(1)])
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:.2g}"))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    for one in (axis.xaxis, axis.yaxis):
        one.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3, which="both")
