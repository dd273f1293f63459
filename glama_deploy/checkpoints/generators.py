"""Find the generator among the tensors of a file, and choose one of several.

A file of a training run often has a generator and the running average of its parameters, which gives better pictures.
The running average is taken unless the caller chooses. Of LaMa's trainer, the generator is taken, as by
LaMa's `predict.py`: that trainer averages the parameters only. The average keeps the statistics of batch norms that the
generator had after the first steps.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

from glama_deploy.catalogue import join_names
from glama_deploy.checkpoints.parameters import REGULAR_STEM, STEM, sample
from glama_deploy.checkpoints.stored_tensors import FLOAT_TYPES, StoredTensor
from glama_deploy.errors import CheckpointError
from glama_deploy.text.excerpts import excerpt

log = logging.getLogger("glama_deploy")

#: Words in the name of a running average: LaMa writes `generator_average`, other trainers `ema`, `params_ema`,
#: `ema_model`, `model_ema`, `averaged_model` or `swa_model`.
_AVERAGE_WORDS = re.compile(r"(?:^|[._])(?:average|averaged|avg|ema|swa)(?:[._]|$)", re.IGNORECASE)

#: Ends of the prefixes of a generator and its average in a checkpoint of LaMa's trainer.
_LAMA_GENERATOR, _LAMA_AVERAGE = "generator.", "generator_average."

#: Prefix of the embeddings of masked positions, which manga-image-translator's network adds behind the stem.
_MPE = "str_state_dict."

#: The key of a generator whose parameters have no prefix.
_WITHOUT_PREFIX = "model"

#: Words in the names of tensors that only training uses. Other tensors beside the generator are not supported.
_TRAINING_WORDS = re.compile(
    r"(?:^|[._])"
    r"(?:callbacks|criterion|dis|disc|discr|discriminator|epoch|evaluators?|fid|inception|iteration|loops|loss|losses|"
    r"lpips|metrics?|netd|optim|optimizers?|perceptual|rng|scaler|schedulers?|steps?|training|vgg|vgg16|vgg19)"
    r"(?:[._]|$)",
    re.IGNORECASE,
)

#: Types of counters and random states, which only training has, by the names of torch and of safetensors.
_WHOLE_NUMBERS = re.compile(r"u?int\d+|bool|[UI]\d+|BOOL")


def find(
    tensors: Mapping[str, StoredTensor], weights_key: str | None = None
) -> tuple[dict[str, StoredTensor], str | None]:
    """Find the tensors of the generator under their own names.

    Args:
        tensors: All tensors of the file by name.
        weights_key: The generator of a file with several: its prefix, or the end of the prefix. None: the only one, or
            the running average.

    Returns:
        The generator's tensors, and its key where the file has several or one was asked for.

    Raises:
        CheckpointError: The tensors contain no generator, several generators without an obvious choice, none under
            `weights_key`, a parameter of a type that is not in `FLOAT_TYPES`, or tensors beside the generator that
            training does not use and that may change the network's output.
    """
    prefixes = _find_prefixes(tensors)
    if not prefixes:
        raise CheckpointError(_explain_absence(tensors))
    prefix = _choose(prefixes, weights_key)
    parts = tuple(f"{each}{part}." for each in prefixes for part in ("model", "coarse"))
    others = [name for name, tensor in tensors.items() if not name.startswith(parts) and _may_compute(name, tensor)]
    if any(name.startswith(_MPE) for name in others):
        raise CheckpointError(
            f"the file has the embeddings of an MPE network ({_MPE}, inpainting_lama_mpe.ckpt) beside the generator; "
            "such networks are not supported: give lama_large_512px.ckpt or another LaMa"
        )
    if others:
        raise CheckpointError(
            f"tensors beside the generator ({len(others)}): {sample(others)}; they may change the network's output and "
            "are not supported; if they do not change the output, save only the generator's parameters"
        )
    found = {
        name[len(prefix) :]: tensor
        for name, tensor in tensors.items()
        if name.startswith((f"{prefix}model.", f"{prefix}coarse.")) and not name.endswith(".num_batches_tracked")
    }
    for name, tensor in found.items():
        if tensor.dtype not in FLOAT_TYPES:
            raise CheckpointError(f"{excerpt(name)} is {tensor.dtype}; {', '.join(FLOAT_TYPES)} are supported")
    return found, _get_key(prefix) if len(prefixes) > 1 or weights_key is not None else None


def _find_prefixes(tensors: Mapping[str, StoredTensor]) -> set[str]:
    """Return everything that stands before the names of a generator, for each generator."""
    ends = [name[: -len(STEM)] for name in tensors if name.endswith(STEM)]
    if not ends:  # names of a regular network are less telling, so the shape has to fit, too
        stems = [name for name, tensor in tensors.items() if name.endswith(REGULAR_STEM) and _is_stem(tensor.shape)]
        ends = [name[: -len(REGULAR_STEM)] for name in stems]
    prefixes = {prefix for prefix in ends if prefix == "" or prefix.endswith(".")}
    return prefixes - {f"{prefix}coarse." for prefix in prefixes}


def _is_stem(shape: tuple[int, ...]) -> bool:
    """Return whether a shape is that of a 7×7 convolution of a masked image and its mask."""
    return len(shape) == 4 and shape[1:] == (4, 7, 7)


def _explain_absence(tensors: Mapping[str, StoredTensor]) -> str:
    """Say that no tensor is that of a generator, and what the file has instead."""
    if any("_modules" in name.split(".") for name in tensors):
        return (
            "the file is a whole module, and a module is code, which is not run; save its state_dict() instead: "
            "torch.save(module.state_dict(), FILE)"
        )
    found = f"{len(tensors)}{': ' if tensors else ''}{sample(tensors)}"
    return f"the file has no LaMa or GLaMa generator: no tensor is called …{STEM} (tensors found: {found})"


def _may_compute(name: str, tensor: StoredTensor) -> bool:
    """Tell whether a tensor beside the generator may change the network's output.

    Training state and single values do not change the output. The shape of a tensor that cannot be read may be unknown.
    """
    single = tensor.shape == () and tensor.dtype in FLOAT_TYPES
    return not (single or _WHOLE_NUMBERS.fullmatch(tensor.dtype) or _TRAINING_WORDS.search(name))


def _choose(prefixes: set[str], weights_key: str | None) -> str:
    """Return the prefix of the generator that is asked for, of the only one, of the running average, or of LaMa's."""
    if weights_key is not None:
        return _find_key(prefixes, weights_key)
    if len(prefixes) == 1:
        return next(iter(prefixes))
    averages = [prefix for prefix in prefixes if _AVERAGE_WORDS.search(prefix)]
    if len(prefixes) > 2 or len(averages) != 1:
        raise CheckpointError(
            f"the file has {len(prefixes)} generators, under {sample(map(_get_key, prefixes))}; choose one with "
            "`export(weights_key=NAME)`, or save the parameters of only one"
        )
    (average,) = averages
    (own,) = prefixes - {average}
    is_lamas = own.endswith(_LAMA_GENERATOR) and average == f"{own.removesuffix(_LAMA_GENERATOR)}{_LAMA_AVERAGE}"
    chosen, other, name = (own, average, "generator, as LaMa does") if is_lamas else (average, own, "average")
    log.warning(
        "the file has a generator, %s, and its running average, %s; reading the %s (`export(weights_key=%s)` reads "
        "the other one)",
        _get_key(own),
        _get_key(average),
        name,
        _get_key(other),
    )
    return chosen


def _find_key(prefixes: Iterable[str], key: str) -> str:
    """Return the prefix that a key names: completely, or by its last words."""
    by_key = {_get_key(prefix): prefix for prefix in sorted(prefixes)}
    if key in by_key:
        return by_key[key]
    found = [prefix for name, prefix in by_key.items() if name.endswith(f".{key}")]
    if len(found) == 1:
        return found[0]
    raise CheckpointError(
        f"`weights_key={excerpt(key, 60)}` names {len(found) or 'no'} generators of the file; present are "
        f"{join_names([excerpt(name) for name in by_key], 'and')}"
    )


def _get_key(prefix: str) -> str:
    return prefix.removesuffix(".") or _WITHOUT_PREFIX
