"""How our own extractors' networks learn: tensors in, a trained network out. The real images are uint8 N×C×S×S."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.evaluation.augment import shift, view
from pipeline.evaluation.networks import KINDS, NetworkConfig, Standardised, to_float
from pipeline.randomness import derive_seed, generator

BATCH = 128
LEARNING_RATE, RISE = 4e-3, 0.2  # the highest rate, and the share of training in which it is reached
TEMPERATURE = 0.2
SOME_IMAGES = 20_000  # statistics of pixels and features are fitted on no more images than these


def unseen(_seen: int, _loss: float) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Task:
    """What a network learns from.

    images: uint8 N×C×S×S on the device. labels: int64 N on the device, None where there are no classes. kimg: thousand
    images seen. progress: called with (images seen, loss) now and then.
    """

    images: Tensor
    labels: Tensor | None
    kimg: float
    seed: int
    progress: Callable[[int, float], None] = unseen


def seeded(config: NetworkConfig, task: Task) -> nn.Module:
    """Build a network whose first weights depend on the task's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(task.seed, "weights"))
        return KINDS[config.kind](config).to(task.images.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def batches(n: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield index batches for ever, each pass over the n images in a new order; a last, smaller batch is left out."""
    size = min(size, n)
    for epoch in itertools.count():
        order = torch.randperm(n, generator=generator(seed, "order", epoch))
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


def one_cycle(done: float) -> float:
    """Return the share of the learning rate when `done` of training is: a line up to one fifth, half a cosine down."""
    return done / RISE if done < RISE else (1 + math.cos(math.pi * (done - RISE) / (1 - RISE))) / 2


def optimise(parameters: list[nn.Parameter], loss_of: Callable[[Tensor, torch.Generator], Tensor], task: Task) -> None:
    """Minimise a loss of batches with AdamW on one cycle of the learning rate (Smith, arXiv:1708.07120).

    loss_of: maps the batch's row numbers and a generator for its random draws to a scalar.
    """
    steps = max(math.ceil(task.kimg * 1000 / BATCH), 1)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle((step + 0.5) / steps))
    rows = batches(len(task.images), BATCH, task.seed)
    for step in range(steps):
        loss = loss_of(next(rows).to(task.images.device), generator(task.seed, "step", step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            task.progress((step + 1) * BATCH, loss.item())


def learn_classes(config: NetworkConfig, task: Task) -> nn.Module:
    """Train a classifier with label smoothing on slightly shifted images (no flips: a digit has none)."""
    network, labels, most = seeded(config, task), task.labels, max(config.size // 28, 1)
    assert labels is not None

    def loss_of(rows: Tensor, rng: torch.Generator) -> Tensor:
        images = shift(to_float(task.images[rows]), most, rng)
        return F.cross_entropy(network(images)[1], labels[rows], label_smoothing=0.05)

    optimise(list(network.parameters()), loss_of, task)
    return network.eval()


def learn_views(config: NetworkConfig, task: Task) -> nn.Module:
    """Train without labels to tell which two views are of one image: SimCLR (Chen et al., arXiv:2002.05709, eq. 1)."""
    network = seeded(config, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(task.seed, "projector"))
        projector = nn.Sequential(nn.BatchNorm1d(config.features), nn.ReLU(), nn.Linear(config.features, 64))
    projector.to(task.images.device)

    def loss_of(rows: Tensor, rng: torch.Generator) -> Tensor:
        images = to_float(task.images[rows])
        both = F.normalize(projector(network(torch.cat([view(images, rng), view(images, rng)]))[0]))
        similarity = (both @ both.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        partner = torch.arange(2 * len(rows), device=both.device).roll(len(rows))
        return F.cross_entropy(similarity, partner)

    optimise([*network.parameters(), *projector.parameters()], loss_of, task)
    return network.eval()


def learn_code(config: NetworkConfig, task: Task) -> nn.Module:
    """Train an autoencoder by the squared error of its reconstructions."""
    network: Any = seeded(config, task)

    def loss_of(rows: Tensor, _rng: torch.Generator) -> Tensor:
        images = to_float(task.images[rows])
        return F.mse_loss(network.decoder(network.encoder(images)), images)

    optimise(list(network.parameters()), loss_of, task)
    return network.eval()


def learn_pixels(config: NetworkConfig, task: Task) -> nn.Module:
    """Fit the principal components of the pixels, of at most 20,000 images, in float64."""
    network: Any = KINDS[config.kind](config).to(task.images.device)
    pixels = network.pixels(to_float(some(task))).double()
    mean = pixels.mean(0)
    vectors = torch.linalg.eigh((pixels - mean).T @ (pixels - mean)).eigenvectors.flip(1)[:, : config.features]
    signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    network.mean.copy_(mean)
    network.basis.copy_(vectors * signs)
    return network.eval()


@torch.inference_mode()
def standardise(network: nn.Module, config: NetworkConfig, task: Task) -> Standardised:
    """Centre and scale the features of a trained network by at most 20,000 of the images it learnt from."""
    result = Standardised(network.eval(), config.features).to(task.images.device).eval()
    result.fit(torch.cat([network(to_float(part))[0] for part in some(task).split(500)]))
    return result


def some(task: Task) -> Tensor:
    """Return at most 20,000 of the images, chosen at random because they may be stored class by class."""
    order = torch.randperm(len(task.images), generator=generator(task.seed, "some"))[:SOME_IMAGES]
    return task.images[order.sort().values.to(task.images.device)]
