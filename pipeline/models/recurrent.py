"""A generator that writes the image from top to bottom with a gated recurrent unit, against DCGAN's discriminator.

Recurrent generators in adversarial training: Im, Kim, Jiang, Memisevic 2016, "Generating Images with Recurrent
Adversarial Networks"; an image as a sequence of its rows: van den Oord, Kalchbrenner, Kavukcuoglu 2016, "Pixel
Recurrent Neural Networks" (section 3.1); the unit: Cho et al. 2014, "Learning Phrase Representations using RNN
Encoder-Decoder for Statistical Machine Translation".
"""

import torch
from torch import Tensor, nn

from pipeline.layers.conditional import Join, Layers, batch_norm
from pipeline.layers.convolutional import Up, initialise
from pipeline.layers.discriminator import Convolutional
from pipeline.models._base import Architecture, ModelConfig, register

STATE = 8  # numbers of the unit's state, in units of the width


class GatedUnit(nn.Module):
    """A gated recurrent unit whose input is the same at every step, plus a learned vector of the step's own.

    Written out, because torch's own runs neither stacked under `vmap` nor in bfloat16 on the CPU. B×inputs and an
    initial state of zeros give the states of all steps, B×steps×units.
    """

    def __init__(self, inputs: int, units: int, steps: int) -> None:
        super().__init__()
        self.outside = nn.Linear(inputs, 3 * units)
        self.gates = nn.Linear(units, 2 * units, bias=False)
        self.candidate = nn.Linear(units, units, bias=False)
        self.places = nn.Parameter(0.5 * torch.randn(steps, 3 * units))
        nn.init.normal_(self.outside.weight, 0.0, inputs**-0.5)
        for layer in (self.gates, self.candidate):
            # A state is to come through many steps as large as it was.
            for block in layer.weight.split(units):
                nn.init.orthogonal_(block)

    def forward(self, x: Tensor) -> Tensor:
        outside = self.outside(x)
        state = outside.new_zeros(x.shape[0], self.candidate.in_features)
        states = []
        for place in self.places:
            update_reset, candidate = (outside + place).split([2 * state.shape[1], state.shape[1]], 1)
            update, reset = (update_reset + self.gates(state)).sigmoid().chunk(2, 1)
            proposal = (candidate + self.candidate(reset * state)).tanh()
            state = torch.lerp(state, proposal.to(state.dtype), update.to(state.dtype))
            states.append(state)
        return torch.stack(states, 1)


class Generator(nn.Module):
    """The unit reads the latent at each step and writes a row of a map at half the image's side, of `width` channels.

    A transposed convolution makes two rows of pixels of each, overlapping with those of its neighbours.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        self.row = (config.size // 2, config.width)
        self.join = Join(config.latent, config.classes)
        self.write = nn.Linear(STATE * config.width, self.row[0] * self.row[1], bias=False)
        self.layers = Layers(
            batch_norm(config.width, config.classes),
            nn.ReLU(inplace=True),
            Up(config.width, config.channels, bias=True),
            nn.Tanh(),
        )
        initialise(self)
        self.unit = GatedUnit(self.join.length, STATE * config.width, self.row[0])

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where there are classes, to B×C×H×W in [-1, 1]."""
        rows = self.write(self.unit(self.join(z, y))).unflatten(2, self.row)
        return self.layers(rows.permute(0, 3, 1, 2), y)


register(Architecture("recurrent", Generator, Convolutional))
