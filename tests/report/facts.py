"""Facts of a made-up but plausible run, and `python -m tests.report.facts OUT.html` to look at its page."""

import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.evaluation.pictures import grid
from pipeline.report.page import Facts, render

MEMBERS = {"mlp/r0": 9.1, "mlp/r1": 8.4, "dcgan/r0": 5.2, "dcgan/r1": 5.6, "dcgan-hinge/r0": 6.0, "vae/r0": 12.3}
STRATEGIES = {"best": 5.3, "uniform": 4.9, "weighted": 4.1, "average": 61.0}


def arm(name: str, kind: str, distance: float, cost: float) -> dict[str, Any]:
    metrics = {"rfd_selection": distance / 100}
    for i, extractor in enumerate(("classifier", "selfsup", "classifier-b", "selfsup-b")):
        metrics |= {
            f"fd16_{extractor}": distance * (1 + i / 7),
            f"fd_{extractor}": distance * 3.1,
            f"kid_{extractor}": distance / 1000 - 0.004,
            f"precision_{extractor}": max(0.0, 0.9 - distance / 70),
            f"recall_{extractor}": max(0.0, 0.8 - distance / 80),
            f"density_{extractor}": max(0.0, 1 - distance / 60),
            f"coverage_{extractor}": max(0.0, 0.88 - distance / 70),
        }
        if extractor.startswith("classifier"):
            metrics[f"isc_{extractor}"] = 9 - distance / 10
    return {"name": name, "kind": kind, "cost": cost, "metrics": metrics}


def metrics() -> dict[str, Any]:
    """Return a `report/metrics.json`."""
    arms = [arm(name, "member", distance, 1.0) for name, distance in MEMBERS.items()]
    arms += [arm(name, "strategy", distance, 1.0 + 5 * (name == "average")) for name, distance in STRATEGIES.items()]
    return {
        "schema": 1,
        "split": "gate",
        "samples": 2000,
        "decided_by": "rfd_selection",
        "judges": ["classifier-b", "selfsup-b"],
        "headline": ["fd16_classifier-b", "fd16_selfsup-b"],
        "winner": "weighted",
        "shipped": {"kind": "strategy", "name": "weighted"},
        "best_member": "dcgan/r0",
        "floor_images": [359, 270],
        "accuracy": {"classifier": 0.987, "classifier-b": 0.981, "selfsup": None, "selfsup-b": None},
        "floor": {name: value for name, value in arm("", "", 0.9, 1)["metrics"].items() if not name.startswith("isc")},
        "warnings": ["fd_classifier: 270 real images for 64 features; read fd16_classifier or kid_classifier instead"],
        "critic": {
            "rule": "average",
            "critics": 3,
            "auc": [{"name": "dcgan/r0", "kind": "member", "average": 0.912, "vote": 0.874}],
        },
        "arms": arms,
        "intervals": intervals(arms),
        "classifiers": classifiers(),
        "classes": classes(),
        "memorisation": memorisation(),
    }


