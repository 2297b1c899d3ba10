"""A generator against several discriminators (GMAN: Durugkar, Gemp, Mahadevan 2017, "Generative Multi-Adversarial
Networks")."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training.objectives._base import Batch, register
from pipeline.training.objectives.adversarial import Adversarial
from pipeline.training.state import State

REWARD = 0.001  # c in f(λ) = c·λ, as in the paper


class Sharpness(nn.Module):
    """λ of the softmax over the generator's losses: 0 weighs all alike, infinity the harshest alone; 1 at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(()))  # so that λ stays above 0

    def forward(self, losses: Tensor) -> Tensor:
        """Map k losses to k weights (Durugkar et al. 2017, below equation 5)."""
        return (self.log.exp() * losses).softmax(-1)


@register("panel")
class PanelOfDiscriminators(Adversarial):
    """Trains each of the k discriminators as if it were alone, and the generator against all of them.

    They differ by their initial weights and by their draws of dropout. Vᵢ is the generator's loss against
    discriminator i. With `discriminator_weights: mean` the generator minimises the mean of all Vᵢ (their GMAN-0), with
    `softmax` Σᵢ wᵢVᵢ with wᵢ = exp(λVᵢ) / Σⱼ exp(λVⱼ) (equation 3), λ being learned by equation 7, min Σᵢ wᵢVᵢ - cλ:
    its gradient is the weighted variance of the Vᵢ less c, so the generator goes easy while they disagree and faces
    the harshest once they do not. Two departures: λ is e to a learned number, which keeps it positive; and the
    generator takes the weights as constants. The derivative of equation 3 through the weights, wᵢ(1 + λ(Vᵢ - Σⱼ wⱼVⱼ)),
    is negative where a discriminator is much milder than the others, and would have the generator please it less.

    `loss_g` is the weighted loss; `loss_d` and the logits are means over the discriminators, `penalty` is the sum of
    theirs; `weight_1`… and `sharpness` are wᵢ and λ.
    """

    updates = (("discriminator",), ("generator", "sharpness"))

    def __init__(self, family: Family, config: ModelConfig, runtime: Runtime) -> None:
        super().__init__(family, config, runtime)
        self.softmax = family.discriminator_weights == "softmax"
        if self.softmax:
            weights = (f"weight_{i + 1}" for i in range(family.discriminators))
            self.columns = (*self.columns[:4], *weights, "sharpness", *self.columns[4:])

    def networks(self) -> dict[str, nn.Module]:
        networks = super().networks()
        return networks | {"sharpness": Sharpness()} if self.softmax else networks

    def judged(self, discriminator: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
        """Return k×B logits, of each discriminator."""
        panel: Any = discriminator
        logits: Tensor = panel.each(images, labels)
        return logits.float()

    def weights(self, state: State, losses: Tensor) -> Tensor:
        """Return how much each of the generator's k losses counts; only λ has a gradient from it."""
        if not self.softmax:
            return torch.full_like(losses, 1 / len(losses))
        weights: Tensor = state.networks["sharpness"](losses.detach())
        return weights

    def aim(self, state: State, loss_g: Tensor) -> Tensor:
        weights = self.weights(state, loss_g)
        aim = (weights.detach() * loss_g).sum()
        if self.softmax:
            aim = aim + (weights * loss_g.detach()).sum() - REWARD * self.sharpness(state)  # equation 7, for λ
        return aim

    def numbers(self, state: State, loss_g: Tensor, loss_d: Tensor, on_real: Tensor, on_fake: Tensor) -> list[Tensor]:
        weights = self.weights(state, loss_g).detach()
        numbers = [(weights * loss_g).sum(), loss_d.mean(), on_real.mean(), on_fake.mean()]
        return [*numbers, *weights, self.sharpness(state).detach()] if self.softmax else numbers

    def sharpness(self, state: State) -> Tensor:
        """Return λ."""
        module: Any = state.networks["sharpness"]
        value: Tensor = module.log.exp()
        return value

    def penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor, batch: Batch) -> Tensor | None:
        """Return the sum over the discriminators, each with draws of its own."""
        panel: Any = discriminator
        penalties = [super(PanelOfDiscriminators, self).penalty(judge, real, fake, batch) for judge in panel.judges]
        taken = [penalty for penalty in penalties if penalty is not None]
        return torch.stack(taken).sum(0) if taken else None

    def update(self, state: State, name: str) -> None:
        super().update(state, name)
        if self.softmax and name == "generator":
            super().update(state, "sharpness")
