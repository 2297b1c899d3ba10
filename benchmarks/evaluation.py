"""What evaluation costs beside torch-fidelity: one Fréchet distance, and one more strategy on stored features.

    python benchmarks/evaluation.py [--features 768 2048] [--images 3000] [--candidates 12] [--repetitions 3]

First the distance from moments that both have, in one thread: torch-fidelity's `fid_statistics_to_metric` against ours,
with the real side's root at hand, as after the first of many comparisons, and with finding it. Then a further strategy
on a pool whose features are stored: fitting it and measuring what it delivers on other real images, by both selection
extractors, against `calculate_metrics` on images that it has drawn, called for each of them with its cache of the real
side filled. Mean kernel values, which `weighted_kid` and the report of every fusion ask for once, are timed apart.
Drawing images is left out for both; the fuse stage, which also scores each strategy on fresh images, draws and
featurises these once more.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.utils.data import Dataset

from pipeline._torchvision import allow_torchvision
from pipeline.evaluation import frechet
from pipeline.evaluation.extractors import Extractor, own_extractor
from pipeline.evaluation.own import learn
from pipeline.evaluation.ruler import Real, Ruler, fit_ruler
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.pool_kernel import pool_kernel
from pipeline.fusion.strategies._base import Candidate, Problem, strategy
from pipeline.params import Fusion

allow_torchvision()
from torch_fidelity import calculate_metrics  # noqa: E402
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402

SELECTION = ("classifier", "selfsup")
STRATEGIES = ("best", "uniform", "weighted", "greedy", "weighted_kid")
SIZE = 28


class Images(Dataset):
    """Images as torch-fidelity reads a data set: uint8 3×S×S each."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def seconds(run: Callable[..., Any], repetitions: int, prepare: Callable[[], tuple[Any, ...]] = tuple) -> float:
    """Return the least processor time of several runs, which is the one that other processes disturbed least.

    prepare: returns what each of them is called with, in time that is not counted.
    """
    found = []
    for _ in range(repetitions):
        given = prepare()
        start = time.process_time()
        run(*given)
        found.append(time.process_time() - start)
    return min(found)


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Return float64 features as a network's: after a rectifier, correlated, on scales that differ by 40."""
    shared, scales = np.random.default_rng(d).normal(size=(64, d)) / 8, np.geomspace(1, 0.025, d)
    random = np.random.default_rng(seed)
    common = random.normal(size=(n, 64)) * (1 + seed / 20)
    return np.maximum(common @ shared + random.normal(size=(n, d)) * scales + 0.1, 0)


def distances(d: int, n: int, repetitions: int) -> str:
    """Return the first table's row for d features of n images on each side."""
    sets = [features(n, d, seed) for seed in (1, 2)]
    statistics = [fid_features_to_statistics(torch.from_numpy(values)) for values in sets]
    fake, real = (frechet.moments(values) for values in sets)
    found: dict[str, float] = {}

    def theirs() -> None:
        found["theirs"] = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]

    def anew() -> None:
        found["ours"] = frechet.distance(fake, frechet.Moments(*real))

    slow, with_root = seconds(theirs, repetitions), seconds(anew, repetitions)
    frechet.distance(fake, real)
    fast = seconds(lambda: frechet.distance(fake, real), repetitions)
    apart = abs(found["ours"] / found["theirs"] - 1)
    ratios = f"{slow / with_root:.1f} | {slow / fast:.1f}"
    return f"| {d:,} | {slow:.3f} | {with_root:.3f} | {fast:.3f} | {ratios} | {apart:.0e} |"


def digits(n: int, seed: int, noise: float = 0.0, missing: int | None = None) -> tuple[Tensor, Tensor]:
    """Return n handwritten digits, uint8 n×1×28×28, without the class `missing`, and their classes."""
    data, random = load_digits(), np.random.default_rng(seed)
    rows = random.choice(np.flatnonzero(data.target != missing), n)
    images = torch.from_numpy(data.images[rows, None] / 16 * 255).float()
    large = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear")
    large += torch.randn(large.shape, generator=torch.Generator().manual_seed(seed)) * noise
    return large.round().clamp(0, 255).to(torch.uint8), torch.from_numpy(data.target[rows])


