"""A generator against a discriminator (Goodfellow et al. 2014), with any of `pipeline.training.losses`."""

import torch
from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.layers import spectral
from pipeline.models._base import ModelConfig, build_discriminator, build_generator
from pipeline.params import Family
from pipeline.training import losses, regularisers
from pipeline.training.augment import augment
from pipeline.training.objectives._base import Batch, Objective, frozen, register
from pipeline.training.state import State


@register("adversarial")
class Adversarial(Objective):
    """Updates the discriminator at each step and, at every `discriminator_steps`-th, the generator against it.

    Both updates use the same generated images, so the generator runs once. Real and generated images pass the
    discriminator as batches of their own (batch statistics of one kind, as in DCGAN), each newly augmented.
    `loss_d` is the loss without the penalties, `penalty` what they add. `loss_g` is taken against the discriminator
    as the generator's update sees it; where a step has none, against the one that the step began with, which costs
    nothing: so each row of the history has a mean over all of its steps.
    """

    kind = "gan"

    def __init__(self, family: Family, config: ModelConfig, runtime: Runtime) -> None:
        super().__init__(family, config, runtime)
        self.loss = family.loss or losses.DEFAULT
        self.losses = losses.adversarial_loss(self.loss, family.label_smoothing)
        self.columns = ("loss_g", "loss_d", "logit_real", "logit_fake")
        self.penalised = family.regularisers.penalised
        if self.penalised:
            self.columns += ("penalty",)

    def networks(self) -> dict[str, nn.Module]:
        discriminator = build_discriminator(self.config)
        assert discriminator is not None
        return {"generator": build_generator(self.config), "discriminator": discriminator}

    def step(self, state: State, batch: Batch) -> Tensor:
        generator, discriminator = state.networks["generator"], state.networks["discriminator"]
        updates_generator = (batch.step + 1) % self.family.discriminator_steps == 0
        self.prepare(discriminator)
        # One context for all passes up to the update: autocast keeps bf16 copies of the weights while it lasts.
        with self.runtime.autocasting():
            with torch.set_grad_enabled(updates_generator):
                fake = generator(batch.z, batch.labels)
            real_seen, fake_seen = self.augmented(batch.real), self.augmented(fake.detach())
            on_real = self.judged(discriminator, real_seen, batch.labels)
            on_fake = self.judged(discriminator, fake_seen, batch.labels)
        loss_d = self.loss_d(on_real, on_fake)
        loss_d.sum().backward()
        penalty = self.penalty(discriminator, real_seen, fake_seen, batch)
        if penalty is not None:
            penalty.sum().backward()
        self.update(state, "discriminator")

        on_real, on_fake = on_real.detach(), on_fake.detach()
        if updates_generator:
            loss_g = self.step_generator(state, batch, fake, on_real)
        else:
            loss_g = self.loss_g(on_real, on_fake)
        numbers = self.numbers(state, loss_g.detach(), loss_d.detach(), on_real, on_fake)
        if self.penalised:
            numbers.append(torch.zeros_like(numbers[0]) if penalty is None else penalty.detach())
        return torch.stack(numbers, -1)

    def step_generator(self, state: State, batch: Batch, fake: Tensor, on_real: Tensor) -> Tensor:
        """Update the generator and return its loss; `on_real` are the logits before the discriminator's update."""
        discriminator = state.networks["discriminator"]
        # The generator needs the gradient through the discriminator, not that of its weights: a third of its backward.
        with frozen(discriminator):
            with self.runtime.autocasting():  # a context of its own: the last one keeps bf16 weights as they were
                on_fake = self.judged(discriminator, self.augmented(fake), batch.labels)
                if self.losses.pairs:
                    with torch.no_grad():
                        on_real = self.judged(discriminator, self.augmented(batch.real), batch.labels)
            loss = self.loss_g(on_real, on_fake)
            self.aim(state, loss).backward()
        self.update(state, "generator")
        return loss

    def judged(self, discriminator: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
        """What the losses take of the discriminator, in fp32: its logits for images that it is shown as they are."""
        logits: Tensor = discriminator(images, labels)
        return logits.float()

    def numbers(self, state: State, loss_g: Tensor, loss_d: Tensor, on_real: Tensor, on_fake: Tensor) -> list[Tensor]:
        """What a step returns, in the order of `columns` but for the penalty."""
        return [loss_g, loss_d, on_real.mean(-1), on_fake.mean(-1)]

    def loss_d(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """The discriminator's loss on its logits."""
        return self.losses.discriminator(on_real, on_fake)

    def loss_g(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """The generator's loss on the discriminator's logits."""
        return self.losses.generator(on_real, on_fake)

    def aim(self, state: State, loss_g: Tensor) -> Tensor:
        """What the generator's update minimises."""
        return loss_g.sum()

    def penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor, batch: Batch) -> Tensor | None:
        """The penalties on the discriminator at the images that it saw; None at a step without any."""
        return regularisers.penalty(discriminator, self.family.regularisers, real, fake, batch.labels, batch.step)

    def augmented(self, images: Tensor) -> Tensor:
        """The images as the discriminator sees them."""
        return augment(images, self.family.augment)

    def prepare(self, discriminator: nn.Module) -> None:
        """Ready the discriminator for a step."""
        if self.config.spectral_norm:
            spectral.iterate(discriminator)

    def update(self, state: State, name: str) -> None:
        """Let the optimiser of network `name` take its step."""
        state.optimizers[name].step()
        state.optimizers[name].zero_grad()
        if name == "discriminator" and self.family.regularisers.weight_clip and not state.partial:
            regularisers.clip_weights(state.networks[name], self.family.regularisers.weight_clip)
