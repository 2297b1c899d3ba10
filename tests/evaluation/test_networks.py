import pytest
import torch

from pipeline.evaluation.networks import KINDS, NetworkConfig, build
from pipeline.params import Data

SIZES = Data.model_fields["size"].annotation.__args__


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_every_network_takes_every_size(kind: str, size: int) -> None:
    network = build(NetworkConfig(kind, 3, size, 24, 5 if kind in ("plain", "residual") else 0)).eval()
    images = torch.rand(2, 3, size, size) * 2 - 1
    features, logits = network(images)
    assert features.shape == (2, 24)
    assert logits is None if kind in ("autoencoder", "pixels") else logits.shape == (2, 5)
    if kind == "autoencoder":
        assert network.network.decoder(features).shape == images.shape


def test_standardised_features_are_centred_with_unit_mean_variance() -> None:
    network = build(NetworkConfig("plain", 1, 8, 6)).eval()
    images = torch.rand(200, 1, 8, 8)
    raw = network(images)[0]
    network.fit(raw)
    features = network(images)[0]
    assert features.mean(0).abs().max() < 1e-4
    assert features.var(0).mean().item() == pytest.approx(1, rel=1e-3)
    ratio = (raw[0] - raw[1]) / (features[0] - features[1])
    assert ratio.std() < 1e-3 * ratio.mean()


def test_constant_features_stay_finite() -> None:
    network = build(NetworkConfig("plain", 1, 8, 6)).eval()
    network.fit(torch.ones(10, 6))
    assert network(torch.zeros(2, 1, 8, 8))[0].isfinite().all()
