"""A training step: GLaMa's generator against its discriminator (section 3.3).

    image, mask → generator → x̂ → (1), (2), (4), feature matching, (8), (10) → the generator's gradients
                              └→  discriminator on x and x̂ → (3), (5)       → the discriminator's gradients

Both networks then take a step of Adam, and the running average of the generator is updated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from glama_deploy.checkpoints import formats
from glama_deploy.checkpoints.published.references import locate
from glama_deploy.errors import CheckpointError, GlamaError
from glama_deploy.network import NetworkConfig, is_same_network, list_differences
from glama_deploy.reference import two_stage
from glama_deploy.reference.discriminator import PatchDiscriminator
from glama_deploy.reference.generator import Generator, inpaint, masked_input
from glama_deploy.text.excerpts import excerpt
from glama_deploy.training import losses, perceptual, run_state, texture
from glama_deploy.training.config import Config, Optimization
from glama_deploy.training.data import Batch, Positions, Squares, read_batches
from glama_deploy.training.processes import average_gradients, share_statistics

#: Losses by name.
Scalars = dict[str, float]

#: The version of the training step: masks, losses, clipping. A run of another version is not resumed, because its steps
#: would change. glama-deploy 0.1 had version 1.
RECIPE = 2


class Trainer:
    """The networks and optimizers of a run, and the number of completed steps.

    Args:
        config: The run's config.
        fabric: The run's processes.

    Attributes:
        config: The run's config.
        fabric: The run's processes.
        step: Number of completed steps.
        best: Best values of the validations by the names of their criteria.
        average: The generator with averaged weights.

    Raises:
        GlamaError: The number of parts does not divide the batch, or the weights of equation (2) cannot be read.
        CheckpointError: The teacher's checkpoint is missing or cannot be read.
        DownloadError: The teacher is a published model that cannot be downloaded.
    """

    def __init__(self, config: Config, fabric: Fabric) -> None:
        parts = config.optimization.accumulate * fabric.world_size
        if config.optimization.batch % parts:
            raise GlamaError(
                f"optimization.batch is {config.optimization.batch}; a multiple of {parts} (optimization.accumulate × "
                f"{fabric.world_size} processes) is expected"
            )
        self.config, self.fabric, self.step = config, fabric, 0
        self.best: dict[str, float] = {}
        self._several = fabric.world_size > 1
        self._judge, self._teacher = _open_judge(config, fabric), _open_teacher(config, fabric)
        torch.manual_seed(config.optimization.seed)
        generator = Generator(config.network).to(fabric.device)
        discriminator = PatchDiscriminator(config.discriminator.channels, config.discriminator.layers).to(fabric.device)
        self._generator_adam, self._discriminator_adam = (
            torch.optim.Adam(network.to(memory_format=torch.channels_last).parameters())
            for network in (generator, discriminator)
        )
        self._generator, self._discriminator = generator, discriminator
        self._averaged = AveragedModel(generator, multi_avg_fn=self._move_average, use_buffers=True)
        self._averaged.n_averaged += 1  # the weights at the start count, so the first step does not replace them
        self.average = cast(Generator, self._averaged.module).eval().requires_grad_(False)
        if self._several:
            for network in (generator, discriminator):
                share_statistics(network)

    def read_batches(self, squares: Squares) -> Iterator[Batch]:
        """Read the parts of this process's batches, from the current step on.

        Args:
            squares: The samples.

        Returns:
            An endless iterator of parts, `optimization.accumulate` for each step.
        """
        optimization = self.config.optimization
        fabric = self.fabric
        part = optimization.batch // optimization.accumulate // fabric.world_size
        start = self.step * optimization.batch
        positions = Positions(part, start, fabric.global_rank, fabric.world_size)
        return read_batches(squares, positions, self.config.data.workers, fabric.device)

    def advance(self, samples: Iterator[Batch]) -> tuple[Scalars, tuple[str, ...]]:
        """Do one step of both networks.

        Args:
            samples: The iterator of :meth:`read_batches`.

        Returns:
            The step's losses, and names of photographs that cannot be read.
        """
        optimization = self.config.optimization
        parts, share = optimization.accumulate, compute_rate_factor(self.step, optimization)
        if optimization.freeze_norms is not None and self.step >= optimization.freeze_norms:
            for module in self._generator.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        rates = optimization.generator_rate, optimization.discriminator_rate
        for adam, full in zip((self._generator_adam, self._discriminator_adam), rates, strict=True):
            adam.param_groups[0] |= {"lr": share * full, "betas": (0.9, optimization.beta2)}
            adam.zero_grad()
        found: list[Scalars] = []
        broken: list[str] = []
        for _ in range(parts):
            batch = next(samples)
            broken += batch.broken
            found.append(self._add_gradients(batch.image, batch.mask, 1 / parts))
        if self._several:
            for network in (self._generator, self._discriminator):
                average_gradients(network.parameters())
        if optimization.clip is not None:
            for network in (self._generator, self._discriminator):
                torch.nn.utils.clip_grad_norm_(network.parameters(), optimization.clip)
        self._generator_adam.step()
        self._discriminator_adam.step()
        self._averaged.update_parameters(self._generator)
        self.step += 1
        means = {name: sum(scalars[name] for scalars in found) / parts for name in found[0]}
        if self._several:
            together = self.fabric.all_reduce(torch.tensor(list(means.values())), reduce_op="mean")
            means = dict(zip(means, cast(Tensor, together).tolist(), strict=True))
        return means, tuple(broken)

    def start_from(self, path: Path) -> None:
        """Take the generator's weights from a checkpoint.

        Args:
            path: A checkpoint of any format. For a network of two stages, the checkpoint may contain only stage one.

        Raises:
            CheckpointError: The checkpoint cannot be read, or is of another network.
        """
        found = formats.read(path)
        network = self.config.network
        if network.coarse is not None and is_same_network(found.config, network.coarse):
            into = [each.coarse for each in (self._generator, self.average)]
        elif is_same_network(found.config, network):
            into = [self._generator, self.average]
        else:
            raise CheckpointError(
                f"{path} is of another network than the config's: {list_differences(found.config, network)}"
            )
        state = formats.build_module(found).state_dict()
        for each in into:
            assert each is not None
            each.load_state_dict(state)

    def state(self) -> dict[str, Any]:
        """Collect the state that a resumed run needs.

        Returns:
            The content of a checkpoint. `config` and `state_dict` are those of the averaged generator.
        """
        return {
            "config": self.config.network.model_dump(),
            "state_dict": self.average.state_dict(),
            "training": {
                "step": self.step,
                "config": self.config.model_dump(mode="json"),
                "generator": self._generator.state_dict(),
                "discriminator": self._discriminator.state_dict(),
                "generator_adam": self._generator_adam.state_dict(),
                "discriminator_adam": self._discriminator_adam.state_dict(),
                "best": dict(self.best),
                "recipe": RECIPE,
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a state.

        Args:
            state: The result of :meth:`state`, as a checkpoint stores it.

        Raises:
            CheckpointError: The state has parts of other types, or is of another network or of another version of the
                training step.
        """
        run_state.check(state)
        training = state["training"]
        recipe = training.get("recipe", 1)
        if recipe != RECIPE:
            raise CheckpointError(
                f"the run has the recipe {recipe} of another version of glama-deploy with other masks and losses "
                f"(expected: recipe {RECIPE}); start a new run with this checkpoint as `weights`"
            )
        try:
            network = NetworkConfig.model_validate(state["config"])
        except ValidationError as error:
            raise CheckpointError(f"the config is not valid ({excerpt(error.errors()[0]['msg'])})") from error
        if not is_same_network(network, self.config.network):
            raise CheckpointError(
                "the checkpoint is of another network than the config's: "
                f"{list_differences(network, self.config.network)}; give the config of the run"
            )
        try:
            self.average.load_state_dict(state["state_dict"])
            self._generator.load_state_dict(training["generator"])
            self._discriminator.load_state_dict(training["discriminator"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                "the checkpoint's discriminator has another shape than the config's; give the config of the run"
            ) from error
        adams = {"generator_adam": self._generator_adam, "discriminator_adam": self._discriminator_adam}
        for name, adam in adams.items():
            adam.load_state_dict(run_state.check_adam_state(training.get(name), adam, name))
        self.step, self.best = training["step"], run_state.read_best(training)

    def _add_gradients(self, image: Tensor, mask: Tensor, share: float) -> Scalars:
        """Add the gradients of one part of the batch, weighted by `share`, and return the part's losses."""
        weights = self.config.weights
        with self.fabric.autocast():
            predicted, terms = self._predict(image, mask)
            terms |= self._picture_terms(predicted, image, mask) | self._judged_terms(predicted, image, mask)
            if self._teacher is not None:
                with torch.no_grad():
                    taught = inpaint(self._teacher, image, mask)
                terms["teacher"] = losses.psnr_missing(predicted, taught, mask)
            total = losses.joint(terms, weights)
        (total * share).backward()
        judged: dict[str, Tensor] = {}
        if weights.adversarial:
            with self.fabric.autocast():
                judged = self._discriminator_terms(predicted.detach(), image, mask)
                against = judged["discriminator"] + weights.gradient_penalty * judged["gradient_penalty"]
            weight = weights.adversarial if weights.discriminator is None else weights.discriminator
            (weight * share * against).backward()
        return {name: float(value.detach()) for name, value in {**terms, **judged, "total": total}.items()}

    def _predict(self, image: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the generator's prediction and, for a network of two stages, the loss of stage one."""
        masked = masked_input(image, mask).contiguous(memory_format=torch.channels_last)
        if self._generator.coarse is None:
            return self._generator(masked), {}
        small, coarse = self._generator.guess(masked)
        whole = two_stage.shrink(masked_input(image, torch.zeros_like(mask)), small.shape[-1])[:, :3]
        own = losses.joint(self._picture_terms(coarse, whole, small[:, 3:]), self.config.weights)
        return self._generator.refine(masked, small, coarse), {"coarse": own}

    def _picture_terms(self, predicted: Tensor, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the terms of (7) and (11) that compare pictures, by their names in the weights.

        Except for `l1`, terms with a weight of 0 are not computed.
        """
        weights = self.config.weights
        terms = {"l1": losses.l1_known(predicted, image, mask)}
        if weights.l1_missing:
            terms["l1_missing"] = losses.l1_missing(predicted, image, mask)
        if weights.psnr_missing:
            terms["psnr_missing"] = losses.psnr_missing(predicted, image, mask)
        if weights.total_variation:
            terms["total_variation"] = losses.total_variation(predicted)
        if weights.focal_frequency:
            terms["focal_frequency"] = losses.focal_frequency(predicted, image)
        if weights.texture:
            directions = texture.draw_directions(self.config.optimization.seed, self.step)
            terms["texture"] = texture.compare_textures(predicted, image, mask, directions, weights.texture_distance)
        return terms

    def _judged_terms(self, predicted: Tensor, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the terms of (7) that need a second network: the discriminator, or φ of (2)."""
        weights, terms = self.config.weights, dict[str, Tensor]()
        if weights.adversarial or weights.feature_matching:
            shown, _ = self._show(predicted, image, mask)
            self._discriminator.requires_grad_(False)
            with torch.no_grad():
                _, real_features = self._discriminator(image)
            fake, fake_features = self._discriminator(shown)
            self._discriminator.requires_grad_(True)
            terms["adversarial"] = losses.generator_loss(fake)
            terms["feature_matching"] = losses.feature_matching(real_features, fake_features, weights.feature_distance)
        if self._judge is not None:
            with torch.no_grad():
                real = self._judge(image)
            if weights.perceptual_distance is not None:
                predicted = texture.keep_wide_holes(predicted, image, mask, weights.perceptual_distance)
            terms["perceptual"] = losses.perceptual(real, self._judge(predicted))
        return terms

    def _discriminator_terms(self, predicted: Tensor, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        shown, made = self._show(predicted, image, mask)
        image = image.detach().requires_grad_()
        real, _ = self._discriminator(image)
        fake, _ = self._discriminator(shown)
        return {
            "discriminator": losses.discriminator_loss(real, fake, made),
            "gradient_penalty": losses.gradient_penalty(real, image),
        }

    def _show(self, predicted: Tensor, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pictures that the discriminator judges, and the masks of their generated pixels."""
        distance = self.config.weights.adversarial_distance
        if distance is None:
            return predicted, mask
        made = texture.find_wide_holes(mask, distance)
        return torch.where(made > 0, predicted, image), made

    def _move_average(self, means: Sequence[Tensor], values: Sequence[Tensor], _: Tensor | int) -> None:
        """Move tensors of the average towards those of the generator.

        In the first steps, the decay is smaller than the config's, so the average soon forgets the first weights.
        Counters, which are integers, are copied. All tensors of a call have one dtype.
        """
        if not means[0].is_floating_point():
            for mean, value in zip(means, values, strict=True):
                mean.copy_(value)
            return
        decay = min(self.config.optimization.average, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)(means, values, self.step)


def compute_rate_factor(step: int, optimization: Optimization) -> float:
    """Compute the factor of the learning rates at a step.

    Args:
        step: Number of completed steps.
        optimization: The schedule, and the number of steps of the warm-up.

    Returns:
        The factor, 0…1.
    """
    share = min(1.0, (step + 1) / (optimization.warm_up + 1))
    if optimization.schedule == "cosine":
        share *= 0.5 * (1 + math.cos(math.pi * step / optimization.steps))
    return share


def _open_judge(config: Config, fabric: Fabric) -> nn.Module | None:
    """Return φ of equation (2), or None where the loss has a weight of 0."""
    if not config.weights.perceptual:
        return None
    return perceptual.open_network(config.perceptual_network, config.perceptual_weights).to(fabric.device)


def _open_teacher(config: Config, fabric: Fabric) -> nn.Module | None:
    """Return the network whose predictions `weights.teacher` uses, or None where the config names none."""
    if config.teacher is None:
        return None
    try:
        teacher = formats.build_module(formats.read(locate(config.teacher))).requires_grad_(False)
    except CheckpointError as error:
        raise type(error)(f"teacher: {error}") from error
    return teacher.to(fabric.device).to(memory_format=torch.channels_last)
