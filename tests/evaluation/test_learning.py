import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pipeline._torchvision import allow_torchvision
from pipeline.errors import ChorusError
from pipeline.evaluation.augment import shift, view
from pipeline.evaluation.extractors import own_extractor
from pipeline.evaluation.own import OWN, learn, rows_to_learn_from
from tests.factories import structured_images
from tests.published import PUBLISHED, needs_published


def stripes(n: int, size: int = 8, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    labels = np.arange(n) % 3
    return torch.from_numpy(structured_images(n, size, channels, labels)), torch.from_numpy(labels)


@pytest.mark.parametrize("name", OWN)
def test_every_extractor_learns_and_the_same_seed_gives_the_same_bits(name: str) -> None:
    images, labels = stripes(60, channels=3)
    config, network = learn(name, images, labels, 3, kimg=0.5, seed=1)
    again = learn(name, images, labels, 3, kimg=0.5, seed=1)[1].state_dict()
    assert all((value == again[key]).all() for key, value in network.state_dict().items())
    features = own_extractor(name, config, network).features(images).values
    assert features.shape == (60, OWN[name].features)
    assert features.var(0, ddof=1).mean() == pytest.approx(1, rel=1e-3)
    if name != "pixels":
        other = learn(name, images, labels, 3, kimg=0.5, seed=2)[1].state_dict()
        assert any((value != other[key]).any() for key, value in network.state_dict().items())


def test_learning_leaves_the_global_random_stream_alone() -> None:
    images, labels = stripes(40)
    before = torch.random.get_rng_state()
    learn("selfsup", images, labels, 3, kimg=0.2, seed=1)
    assert (torch.random.get_rng_state() == before).all()


def test_unlabelled_images_train_the_label_free_extractors_alone() -> None:
    images, _ = stripes(40)
    learn("selfsup-b", images, None, 0, kimg=0.2, seed=1)
    with pytest.raises(ChorusError, match="'classifier' learns classes and the data have none"):
        learn("classifier", images, None, 0, kimg=0.2, seed=1)


def test_no_more_images_are_read_than_the_budget_sees() -> None:
    rows = rows_to_learn_from(10_000, 2, seed=0)
    assert len(rows) == 2000
    assert (rows.diff() > 0).all()
    assert len(rows_to_learn_from(100, 2, seed=0)) == 100


def test_shift_moves_each_image_and_repeats_its_edges() -> None:
    images = torch.arange(25.0).view(1, 1, 5, 5).expand(40, 1, 5, 5)
    moved = shift(images, 1, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 9
    assert any((image == images[0]).all() for image in moved)


def test_views_differ_and_stay_in_range() -> None:
    images = torch.rand(16, 3, 28, 28) * 2 - 1
    random = torch.Generator().manual_seed(0)
    first, second = view(images, random), view(images, random)
    assert first.shape == images.shape
    assert first.abs().max() <= 1
    assert (first != second).any()


def accuracy(name: str, images: torch.Tensor, labels: torch.Tensor, train: int, kimg: float) -> float:
    classes = int(labels.max()) + 1
    config, network = learn(name, images[:train], labels[:train], classes, kimg=kimg, seed=0)
    logits = own_extractor(name, config, network).features(images[train:]).logits
    assert logits is not None
    return float((logits.argmax(1) == labels[train:].numpy()).mean())


@pytest.mark.parametrize("name", ["classifier", "classifier-b"])
def test_classifiers_read_digits(name: str) -> None:
    digits = load_digits()
    images = torch.from_numpy((digits.images / 16 * 255).round().astype(np.uint8))[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    assert accuracy(name, images[order], torch.from_numpy(digits.target)[order], 900, kimg=20) >= 0.95


@pytest.mark.slow
@needs_published
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["classifier", "classifier-b"])
def test_classifiers_read_fashion_mnist(name: str) -> None:
    allow_torchvision()
    from torchvision.datasets import FashionMNIST

    garments = FashionMNIST(str(PUBLISHED), train=True)
    order = torch.randperm(len(garments), generator=torch.Generator().manual_seed(0))
    assert accuracy(name, garments.data[order][:, None], garments.targets[order], 35_000, kimg=100) >= 0.90