def intervals(arms: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the part of `report/metrics.json` that says how sure the judges' distances are."""
    best = next(arm for arm in arms if arm["name"] == "dcgan/r0")["metrics"]
    rows = []
    for arm in arms:
        judged = {name: arm["metrics"][name] for name in ("fd16_classifier-b", "fd16_selfsup-b")}
        apart = {name: value - best[name] for name, value in judged.items() if arm["name"] != "dcgan/r0"}
        rows.append(
            {
                "name": arm["name"],
                "kind": arm["kind"],
                "distances": {name: sure(0.9 * value, 0.2) for name, value in judged.items()},
                "differences": {name: sure(value, 0.15) for name, value in apart.items()},
            }
        )
    return {"confidence": 0.95, "images_a_dimension": 5, "arms": rows}


def sure(value: float, error: float) -> dict[str, Any]:
    half = 1.96 * error
    errors = {"redraws": 0.6 * error, "real": 0.8 * error}
    return {"value": value, "low": value - half, "high": value + half, **errors, "beyond_noise": abs(value) > half}


def classifiers() -> dict[str, Any]:
    """Return the part of `report/metrics.json` that fresh classifiers have found."""
    told = {
        "weighted": ("strategy", 0.874, 4e-80),
        "dcgan/r0": ("member", 0.911, 0.0),
        "real images": ("real", 0.493, 0.64),
    }
    return {
        "kimg": 20.0,
        "two_sample": [
            {"name": name, "kind": kind, "images": 540, "p_value": p, **share(value)}
            for name, (kind, value, p) in told.items()
        ],
        "classification": {
            "images": 899,
            "held_out": 270,
            "real": share(0.978),
            "rows": [
                {
                    "name": "weighted",
                    "kind": "strategy",
                    "generated": share(0.921),
                    "both": share(0.985),
                    "gain": share(0.007),
                },
                {"name": "dcgan/r0", "kind": "member", "skipped": "it cannot be asked for a class"},
            ],
        },
    }


def share(value: float) -> dict[str, float]:
    return {"share": value, "low": value - 0.021, "high": value + 0.019}


SEEN = [("real images", "real"), ("weighted", "strategy"), ("dcgan/r0", "member")]


def classes() -> dict[str, Any]:
    """Return the part of `report/metrics.json` that tells of classes; the last one has no held-out images."""
    covered = [[0.9 - i / 50 - place / 10 for i in range(9)] + [None] for place in range(3)]
    rows = [
        {"name": name, "kind": kind, "coverage": values, "share": [0.1] * 10}
        for (name, kind), values in zip(SEEN, covered, strict=True)
    ]
    counts = [30] * 9 + [0]
    return {"judge": "classifier-b", "neighbours": 3, "names": list("0123456789"), "counts": counts, "rows": rows}


def memorisation() -> list[dict[str, Any]]:
    """Return the part of `report/metrics.json` that tells of copies."""
    values = [(0.41, 0.768, 1.004), (0.62, 0.771, 0.998), (0.12, 0.93, None)]

    def share(value: float, deviation: float) -> dict[str, float]:
        return {"value": value, "by_chance": 0.769, "deviation": deviation}

    return [
        {
            "name": name,
            "kind": kind,
            "authentic": authentic,
            "in_train": share(in_train, 0.011),
            "closest_in_train": share(in_train + 0.01, 0.03),
            "distance_ratio": ratio,
            "suspicious": in_train > 0.8,
        }
        for (name, kind), (authentic, in_train, ratio) in zip(SEEN, values, strict=True)
    ]


def gate() -> dict[str, Any]:
    """Return a `report/gate.json` of a candidate that is compared with a champion and is too large."""
    judged = {"fd16_classifier-b": (4.1, 4.8), "fd16_selfsup-b": (3.9, 4.4)}
    rows = [
        {
            "metric": name,
            "candidate": sure(own, 0.2),
            "champion": sure(other, 0.2),
            "difference": sure(own - other, 0.1),
        }
        for name, (own, other) in {"rfd_judges": (0.11, 0.13), **judged}.items()
    ]
    shares = {
        f"{kind}_{judge}": 0.6
        for kind in ("precision", "recall", "coverage")
        for judge in ("classifier-b", "selfsup-b")
    }
    model = {"fault": None, "metrics": shares | {"authentic": 0.62}, "milliseconds": 0.31, "passes": 1.0}
    rules = [
        ("smoke", "passed", None, None, "loads in a fresh process and draws the same images again"),
        ("improvement", "passed", 0.012, 0.0, "by all judges together 0.02 nearer than version 2"),
        ("agreement", "passed", None, None, "by no judge farther than version 2 beyond the noise"),
        ("precision", "passed", 0.61, 0.36, "0.610 by selfsup-b, of real images 0.720; at least 0.360"),
        ("milliseconds", "not applied", 0.31, None, "0.31 ms an image; no limit is set"),
        ("megabytes", "failed", 3.1, 2.5, "3.1 MB; at most 2.5"),
    ]
    return {
        "schema": 1,
        "passed": False,
        "split": "gate",
        "images": 270,
        "samples": 2000,
        "seed": 17,
        "confidence": 0.95,
        "judges": ["classifier-b", "selfsup-b"],
        "candidate": {"content": "ef" * 32, "kind": "strategy", "name": "weighted", **model, "megabytes": 3.1},
        "champion": {"version": "2", "content": "ab" * 32, "itself": False, "problem": None, **model, "megabytes": 2.2},
        "real": shares | {"authentic": 0.41},
        "comparison": rows,
        "rules": [dict(zip(("name", "verdict", "value", "limit", "why"), rule, strict=True)) for rule in rules],
    }


def recipe() -> dict[str, Any]:
    names = ["dcgan/r0/000200000", "dcgan/r1/000200000", "dcgan-hinge/r0/000200000", "mlp/r1/000300000"]
    parts = [{"kind": "candidate", "id": name} for name in names]
    return {"kind": "mixture", "weights": [0.46, 0.31, 0.2, 0.03], "parts": parts}


def strategies() -> dict[str, Any]:
    """Return a `models/fused/strategies.json`."""
    rows: list[dict[str, Any]] = [
        {"name": name, "recipe": recipe(), "evidence": {"fit": v * 0.9, "choose": v, "cost": 1.0, "samples": 2000}}
        for name, v in STRATEGIES.items()
    ]
    for row in rows:
        row["why"] = "the winner" if row["name"] == "weighted" else "weighted is nearer at the same cost"
    rows[2]["evidence"] |= {"kkt_residual": 3e-7, "weights": {"dcgan/r0/000200000": 0.46}}
    rows.append({"name": "vote", "skipped": "no candidate has a discriminator"})
    pool = {f"{name}/000200000": distance for name, distance in MEMBERS.items()}
    told = {"selection": selection(), "diversity": diversity(), "strategies": rows}
    return {"schema": 1, "decided_by": "rfd_selection", "winner": "weighted", "pool": pool, **told}


def selection() -> dict[str, Any]:
    """Return what a rule made of the pool, as in `strategies.json`."""
    verdicts = [
        {"id": f"{name}/000200000", "distance": far, "kept": far < 10, "why": f"{far / 5.2:.3g} times the nearest"}
        for name, far in MEMBERS.items()
    ]
    return {"rule": "threshold", "verdicts": verdicts}


def diversity() -> dict[str, Any]:
    """Return what mixing can gain, as in `strategies.json`."""
    rows = [
        {"name": "uniform", "mean": 0.0512, "ambiguity": 0.0204, "kid": 0.0308},
        {"name": "weighted", "mean": 0.0419, "ambiguity": 0.0233, "kid": 0.0186},
    ]
    members = [f"{name}/000200000" for name in ("dcgan/r0", "dcgan/r1", "mlp/r0")]
    cosines = [[1.0, 0.82, -0.31], [0.82, 1.0, None], [-0.31, None, 1.0]]
    return {"images": 179, "mixtures": rows, "members": members, "kid": [0.04, 0.05, 0.06], "correlation": cosines}


def race() -> dict[str, Any]:
    """Return an `evaluation/race/rung2/table.json`."""
    told = [("dcgan", 5.2, 2.1, 16.0, 40), ("dcgan-hinge", 6.0, 0.4, 32.0, 40), ("vae", 12.3, 0.2, 3.0, 0)]
    rows = [
        {
            "family": family,
            "place": place,
            "best": best,
            "gain": gain,
            "goes_on": kimg > 0,
            "why": f"without it the best mixture is farther away by {gain}" + ", which is the least" * (not kimg),
            "members": 1 + (family == "dcgan"),
            "seen_kimg": 12.0,
            "spent_tflop": tflop,
            "next_kimg": kimg,
        }
        for place, (family, best, gain, tflop, kimg) in enumerate(told, 1)
    ]
    return {
        "schema": 1,
        "rung": 2,
        "after": 1,
        "decided_by": "rfd_selection",
        "failed": ["mlp"],
        "families": rows,
        "foretold": [4.25, 3.75],
    }


def students() -> dict[str, Any]:
    """Return a `models/chosen/students.json`."""
    costs = {"bytes": 2_400_000, "passes": 1.0}
    rows: list[dict[str, Any]] = [
        {"name": "weighted", "kind": "strategy", "distance": 4.1, **costs, "shipped": True, "why": "shipped"},
        {"name": "small", "kind": "student", "distance": 4.9, **costs, "why": "it is 20% farther away"},
        {"name": "small", "kind": "control", "distance": 5.6, **costs, "why": "trained on real images"},
        {"name": "by-class", "kind": "student", "why": "it is conditional, and the fused sampler knows no classes"},
    ]
    shipped = {"kind": "strategy", "name": "weighted"}
    rows = [{"shipped": False, **row} for row in rows]
    return {"schema": 1, "decided_by": "rfd_selection", "tolerance": 0.1, "shipped": shipped, "rows": rows}


def drift() -> dict[str, Any]:
    """Return how the data differ from those of the champion: one class is new, another has become rare."""
    now, before = [0.1] * 10, [None, *[1 / 9] * 8, 0.15]
    rows = [
        {"name": str(i), "share": share, "before": was} for i, (share, was) in enumerate(zip(now, before, strict=True))
    ]
    return {
        "version": "2",
        "champion": True,
        "known": True,
        "same": False,
        "source": "digits",
        "counts": {"train": 800, "val": 320, "gate": 240, "test": 240},
        "pixels": {"distance": 0.0142, "chance": 0.0051, "deviation": 0.0008, "changed": True},
        "classes": {"rows": rows, "variation": 0.123, "p_value": 2e-9, "changed": True},
    }


def history(seed: int) -> list[dict[str, float]]:
    random = np.random.default_rng(seed)
    return [
        {
            "nimg": 2000 * (i + 1),
            "loss_g": 0.9 + 0.8 * (1 - math.exp(-i / 15)) + random.normal(0, 0.08),
            "loss_d": 1.3 * math.exp(-i / 30) + random.normal(0, 0.05),
        }
        for i in range(100)
    ]


def picture(noise: float) -> bytes:
    images = load_digits().images[:64, None] * 16 + np.random.default_rng(0).normal(0, noise, (64, 1, 8, 8))
    buffer = io.BytesIO()
    sheet = grid(torch.from_numpy(images.clip(0, 255).astype(np.uint8)))
    Image.fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()


def facts() -> Facts:
    return Facts(
        model="chorus",
        version="3",
        metrics=metrics(),
        gate=gate(),
        sides={"The champion, version 2": picture(40), "The candidate": picture(25)},
        strategies=strategies(),
        students=students(),
        recipe=recipe(),
        manifest={
            "source": "digits",
            "size": 8,
            "channels": 1,
            "classes": list("0123456789"),
            "counts": {"train": 899, "val": 359, "gate": 270, "test": 269},
            "class_counts": {split: [count] * 10 for split, count in (("train", 90), ("val", 36), ("gate", 27))},
            "duplicates": 0,
            "quarantined": 2,
            "hash": "ab" * 32,
        },
        quarantine=[("a<b>.png", "truncated"), ("notes.txt", "not an image")],
        histories={name: history(i) for i, name in enumerate(MEMBERS)},
        pictures={
            "Real images": picture(0),
            "The best member, dcgan/r0": picture(60),
            "The fusion, weighted": picture(25),
        },
        nearest={"weighted": picture(30), "dcgan/r0": picture(60)},
        failed={"dcgan-hinge/r1": ("loss_g exploded to 3.1e+04", 75.0, 1)},
        lineage={
            "made": "2026-11-20 18:00 UTC",
            "commit": "0f" * 20,
            "changed files": "none",
            "data": "ab" * 32,
            "lock entries": "cd" * 32,
            "content": "ef" * 32,
            "pipeline run": "7" * 32,
            "chorus": "0.1.0",
            "torch": "2.13.0",
        },
        details={
            "Lock entries": {"models/members/rung1/dcgan": "0b" * 16},
            "Runs of the members": {"dcgan/r0": "6" * 32},
        },
        race=[race()],
        drift=drift(),
        links={
            "commit": "https://example.org/chorus/commit/" + "0f" * 20,
            "pipeline run": "http://127.0.0.1:5000/#/runs",
        },
        siblings=[{"family": "dcgan", "plain": 4.6, "siblings": 4.3, "kept": True}],
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(facts()), encoding="utf-8")
