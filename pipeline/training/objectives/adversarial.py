"""A generator against a discriminator (Goodfellow et al. 2014), with any of `pipeline.training.losses`."""

import torch
from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig, build_discriminator, build_generator
from pipeline.params import Family
from pipeline.training import losses
from pipeline.training.objectives._base import Batch, Objective, register
from pipeline.training.state import State


@register("adversarial")
class Adversarial(Objective):
    """Updates the discriminator, then the generator against the updated discriminator.

    Both updates use the same generated images, so the generator runs once. Real and generated images pass the
    discriminator as batches of their own (batch statistics of one kind, as in DCGAN).
    """

    kind = "gan"
    columns = ("loss_g", "loss_d", "logit_real", "logit_fake")

    def __init__(self, family: Family, config: ModelConfig, runtime: Runtime) -> None:
        super().__init__(family, config, runtime)
        self.loss = family.loss or losses.DEFAULT
        self.losses = losses.LOSSES[self.loss]

    def networks(self) -> dict[str, nn.Module]:
        discriminator = build_discriminator(self.config)
        assert discriminator is not None
        return {"generator": build_generator(self.config), "discriminator": discriminator}

    def step(self, state: State, batch: Batch) -> Tensor:
        networks, optimizers = state.networks, state.optimizers
        generator, discriminator = networks["generator"], networks["discriminator"]
        with self.runtime.autocasting():
            fake = generator(batch.z, batch.labels)
            on_real = discriminator(batch.real, batch.labels)
            on_fake = discriminator(fake.detach(), batch.labels)
        on_real, on_fake = on_real.float(), on_fake.float()
        loss_d = self.losses.discriminator(on_real, on_fake)
        loss_d.backward()
        optimizers["discriminator"].step()
        optimizers["discriminator"].zero_grad()

        # The generator needs the gradient through the discriminator, not that of its weights: a third of its backward.
        discriminator.requires_grad_(False)
        with (
            self.runtime.autocasting()
        ):  # a context of its own: the last one keeps bf16 copies of the weights as they were
            judged = discriminator(fake, batch.labels)
        loss_g = self.losses.generator(judged.float())
        loss_g.backward()
        discriminator.requires_grad_(True)
        optimizers["generator"].step()
        optimizers["generator"].zero_grad()
        return torch.stack([loss_g.detach(), loss_d.detach(), on_real.detach().mean(), on_fake.detach().mean()])
