"""Fresh classifiers on real digits: what they cannot tell apart, what they must, and what they learn of classes."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from pipeline.evaluation.classification import classification_accuracy, learnable, learnt_from
from pipeline.evaluation.fresh import Labelled
from pipeline.evaluation.proportion import Proportion
from pipeline.evaluation.twosample import balanced, told_apart

FIT, HELD_OUT = slice(500), slice(500, 850)


@pytest.fixture(scope="module")
def digits() -> Labelled:
    content = load_digits()
    order = np.random.default_rng(0).permutation(len(content.images))
    images = (content.images[order] * 15.9).astype(np.uint8)[:, None]
    return Labelled(torch.from_numpy(images), torch.from_numpy(content.target[order]))


def halves(digits: Labelled) -> tuple[Tensor, Tensor]:
    return digits.images[:850], digits.images[850:1700]


def tell(real: Tensor, others: Tensor, kimg: float, seed: int = 0) -> Proportion:
    return told_apart((real[FIT], others[FIT]), (real[HELD_OUT], others[HELD_OUT]), kimg=kimg, seed=seed)


def test_real_images_cannot_be_told_from_real_ones(digits: Labelled) -> None:
    found = tell(*halves(digits), kimg=8)
    low, high = found.interval
    assert found.images == 700
    assert low < 0.5 < high
    assert found.p_value(0.5) > 0.05


def test_p_values_are_valid_where_nothing_differs(digits: Labelled) -> None:
    p_values = []
    for seed in range(24):
        order = torch.randperm(1700, generator=torch.Generator().manual_seed(seed))
        images = digits.images[order]
        p_values.append(tell(images[:850], images[850:], kimg=0.5, seed=seed).p_value(0.5))
    # A valid test goes below 0.1 in 2.4 of 24 on average, and in more than 7 of them once in 500 times.
    assert sum(p < 0.1 for p in p_values) <= 7
    assert sum(p > 0.5 for p in p_values) >= 5


def test_noise_and_a_lost_half_of_the_classes_are_found(digits: Labelled) -> None:
    real, others = halves(digits)
    noise = 12 * torch.randn(others.shape, generator=torch.Generator().manual_seed(0))
    noisy = (others + noise).round().clamp(0, 255).to(torch.uint8)
    assert tell(real, noisy, kimg=8).p_value(0.5) < 1e-6

    # Every second class is lost: who sees one of those knows that it is real, so 3 of 4 can be told.
    kept = others[digits.labels[850:1700] % 2 == 0]
    found = told_apart((real[:250], kept[:250]), (real[250:425], kept[250:425]), kimg=8, seed=0)
    assert found.p_value(0.5) < 1e-6
    assert found.interval[0] < 0.75


def test_the_seed_decides_and_nothing_else(digits: Labelled) -> None:
    real, others = halves(digits)
    first = tell(real, others // 2, kimg=1)
    torch.manual_seed(5)
    assert tell(real, others // 2, kimg=1) == first


def test_kinds_are_balanced_by_cutting_the_longer_one() -> None:
    real, generated = torch.ones(5, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    both = balanced(real, generated)
    assert both.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert (both.images[:, 0, 0, 0] == both.labels).all()


def test_one_image_again_and_again_is_found_at_once(digits: Labelled) -> None:
    real, others = halves(digits)
    assert tell(real, others[:1].expand(850, -1, -1, -1), kimg=2).p_value(0.5) < 1e-6


def test_a_class_without_images_is_never_told(digits: Labelled) -> None:
    few = Labelled(digits.images[:60], digits.labels[:60])
    assert learnt_from(few, Labelled(few.images, torch.full_like(few.labels, 10)), 11, kimg=0.5, seed=0).sum() == 0


def test_one_image_of_each_kind_is_enough_to_answer() -> None:
    images = torch.arange(4 * 64, dtype=torch.uint8).view(4, 1, 8, 8)
    found = told_apart((images[:1], images[1:2]), (images[2:3], images[3:]), kimg=0.01, seed=0)
    assert found.images == 2


def test_real_images_by_class_teach_what_real_images_teach(digits: Labelled) -> None:
    def part(rows: slice) -> Labelled:
        return Labelled(digits.images[rows], digits.labels[rows])

    def by_class(labels: Tensor, source: Labelled) -> Labelled:
        """What a sampler of real images gives for these labels."""
        random = np.random.default_rng(0)
        rows = [random.choice(np.flatnonzero(source.labels.numpy() == label)) for label in labels.tolist()]
        return Labelled(source.images[rows], labels)

    real, held_out = part(slice(0, 600)), part(slice(1200, 1797))
    generated = by_class(real.labels, part(slice(600, 1200)))
    settings = {"kimg": 10.0, "seed": 3}
    of_real = learnt_from(real, held_out, 10, **settings)
    found = classification_accuracy(real, generated, held_out, of_real, 10, **settings)
    assert of_real.mean() > 0.93
    assert found["generated"]["share"] == pytest.approx(of_real.mean(), abs=0.04)
    assert found["gain"]["share"] == pytest.approx(found["both"]["share"] - of_real.mean())
    assert found["gain"]["low"] > -0.03

    wrong = Labelled(real.images, real.labels.roll(1))
    found = classification_accuracy(real, wrong, held_out, of_real, 10, **settings)
    assert found["generated"]["high"] < 0.3
    assert found["gain"]["high"] < 0


def test_a_classifier_learns_from_no_more_images_than_it_sees_often() -> None:
    assert learnable(899, 20) == 899
    assert learnable(60_000, 20) == 5000
    assert learnable(60_000, 0.001) == 1
