"""What benchmarks/fusion_gain.py found: the distances of all arms, the differences that matter, and a figure.

    python benchmarks/fusion_gain_table.py [--source fashion-mnist|mnist] [--split gate|test] [--figure FILE]

The test split was opened for the repetitions that were made since the study does so. Intervals are of 95 % by
Student's t over repetitions; differences are paired: both arms of the same repetition.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from fusion_gain import (
    AUTO,
    CASCADE,
    ENSEMBLE,
    FEWER,
    FUSING,
    JUDGING,
    MATCHED,
    MORE,
    PLAIN,
    RECIPE,
    SOURCES,
    STUDENT,
    read_lines,
    results_file,
)

Arm = dict[int, dict[str, Any]]  # by repetition: the line of the arm

MEAN, BEST, SINGLE = "mean member", "best member", "plain single"
CHOSEN = "as chosen"
ALL = f"{ENSEMBLE}, all strategies"
FAR = 3
FEWEST = 3  # repetitions of which an interval says anything


def arms_of(lines: list[dict[str, Any]]) -> dict[str, Arm]:
    """Return the study's arms by name."""
    arms: dict[str, Arm] = defaultdict(dict)
    members: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        number = line["repetition"]
        match (line["way"], line["kind"]):
            case (way, "member") if way == ENSEMBLE:
                members[number].append(line)
                if line["chosen"]:
                    arms[BEST][number] = line
            case (way, "member") if way == AUTO and line["chosen"]:
                arms[f"{AUTO}: {BEST}"][number] = line
            case (way, "member") if way == CASCADE:
                arms[CASCADE if line["cost"] > 1 else f"{CASCADE}'s first network"][number] = line
            case (way, "strategy") if way in (ENSEMBLE, AUTO, MATCHED):
                arms[f"{way}: {line['arm']}"][number] = line
                if line["chosen"]:
                    arms[f"{way}: {CHOSEN}"][number] = line
            case (way, "strategy") if way != CASCADE:  # whose best candidate can be its first network alone
                arms[SINGLE if way == PLAIN else f"{SINGLE}, {way}"][number] = line
            case (_, "student"):
                arms["student"][number] = line
            case (_, "control"):
                arms["student's control"][number] = line
    for number, found in members.items():
        metrics = {name: fmean(line["metrics"][name] for line in found) for name in found[0]["metrics"]}
        arms[MEAN][number] = {"metrics": metrics, "cost": 1.0}
    return dict(arms)


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half of its 95 % interval by Student's t; NaN for a single value."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return fmean(values), float(half)


def differences(arm: Arm, other: Arm, name: str) -> list[float]:
    """Return by how much `arm` is farther away than `other`, relative to `other`, in each repetition that has both."""
    both = sorted(arm.keys() & other.keys())
    return [arm[number]["metrics"][name] / other[number]["metrics"][name] - 1 for number in both]


def print_distances(arms: dict[str, Arm], names: list[str]) -> None:
    """Print each arm's distances, the nearest first, with their spread over repetitions and what an image costs."""
    print(f"| arm | repetitions | passes | {' | '.join(f'{name} | spread' for name in names)} |")
    print("|---|---:|---:|" + "---:|" * (2 * len(names)))
    for name, arm in sorted(arms.items(), key=lambda item: mean_of(item[1], names[0])):
        cells = [name, str(len(arm)), f"{fmean(line['cost'] for line in arm.values()):.3g}"]
        for judge in names:
            values = [line["metrics"][judge] for line in arm.values()]
            mean, half = interval(values)
            many = len(values) >= FEWEST
            cells += [f"{mean:.2f} ± {half:.2f}", f"{stdev(values):.2f}"] if many else [f"{mean:.2f}", "–"]
        print(f"| {' | '.join(cells)} |")


def print_differences(arms: dict[str, Arm], names: list[str]) -> None:
    """Print how much nearer arms are than those that they have to beat, and in how many of the repetitions."""
    pairs = []
    for way, best in ((ENSEMBLE, BEST), (AUTO, f"{AUTO}: {BEST}")):
        strategies = [name for name in arms if name.startswith(f"{way}: ") and name != best]
        pairs += [(arm, other) for other in (best, SINGLE) for arm in strategies]
        pairs += [(arm, arm.replace(way, MATCHED)) for arm in strategies]
    pairs += [(arm, arm.replace(AUTO, ENSEMBLE)) for arm in arms if arm.startswith(AUTO)]
    pairs += [(arm, SINGLE) for arm in arms if arm.startswith((MATCHED, CASCADE, f"{SINGLE}, "))]
    pairs = [pair for pair in pairs if arms.keys() >= set(pair)]
    pairs += [("student", other) for other in (BEST, "student's control") if "student" in arms]
    print(f"\n| arm | against | {' | '.join(f'{name} | nearer in' for name in names)} |")
    print("|---|---|" + "---:|---:|" * len(names))
    for arm, other in pairs:
        cells = []
        for judge in names:
            found = differences(arms[arm], arms[other], judge)
            mean, half = interval(found)
            around = f" ± {100 * half:.0f}" if len(found) >= FEWEST else ""
            cells += [f"{100 * mean:+.0f} %{around}", f"{sum(d < 0 for d in found)} of {len(found)}"]
        print(f"| {arm} | {other} | {' | '.join(cells)} |")


