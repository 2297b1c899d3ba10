"""Stacked-MNIST: three digits as the channels of one image, 1,000 modes, and a classifier of digits that reads them.

Metz, Poole, Pfau, Sohl-Dickstein 2017, "Unrolled Generative Adversarial Networks", section 3.3. Modes are drawn
uniformly here, so that the real images' distribution over them is known exactly. `val` and `gate` are made of digits
that neither the generators nor the reader have seen.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline._torchvision import allow_torchvision
from pipeline.data.manifest import write_manifest
from pipeline.evaluation.augment import shift
from pipeline.evaluation.learning import Task, optimise, standardise
from pipeline.evaluation.networks import NetworkConfig, Output, Standardised, to_float
from pipeline.files import write_array
from pipeline.randomness import derive_seed
from pipeline.weights import load_state, save_state

SIDE, DIGITS = 28, 10
MODES = DIGITS**3
FEATURES = 32  # of one digit
LEARNT_FROM = 50_000  # of the 60,000 digits in the file for training; `val` is made of the others
COUNTS = {"train": 100_000, "val": 26_000, "gate": 26_000, "test": 1_000}
AT_ONCE = 1_000

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def read_digits(data: Path) -> dict[str, tuple[Images, Labels]]:
    """Return the single digits, N×28×28 with their classes, that each split's images are stacked from.

    data: folder with MNIST in torchvision's layout. The splits `gate` and `test` share the file for testing.
    """
    allow_torchvision()
    from torchvision.datasets import MNIST

    files = [MNIST(data, train=train, download=False) for train in (True, False)]
    (images, labels), held_out = [(file.data.numpy(), file.targets.numpy()) for file in files]
    first, last = slice(LEARNT_FROM), slice(LEARNT_FROM, None)
    parts = {"train": (images[first], labels[first]), "val": (images[last], labels[last])}
    return {**parts, "gate": held_out, "test": held_out}


def stacked(digits: Images, labels: Labels, count: int, seed: int) -> tuple[Images, Labels]:
    """Return `count` images of three digits each, N×3×H×W, and their modes in [0, 1000).

    Each channel's class is drawn uniformly, and then one of its digits. The mode is 100·a + 10·b + c of the channels'
    classes a, b, c. Every class needs a digit.
    """
    random = np.random.default_rng(seed)
    classes = random.integers(DIGITS, size=(count, 3))
    order, sizes = np.argsort(labels, kind="stable"), np.bincount(labels, minlength=DIGITS)
    starts = np.cumsum(sizes) - sizes
    rows = order[starts[classes] + (random.random((count, 3)) * sizes[classes]).astype(np.int64)]
    return digits[rows], mode_of(classes)


def mode_of(classes: NDArray[np.int64]) -> Labels:
    """Return the modes of images whose channels are of these classes, N×3 in [0, 10)."""
    return classes @ np.array([100, 10, 1])


def prepare(digits: dict[str, tuple[Images, Labels]], prepared: Path, seed: int) -> None:
    """Write the stacked images as a prepared data set without classes."""
    prepared.mkdir(parents=True, exist_ok=True)
    for split, count in COUNTS.items():
        images, _ = stacked(*digits[split], count, derive_seed(seed, "stacked-mnist", split))
        write_array(prepared / f"{split}.npy", images)
    write_manifest(prepared, source="stacked-mnist", size=SIDE, channels=3, classes=None, duplicates=0, quarantined=0)


class Reader(nn.Module):
    """A small classifier of grey digits B×1×28×28 in [-1, 1]; gives features B×32 and logits B×10."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, kernel in ((1, 16, 5), (16, 32, 3), (32, 64, 3)):
            layers.append(nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, FEATURES))
        self.logits = nn.Linear(FEATURES, DIGITS)

    def forward(self, images: Tensor) -> Output:
        features = self.features(images)
        return features, self.logits(features.relu())


def learn_to_read(digits: Images, labels: Labels, *, kimg: float, seed: int, device: torch.device) -> Standardised:
    """Return a reader that was trained on single digits, its features centred and scaled."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "reader"))
        network = Reader().to(device)
    task = Task(torch.from_numpy(digits).unsqueeze(1).to(device), torch.from_numpy(labels).to(device), kimg, seed)

    def loss_of(rows: Tensor, rng: torch.Generator) -> Tensor:
        assert task.labels is not None
        return F.cross_entropy(network(shift(to_float(task.images[rows]), 1, rng))[1], task.labels[rows])

    optimise(list(network.parameters()), loss_of, task)
    return standardise(network, NetworkConfig("reader", 1, SIDE, FEATURES, DIGITS), task)


def load_reader(path: Path, device: torch.device) -> nn.Module:
    """Return a reader from the file that `save_state` wrote."""
    return load_state(path, Standardised(Reader(), FEATURES)).to(device).eval()


def reader_at(path: Path, digits: dict[str, tuple[Images, Labels]], seed: int, device: torch.device) -> nn.Module:
    """Return the reader that lies there; trains it on the digits of `train` where there is none."""
    if not path.exists():
        reader = learn_to_read(*digits["train"], kimg=400, seed=seed, device=device)
        save_state(path, reader)
    return load_reader(path, device)


@torch.inference_mode()
def accuracy(reader: nn.Module, digits: Images, labels: Labels, device: torch.device) -> float:
    """Return the share of single digits, N×28×28, that the reader names rightly."""
    return float((read(reader, digits[:, None], device)[0][:, 0] == labels).mean())


@torch.inference_mode()
def read(reader: nn.Module, images: Images, device: torch.device) -> tuple[Labels, NDArray[np.float32]]:
    """Return the class of each channel, N×C, and the channels' features side by side, N×(C·32), of N×C×28×28."""
    classes, features = [], []
    for part in torch.from_numpy(np.array(images)).split(AT_ONCE):
        values, logits = reader(to_float(part.flatten(0, 1).unsqueeze(1).to(device)))
        classes.append(logits.argmax(1).unflatten(0, part.shape[:2]).cpu())
        features.append(values.unflatten(0, part.shape[:2]).flatten(1).float().cpu())
    return torch.cat(classes).numpy(), torch.cat(features).numpy()


def shares(modes: Sequence[int] | Labels) -> NDArray[np.float64]:
    """Return how often each of the 1,000 modes occurs, relative to the number of images."""
    return np.bincount(np.asarray(modes), minlength=MODES) / len(modes)


def divergence(modes: Labels) -> float:
    """Return KL(generated ‖ real) in nats, from the modes of generated images; the real ones are uniform."""
    found = shares(modes)
    found = found[found > 0]
    return float(np.sum(found * np.log(MODES * found)))
