"""An autoencoder that compares images by a discriminator's features (Larsen et al. 2016, equations 8 to 10)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pipeline.models._base import architecture, build_discriminator, build_generator
from pipeline.training.losses import cross_entropy
from pipeline.training.objectives._base import Batch, Objective, frozen, register
from pipeline.training.objectives.variational import divergence
from pipeline.training.state import State

SHARE = 0.1  # γ of algorithm 1; at 1 the images of Fashion-MNIST stay blurred
FLOOR = 1e-6  # variance of the features: below it they agree


@register("similarity")
class Similarity(Objective):
    """Trains a discriminator, and a generator with an encoder before it (algorithm 1 of Larsen et al. 2016).

    The discriminator tells real images from those of random latents, by the nonsaturating loss. The generator tries to
    pass as real, and with the encoder raises the evidence lower bound of a Gaussian over the discriminator's features;
    its one σ is set to its optimum on the batch, as in `variational`. Unlike there, reconstructions are no third kind
    of image for the discriminator: they are not what is drawn later. The encoder's share of the loss needs no weight
    of its own, as Adam takes steps of the same size whatever it is (`optimizer: sgd` does not). `similarity` is in
    nats for each feature.
    """

    kind = "vaegan"
    loss = "nonsaturating"
    columns = ("loss_g", "loss_d", "similarity", "kl")
    updates = (("discriminator",), ("generator", "encoder"))

    def networks(self) -> dict[str, nn.Module]:
        discriminator = build_discriminator(self.config)
        build = architecture(self.config.architecture).encoder
        assert discriminator is not None
        assert build is not None
        return {
            "generator": build_generator(self.config),
            "discriminator": discriminator,
            "encoder": build(self.config),
        }

    def step(self, state: State, batch: Batch) -> Tensor:
        networks: dict[str, Any] = state.networks
        generator, discriminator = networks["generator"], networks["discriminator"]
        with self.runtime.autocasting():
            fake = generator(batch.z, batch.labels)
            on_real = discriminator(batch.real, batch.labels).float()
            on_fake = discriminator(fake.detach(), batch.labels).float()
        loss_d = cross_entropy(on_real, on_fake)
        loss_d.sum().backward()
        self.update(state, "discriminator")

        with frozen(discriminator):
            with self.runtime.autocasting():
                mean, log_variance = (part.float() for part in networks["encoder"](batch.real, batch.labels))
                noise = torch.randn_like(mean)
                again = generator(mean + noise * (0.5 * log_variance).exp(), batch.labels)
                with torch.no_grad():
                    wanted = discriminator.features(batch.real)
                found = discriminator.features(again)
                on_fake = discriminator(fake, batch.labels).float()
            variance = (found.float() - wanted.float()).square().mean((-2, -1)).clamp(min=FLOOR)
            similarity = 0.5 * (math.log(2 * math.pi) + 1 + variance.log())
            kl = divergence(mean, log_variance)
            adversarial = softplus(-on_fake).mean(-1)
            (adversarial + SHARE * (similarity + kl / wanted.shape[-1])).sum().backward()
        self.update(state, "generator", "encoder")
        return torch.stack([adversarial.detach(), loss_d.detach(), similarity.detach(), kl.detach()], -1)

    def update(self, state: State, *names: str) -> None:
        """Let the optimisers of these networks take their step."""
        for name in names:
            state.optimizers[name].step()
            state.optimizers[name].zero_grad()