class Setting:
    """Two extractors, real images in two parts, and a pool of candidates whose features are stored."""

    def __init__(self, images: int, candidates: int) -> None:
        train, labels = digits(3000, 0)
        self.extractors: list[Extractor] = []
        self.rulers: list[Ruler] = []
        for name in SELECTION:
            self.extractors.append(own_extractor(name, *learn(name, train, labels, 10, kimg=10, seed=0)))
            self.rulers.append(fit_ruler(name, self.extractors[-1].features(train).values, None))
        self.real = [digits(images, seed)[0] for seed in (1, 2)]
        self.fit, self.choose = (Real(self.seen(part)) for part in self.real)
        # Each lacks a class, so that a mixture of several is the nearest.
        self.drawn = [digits(images, 10 + i, noise=4.0 + i, missing=i % 10)[0] for i in range(candidates)]
        start = time.process_time()
        seen = [self.seen(part) for part in self.drawn]
        self.featurised = (time.process_time() - start) / candidates
        self.pool = tuple(
            Candidate(f"f{i}/r0/0", tuple(map(frechet.moments, own)), None, lambda own=own: own)
            for i, own in enumerate(seen)
        )

    def seen(self, images: Tensor) -> tuple[np.ndarray, ...]:
        """Return what both rulers see of images."""
        pairs = zip(self.rulers, self.extractors, strict=True)
        return tuple(ruler.relative(extractor.features(images).values) for ruler, extractor in pairs)

    def weights(self, recipe: dict[str, Any]) -> np.ndarray:
        """Return the weight of each candidate in a recipe."""
        if recipe["kind"] == "candidate":
            shares = {recipe["id"]: 1.0}
        else:
            shares = {part["id"]: w for part, w in zip(recipe["parts"], recipe["weights"], strict=True)}
        return np.array([shares.get(candidate.id, 0.0) for candidate in self.pool])


def strategies(setting: Setting, problem: Problem, repetitions: int, cache: str) -> list[str]:
    """Return the second table's rows."""
    parts = [candidate.views for candidate in setting.pool]
    held_out = MeanDistance.of(parts, setting.choose.views)
    rows = []
    for name in STRATEGIES:

        def ours(fresh: Problem, name: str = name) -> None:
            held_out(setting.weights(strategy(name)(fresh).recipe))

        def fresh(name: str = name) -> tuple[Problem]:
            made = replace(problem)  # on which nothing is fitted yet
            if name == "weighted_kid":
                pool_kernel(made)
            return (made,)

        fast = seconds(ours, repetitions, fresh)
        weights = setting.weights(strategy(name)(problem).recipe)
        images = mixed(setting.drawn, weights)
        for told, which in (("FID alone", {"fid": True}), ("FID, KID, precision, recall", everything(len(images)))):
            slow = seconds(lambda images=images, which=which: called_anew(setting, images, which, cache), 1)
            rows.append(f"| {name} | {fast * 1000:.1f} | {told} | {slow:.1f} | {slow / fast:,.0f} |")
    return rows


def everything(images: int) -> dict[str, Any]:
    """Return what makes torch-fidelity measure all that is measured here of every candidate."""
    return {"fid": True, "kid": True, "prc": True, "kid_subset_size": min(1000, images)}


def mixed(drawn: list[Tensor], weights: np.ndarray) -> Tensor:
    """Return as many images as each candidate drew, of each as many as its weight says."""
    counts = np.random.default_rng(0).multinomial(len(drawn[0]), weights / weights.sum())
    return torch.cat([images[:count] for images, count in zip(drawn, counts, strict=True)])


def called_anew(setting: Setting, images: Tensor, which: dict[str, Any], cache: str) -> None:
    """Call torch-fidelity for a strategy's images by both extractors; `cache` is the folder of its cache."""
    for extractor in setting.extractors:
        calculate_metrics(
            input1=Images(images),
            input2=Images(setting.real[1]),
            feature_extractor=extractor.registered,
            cache_root=cache,
            cache_input2_name=f"real-{extractor.registered}",
            cuda=False,
            save_cpu_ram=True,
            verbose=False,
            **which,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, nargs="+", default=[64, 768, 2048])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)  # of NumPy's and SciPy's algebra; threads that wait for each other count as processor time
    print(f"{platform.machine()}, one thread, processor seconds, least of {arguments.repetitions}")
    print("\n| features | torch-fidelity | ours, root anew | ours | ratio, root anew | ratio | relative difference |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for d in arguments.features:
        print(distances(d, arguments.images, arguments.repetitions), flush=True)
    setting = Setting(arguments.images, arguments.candidates)
    count = f"{arguments.candidates} candidates of {arguments.images:,} images"
    print(f"\n{count}, featurised once in {setting.featurised:.2f} s each by both extractors")
    problem = Problem.of(setting.pool, setting.fit, Fusion(), held_out=setting.choose)
    kernels = seconds(pool_kernel, arguments.repetitions, lambda: (replace(problem),))
    print(f"mean kernel values of all of them, once: {kernels:.2f} s")
    print("| a further strategy | ours, ms | torch-fidelity's | s | ratio |")
    print("|---|---:|---|---:|---:|")
    with tempfile.TemporaryDirectory() as cache:
        called_anew(setting, setting.drawn[0][:1000], everything(1000), cache)  # fills the cache of the real side
        for row in strategies(setting, problem, arguments.repetitions, cache):
            print(row, flush=True)


if __name__ == "__main__":
    main()