def kept(arms: dict[str, Arm], way: str, name: str) -> list[float]:
    """Return the share of what `ratio` gains over `best` that `latent_ratio` keeps, in each repetition of a way."""
    plain, told, whole = (arms.get(f"{way}: {strategy}", {}) for strategy in ("best", "latent_ratio", "ratio"))
    found = []
    for number in sorted(plain.keys() & told.keys() & whole.keys()):
        start, at_one, end = (arm[number]["metrics"][name] for arm in (plain, told, whole))
        found.append((start - at_one) / (start - end))
    return found


def print_kept(arms: dict[str, Arm], names: list[str]) -> None:
    """Print how much of the ratio's gain is kept at one draw."""
    print(f"\n| of the gain of `ratio`, `latent_ratio` keeps | {' | '.join(names)} |")
    print("|---|" + "---:|" * len(names))
    for way in (ENSEMBLE, AUTO, MATCHED):
        shares = [kept(arms, way, name) for name in names]
        if shares[0]:
            told = [(*interval(found), min(found), max(found)) for found in shares]
            cells = [
                f"{100 * mean:.0f} % ± {100 * half:.0f} ({100 * a:.0f} to {100 * b:.0f})" for mean, half, a, b in told
            ]
            print(f"| {way} | {' | '.join(cells)} |")


def print_compute(lines: list[dict[str, Any]]) -> None:
    """Print what each way costs: operations of measuring and fusing beside the budget of training, and processor time.

    What was made with all strategies has a row of its own; judging is no part of any way, and the student is apart.
    """
    runs: dict[tuple[int, str, float], list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        runs[line["repetition"], line["way"], sum(line["seconds"].values())].append(line)
    print("\n| way | budget, TFLOP | measured and fused | student | extractors, for all | minutes of a core |")
    print("|---|---:|---:|---:|---:|---:|")
    order = (ENSEMBLE, ALL, AUTO, PLAIN, MATCHED, CASCADE, MORE, *FEWER)
    rows: dict[str, list[dict[str, Any]]] = {way: [] for way in order}
    for (_, way, _), own in runs.items():
        rows[ALL if {line["arm"] for line in own} & set(RECIPE["literal"]) else way].append(own[0])
    for way, own in rows.items():
        if own:
            besides, student, reference = (mean_tflop(own, names) for names in (FUSING, STUDENT, ("reference",)))
            left_out = (*JUDGING, *STUDENT)
            seconds = [sum(took for stage, took in line["seconds"].items() if stage not in left_out) for line in own]
            tflop = fmean(line["tflop"] for line in own)
            counted = " | ".join(f"{one:.2f}" if one else "–" for one in (besides, student, reference))
            minutes = f"{fmean(seconds) / 60:.1f}" if fmean(seconds) >= 60 else "–"
            print(f"| {way} | {tflop:g} | {counted} | {minutes} |")


def mean_tflop(lines: list[dict[str, Any]], stages: Sequence[str]) -> float:
    """Return what stages took, the mean over the lines that counted any of them."""
    found = [sum(line["operations"].get(stage, 0) for stage in stages) for line in lines]
    return fmean([count for count in found if count] or [0.0]) / 1e12


def mean_of(arm: Arm, name: str) -> float:
    return fmean(line["metrics"][name] for line in arm.values())


def draw(arms: dict[str, Arm], names: list[str], split: str, path: Path) -> None:
    """Draw the distances of the arms that every repetition has, with their intervals, a panel a judge.

    Arms that are more than `FAR` times as far away as the best member are left out: they would take all the room.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    most = max(map(len, arms.values()))
    order = [name for name, arm in arms.items() if len(arm) == most and not name.endswith(CHOSEN)]
    order = [name for name in order if mean_of(arms[name], names[0]) <= FAR * mean_of(arms[BEST], names[0])]
    order.sort(key=lambda name: -mean_of(arms[name], names[0]))
    figure, axes = pyplot.subplots(1, len(names), figsize=(9, 0.9 + 0.28 * len(order)), sharey=True, squeeze=False)
    for axis, judge in zip(axes[0], names, strict=True):
        for place, name in enumerate(order):
            values = [line["metrics"][judge] for line in arms[name].values()]
            mean, half = interval(values)
            colour = "#1b6ca8" if name.startswith((ENSEMBLE, AUTO)) else "#777777"
            axis.plot(values, [place] * len(values), ".", color=colour, alpha=0.35, markersize=4)
            axis.errorbar(mean, place, xerr=half, fmt="o", color=colour, markersize=4, capsize=2)
        axis.set_xlim(left=0)
        axis.set_xlabel(f"{judge}, {split} split")
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(order)), order)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=SOURCES, default=SOURCES[0])
    parser.add_argument("--split", choices=["gate", "test"], default="gate")
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args()
    lines = read_lines(chosen.source)
    if chosen.split == "test":
        lines = [{**line, "metrics": line["test"]} for line in lines if "test" in line]
    if not lines:
        raise SystemExit(f"{results_file(chosen.source)} has no such results yet: run benchmarks/fusion_gain.py first")
    names = next(line["judges"] for line in lines if "judges" in line)
    arms = arms_of(lines)
    print_distances(arms, names)
    print_differences(arms, names)
    print_kept(arms, names)
    print_compute(lines)
    if chosen.figure:
        draw(arms, names, chosen.split, chosen.figure)


if __name__ == "__main__":
    main()
