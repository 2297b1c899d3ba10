import pytest
import torch

from pipeline.evaluation.networks import KINDS, MAPS, NetworkConfig, build, with_maps
from pipeline.params import Data

SIZES = Data.model_fields["size"].annotation.__args__


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.endswith(MAPS)])
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


@pytest.mark.parametrize("kind", ["plain", "residual"])
@pytest.mark.parametrize("size", SIZES)
def test_maps_stand_behind_the_features_of_the_same_network(kind, size):
    config = NetworkConfig(kind, 3, size, 24, 5)
    network = build(config).eval()
    images = torch.rand(3, 3, size, size) * 2 - 1
    network.fit(network(images)[0].detach() * 3)
    wide, mapped = with_maps(config, network)
    features, logits = network(images)
    both, same = mapped(images)
    torch.testing.assert_close(both[:, :24], features)
    torch.testing.assert_close(same, logits)
    assert both.shape == (3, wide.features)
    mirrored = mapped(images.flip(3))[0]
    assert not torch.allclose(mirrored[:, 24:], both[:, 24:], rtol=1e-3)
    again = build(NetworkConfig(**wide.to_json())).eval()
    again.load_state_dict(mapped.state_dict())
    torch.testing.assert_close(again(images)[0], both)
