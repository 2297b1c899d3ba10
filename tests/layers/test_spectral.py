"""Spectral normalisation against torch's singular values and torch's own parametrisation, alone and stacked."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parametrizations

from pipeline.errors import ChorusError
from pipeline.layers.spectral import add_spectral_norm, as_matrix, iterate, next_vectors, power_iteration

LAYERS = {
    "linear": lambda: nn.Linear(7, 5),
    "convolution": lambda: nn.Conv2d(3, 6, 4, stride=2, padding=1),
    "transposed": lambda: nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1),
    "embedding": lambda: nn.Embedding(4, 9),
}
INPUTS = {
    "linear": torch.randn(2, 7),
    "convolution": torch.randn(2, 3, 8, 8),
    "transposed": torch.randn(2, 6, 4, 4),
    "embedding": torch.arange(4),
}


def layer(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return LAYERS[name]()


def converged(network: nn.Module, steps: int = 400) -> nn.Module:
    for _ in range(steps):
        iterate(network)
    return network


def matrix_of(module: Any, weight: Tensor) -> Tensor:
    return as_matrix(weight, isinstance(module, nn.ConvTranspose2d))


@pytest.mark.parametrize("name", LAYERS)
def test_the_largest_singular_value_becomes_one(name: str) -> None:
    plain, normalised = layer(name), converged(add_spectral_norm(layer(name)))
    sigma = torch.linalg.matrix_norm(matrix_of(plain, plain.weight), 2)
    module: Any = normalised
    torch.testing.assert_close(module.weight, plain.weight / sigma, rtol=1e-4, atol=1e-6)
    norm = torch.linalg.matrix_norm(matrix_of(plain, module.weight), 2)
    assert norm.item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_equal_to_torch_once_both_have_converged(name: str) -> None:
    ours = converged(add_spectral_norm(layer(name)))
    theirs = parametrizations.spectral_norm(layer(name), n_power_iterations=400)
    theirs(INPUTS[name])
    torch.testing.assert_close(ours(INPUTS[name]), theirs.eval()(INPUTS[name]), rtol=1e-4, atol=1e-5)


def test_gradients_equal_torch_s_at_the_same_vectors() -> None:
    """Through W and through σ: vectors are constants on both sides (Miyato et al. 2018, equation 9)."""
    ours, theirs = add_spectral_norm(layer("linear")), parametrizations.spectral_norm(layer("linear")).eval()
    mine: Any = ours.get_submodule("parametrizations.weight.0")
    other: Any = theirs.get_submodule("parametrizations.weight.0")
    other._u.copy_(mine.u)
    other._v.copy_(mine.v)
    for network in (ours, theirs):
        network(INPUTS["linear"]).square().sum().backward()
    mine_w: Any = ours.get_parameter("parametrizations.weight.original")
    torch.testing.assert_close(mine_w.grad, theirs.get_parameter("parametrizations.weight.original").grad)


def test_one_iteration_by_hand() -> None:
    matrix = torch.tensor([[3.0, 0.0], [4.0, 0.0]])
    u, v = power_iteration(matrix, torch.tensor([1.0, 0.0]))
    assert v.tolist() == [1.0, 0.0]
    assert u.tolist() == pytest.approx([0.6, 0.8])
    assert (u @ matrix @ v).item() == pytest.approx(5)


def test_the_estimate_is_good_from_the_first_step_on() -> None:
    """Too small a σ would let the first updates see a discriminator that is far too steep."""
    for seed in range(20):
        plain, normalised = layer("convolution", seed), add_spectral_norm(layer("convolution", seed))
        module: Any = normalised
        norm = torch.linalg.matrix_norm(matrix_of(plain, module.weight), 2).item()
        assert 1 - 1e-5 <= norm < 1.1


def test_a_pass_changes_nothing_and_an_iteration_only_the_vectors() -> None:
    network = add_spectral_norm(nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randn(4, 7)
    trained = network.train()(images)
    assert torch.equal(trained, network.eval()(images))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    iterate(network)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {name for name in before if name.endswith((".u", ".v"))}


def test_stacked_networks_run_and_iterate_as_each_alone() -> None:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return add_spectral_norm(
            nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64, 1))
        )

    networks = [build(seed) for seed in range(3)]
    parameters, buffers = stack_module_state(networks)
    images = torch.randn(3, 5, 1, 8, 8)

    def forward(p: dict[str, Tensor], b: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(networks[0], {**p, **b}, (x,))

    def moved(p: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        return next_vectors(networks[0], {**p, **b})

    together = vmap(forward)(parameters, buffers, images)
    torch.testing.assert_close(together, torch.stack([n(x) for n, x in zip(networks, images, strict=True)]))
    vectors = vmap(moved)(parameters, buffers)
    for network in networks:
        iterate(network)
    for name, value in vectors.items():
        torch.testing.assert_close(value, torch.stack([network.get_buffer(name) for network in networks]))
    torch.testing.assert_close(
        vmap(forward)(parameters, {**buffers, **vectors}, images),
        torch.stack([n(x) for n, x in zip(networks, images, strict=True)]),
    )


def test_the_norm_is_taken_in_fp32() -> None:
    network = add_spectral_norm(layer("linear"))
    module: Any = network
    exact = module.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module.weight, exact)


def test_what_cannot_be_normalised_is_refused() -> None:
    with pytest.raises(ChorusError, match="recurrent layers"):
        add_spectral_norm(nn.Sequential(nn.GRU(3, 4)))
    zero = nn.Linear(3, 4)
    nn.init.zeros_(zero.weight)
    with pytest.raises(ChorusError, match="start at zero"):
        add_spectral_norm(zero)
