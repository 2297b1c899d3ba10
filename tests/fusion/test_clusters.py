"""Groups of images in features: means, clusters, and the same head before a ruler."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.ruler import fit_ruler
from pipeline.fusion.clusters import class_means, clusters

CENTRES = np.array([[-10.0, 0, 0], [10.0, 0, 0], [0, 12.0, 0], [0, 0, 15.0]])


def blobs(seed, n=400):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, len(CENTRES), n)
    return CENTRES[group] + rng.normal(size=(n, 3)), group


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_nearest_mean_is_named(seed):
    rng = np.random.default_rng(seed)
    points, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    labels[:3] = [0, 1, 2]
    means = np.stack([points[labels == k].mean(axis=0) for k in range(3)])
    expected = ((points[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (class_means(points, labels, 3).groups(points) == expected).all()


def test_a_class_without_images_is_never_named():
    points, group = blobs(0)
    head = class_means(points[group != 2], group[group != 2], 5)
    assert set(head.groups(points * 100)) <= {0, 1, 3}


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_found_and_repeat(seed):
    points, group = blobs(seed)
    named = clusters(points, 4, seed).groups(points)
    pairs = set(zip(group.tolist(), named.tolist(), strict=True))
    assert len(pairs) == 4
    assert (clusters(points, 4, seed).weights == clusters(points, 4, seed).weights).all()


def test_no_more_clusters_than_points_that_differ():
    points = np.repeat(np.array([[0.0, 0.0], [1.0, 1.0]]), 20, axis=0)
    head = clusters(points, 6, 0)
    assert len(head.biases) == 2
    assert np.bincount(head.groups(points)).tolist() == [20, 20]
    assert len(clusters(points[:1], 3, 0).biases) == 1


@pytest.mark.parametrize("dims", [None, 3])
def test_the_head_of_a_rulers_features_says_the_same_of_the_extractors_own(dims):
    rng = np.random.default_rng(4)
    features = rng.normal(size=(300, 8)) * np.arange(1, 9) + 5
    ruler = fit_ruler("classifier", features, dims)
    head = clusters(ruler.relative(features), 5, 0)
    assert (head.before(ruler).groups(features) == head.groups(ruler.relative(features))).all()
