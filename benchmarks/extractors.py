"""Compare label-free extractors: what their features know of the classes, and how they notice known faults.

    python benchmarks/extractors.py --data digits
    python benchmarks/extractors.py --data fashion-mnist --root FOLDER

A linear probe (logistic regression on train features) says what a classifier could read from the features. Each fault
is given to one half of val and measured against the other half, as a multiple of what the two clean halves measure, by
the Fréchet distance in 16 dimensions.
"""

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from pipeline._torchvision import allow_torchvision
from pipeline.evaluation import frechet
from pipeline.evaluation.extractors import Extractor, own_extractor
from pipeline.evaluation.own import learn
from pipeline.evaluation.ruler import Ruler, fit_ruler

PROBED = 10_000


def load(data: str, root: Path | None) -> tuple[Tensor, Tensor]:
    """Return uint8 images N×1×S×S and their classes, in a fixed random order."""
    if data == "digits":
        digits = load_digits()
        images, labels = torch.tensor(digits.images / 16 * 255).round().to(torch.uint8)[:, None], digits.target
    else:
        allow_torchvision()
        from torchvision.datasets import FashionMNIST

        garments = FashionMNIST(str(root), train=True)
        images, labels = garments.data[:, None], garments.targets.numpy()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.from_numpy(labels.astype(np.int64))[order]


def blur(images: Tensor) -> Tensor:
    """Average each pixel with its eight neighbours."""
    return F.avg_pool2d(F.pad(images.float(), (1,) * 4, mode="replicate"), 3, 1).round().to(torch.uint8)


def noise(images: Tensor) -> Tensor:
    """Add Gaussian noise of 15 grey levels."""
    random = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)) * 15
    return (images + random).round().clamp(0, 255).to(torch.uint8)


def checkerboard(images: Tensor) -> Tensor:
    """Lighten every other pixel by 12 grey levels, as transposed convolutions do."""
    size = images.shape[-1]
    pattern = (torch.arange(size)[:, None] + torch.arange(size)) % 2 * 12
    return (images + pattern).clamp(0, 255).to(torch.uint8)


def report(name: str, extractor: Extractor, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> str:
    """Return one row of the table."""
    real = extractor.features(train[0]).values
    some = slice(PROBED)
    probe = LogisticRegression(max_iter=500).fit(real[some], train[1][some])
    accuracy = probe.score(extractor.features(val[0]).values, val[1])
    ruler = fit_ruler(name, real, min(16, real.shape[1]))
    half = len(val[0]) // 2
    other, clean, classes = val[0][:half], val[0][half:], val[1][half:]
    faults: list[Callable[[Tensor], Tensor]] = [noise, blur, checkerboard, lambda images: images[classes != 0]]
    floor = distance(extractor, ruler, clean, other)
    ratios = [distance(extractor, ruler, fault(clean), other) / floor for fault in faults]
    return f"| {name} | {accuracy:.1%} | {floor:.3f} | " + " | ".join(f"{ratio:.1f}" for ratio in ratios) + " |"


def distance(extractor: Extractor, ruler: Ruler, images: Tensor, other: Tensor) -> float:
    """Return the Fréchet distance in the ruler's dimensions."""
    sides = [frechet.moments(ruler.project(extractor.features(part).values)) for part in (images, other)]
    return frechet.distance(*sides)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("digits", "fashion-mnist"), default="digits")
    parser.add_argument("--root", type=Path, help="folder that holds FashionMNIST/raw")
    parser.add_argument("--kimg", type=float, default=100, help="thousand images each network sees")
    parser.add_argument("--names", nargs="+", default=["selfsup", "selfsup-b", "pixels", "classifier", "classifier-b"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = load(arguments.data, arguments.root)
    cut, end = int(0.6 * len(images)), int(0.85 * len(images))
    train, val = (images[:cut], labels[:cut]), (images[cut:end], labels[cut:end])
    print(f"{platform.machine()}, one thread, {arguments.data}, {arguments.kimg:g} kimg, {len(val[0])} val images")
    print("| extractor | linear probe | floor | noise | blur | checkerboard | class missing | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in arguments.names:
        start = time.process_time()
        config, network = learn(name, train[0], train[1], 10, kimg=arguments.kimg, seed=0)
        seconds = time.process_time() - start
        print(report(name, own_extractor(name, config, network), train, val), f"{seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
