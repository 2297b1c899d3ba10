"""Spectral normalisation (Miyato, Kataoka, Koyama, Yoshida 2018, "Spectral Normalization for GANs").

A layer computes with W / σ, where σ = uᵀWv estimates the largest singular value of its weight as a matrix (output
channels × the rest). The vectors u, v are buffers that `iterate` moves by one power iteration (algorithm 1), so a
forward pass changes nothing: it gives the same result in training and in evaluation, and runs under `torch.func`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

from pipeline.errors import ChorusError
from pipeline.layers.stacked import Stacked

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding)
START = 15  # power iterations before the first step: a random u would make σ far too small


def as_matrix(weight: Tensor, transposed: bool) -> Tensor:
    """Return a weight as outputs × the rest; a view in channels_last, but for transposed convolutions."""
    if transposed:
        weight = weight.transpose(0, 1)
    return weight.movedim(1, -1).flatten(1)


def power_iteration(matrix: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return u, v after one iteration v = Wᵀu / ||Wᵀu||, u = Wv / ||Wv|| (Miyato et al. 2018, algorithm 1)."""
    v = normalize(u @ matrix, dim=0)
    return normalize(matrix @ v, dim=0), v


class SpectralNorm(nn.Module):
    """Parametrisation of a weight: W / σ (Miyato et al. 2018, equation 8), with gradients through both."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, transposed: bool) -> None:
        super().__init__()
        self.transposed = transposed
        with torch.no_grad():
            matrix = as_matrix(weight, transposed)
            u = normalize(torch.randn(len(matrix)), dim=0).to(matrix)
            for _ in range(START):
                u, v = power_iteration(matrix, u)
        self.register_buffer("u", u)
        self.register_buffer("v", v)

    def forward(self, weight: Tensor) -> Tensor:
        # bfloat16 would make σ, and with it every weight, wrong by up to half a percent.
        with torch.autocast(weight.device.type, enabled=False):
            sigma = self.u @ as_matrix(weight, self.transposed) @ self.v
            return weight / sigma


def add_spectral_norm(network: nn.Module) -> nn.Module:
    """Give all linear, convolutional and embedding layers of a network spectral normalisation, in place; return it.

    Raises `ChorusError` for recurrent layers, whose weights torch reads past any parametrisation, and for layers that
    start at zero, which have no direction to normalise.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.RNNBase):
            raise ChorusError("spectral_norm does not reach recurrent layers; leave it out for this architecture")
        if isinstance(module, LAYERS):
            if not module.weight.any():
                raise ChorusError("spectral_norm needs layers that do not start at zero; leave it out here")
            transposed = isinstance(module, nn.ConvTranspose2d)
            parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight, transposed))
    return network


def next_vectors(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all u and v after one power iteration, by their buffers' names; a pure function, also under `vmap`.

    tensors: the network's parameters and buffers by name.
    """
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, SpectralNorm):
            weight = tensors[f"{name.rpartition('.')[0]}.original"].detach()
            matrix = as_matrix(weight, module.transposed)
            with torch.autocast(weight.device.type, enabled=False):
                found[f"{name}.u"], found[f"{name}.v"] = power_iteration(matrix, tensors[f"{name}.u"])
    return found


@torch.no_grad()
def iterate(network: nn.Module) -> None:
    """Do one power iteration in each normalised layer, in place: once before each update of the network."""
    buffers = dict(network.named_buffers())
    if isinstance(network, Stacked):
        found = network.mapped(next_vectors)
    else:
        found = next_vectors(network, {**dict(network.named_parameters()), **buffers})
    for name, value in found.items():
        buffers[name].copy_(value)
