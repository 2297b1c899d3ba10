"""Several generators against one discriminator that also tells them apart (MAD-GAN: Ghosh, Kulharia, Namboodiri, Torr,
Dokania 2018, "Multi-Agent Diverse Generative Adversarial Networks")."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.compute import Runtime
from pipeline.layers.judges import log_odds
from pipeline.models._base import ModelConfig, build_generator
from pipeline.params import Family
from pipeline.training.objectives._base import Batch, register
from pipeline.training.objectives.adversarial import Adversarial
from pipeline.training.state import State


class Several(nn.Module):
    """Generators side by side: B×(sum of their latents) to the images of all, the first one's first, (k·B)×C×H×W."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        first: Any = parts[0]
        self.each: int = first.latent
        self.latent = self.each * len(parts)
        self.class_shares = first.class_shares

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """All generators are asked for the same classes."""
        return torch.cat([part(own, y) for part, own in zip(self.parts, z.split(self.each, 1), strict=True)])


@register("joint")
class Joint(Adversarial):
    """Trains `replicas` generators together; each is a member, and all keep the one discriminator.

    The discriminator is a softmax over k generators and, last, real images: D₁ … Dₖ₊₁. It minimises the cross-entropy
    -E[log Dₖ₊₁(x)] - 1/k Σᵢ E[log Dᵢ(Gᵢ(z))] (Ghosh et al. 2018, section 4). Generator i has the loss of an ordinary
    GAN on Dₖ₊₁ alone: the paper's E[log(1 - Dₖ₊₁(Gᵢ(z)))] with `minimax`, -E[log Dₖ₊₁(Gᵢ(z))] with `nonsaturating`.
    The discriminator finds a generator by the images that are its own, and there Dₖ₊₁ is low: so they part.

    The paper has the sum over generators, where we have its mean: then real images would weigh one part in k + 1, and
    the generators are chased round each other (at equal learning rates four of them on a ring of eight modes ended
    between the modes). Weighed alike, Dₖ₊₁ at its best is that of one GAN against the mixture of all,
    p / (p + 1/k Σᵢ pᵢ). They part best where the discriminator keeps up with all of them: with an `lr_discriminator` of
    several times `lr`.

    Every generator draws a batch a step, and the discriminator sees all of them as one batch: its batch statistics
    then tell nothing of who drew an image.
    """

    def __init__(self, family: Family, config: ModelConfig, runtime: Runtime) -> None:
        super().__init__(family, config, runtime)
        self.k = family.replicas
        assert config.outputs == self.k + 1
        names = [f"{name}@{i}" for name in ("loss_g", "logit_fake") for i in range(self.k)]
        self.columns = ("loss_d", "logit_real", *names, *["penalty"] * self.penalised)

    @property
    def noise(self) -> int:
        return self.k * self.config.latent

    def networks(self) -> dict[str, nn.Module]:
        generators = Several([build_generator(self.config) for _ in range(self.k)])
        return {**super().networks(), "generator": generators}

    def members(self, state: State) -> list[dict[str, nn.Module]]:
        average: Any = state.average
        return [{"generator": part, "discriminator": state.networks["discriminator"]} for part in average.parts]

    def judged(self, discriminator: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
        """Return B×(k+1) scores of real images, or (k·B)×(k+1) of all generators' images."""
        identifier: Any = discriminator
        if labels is not None:
            labels = labels.repeat(len(images) // len(labels))
        scores: Tensor = identifier.scores(images, labels)
        return scores.float()

    def loss_d(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        of_real = on_real.new_full((len(on_real),), self.k, dtype=torch.int64)
        of_fake = torch.arange(self.k, device=on_fake.device).repeat_interleave(len(on_real))
        loss = cross_entropy(on_real, of_real) + cross_entropy(on_fake, of_fake)
        # The target of real images, 1 - smoothing (Salimans et al. 2016), leaves the rest to all generators together.
        return loss + self.family.label_smoothing * log_odds(on_real).mean()

    def loss_g(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """Return each generator's loss, k."""
        return self.losses.generator(log_odds(on_real), log_odds(on_fake).unflatten(0, (self.k, -1)))

    def numbers(self, state: State, loss_g: Tensor, loss_d: Tensor, on_real: Tensor, on_fake: Tensor) -> list[Tensor]:
        logits = log_odds(on_fake).unflatten(0, (self.k, -1)).mean(-1)
        return [loss_d, log_odds(on_real).mean(), *loss_g, *logits]

    def penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor, batch: Batch) -> Tensor | None:
        """As of one generator, at a batch to which all give their share in turn."""
        place = torch.arange(len(real), device=fake.device)
        chosen = fake.unflatten(0, (self.k, -1))[place % self.k, place]
        return super().penalty(discriminator, real, chosen, batch)
