"""Weights exchanged: a new spec, which shares every other tensor with the old one."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from funlens.adapters._collectives import is_part
from funlens.adapters._machinery import Machinery
from funlens.adapters._registry import replaced
from funlens.adapters._skeleton import bare_copy
from funlens.data import FactoredMatrix, ModelSpec
from funlens.errors import (
    DtypeError,
    FunlensError,
    InputError,
    OptionError,
    ShapeError,
    UnsupportedConfigError,
    nearest,
    raise_all,
)


def with_weights(spec: ModelSpec, values: Mapping[str, Tensor]) -> ModelSpec:
    """Give a spec with other values for some weights.

    The old spec and the owner's module keep theirs. What is passed is held, not copied.
    Weights that are tied stay tied: one name moves all of them. To part them, name
    more than one; the names that are left out then keep what they had.

    No gradient reaches `values`: for that there is `run(..., params=)`.

    Args:
        spec: The model.
        values: New values by HuggingFace's names, laid out as HuggingFace has them.

    Returns:
        A new spec; memory for its structure, and none for what is shared.

    Raises:
        OptionError: No weight has that name.
        ShapeError: A value has another shape than the weight.
        DtypeError: A value has another dtype, or is on another device.
        ExceptionGroup: Several of these.

    Examples:
        >>> import torch
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> name = "model.layers.0.mlp.down_proj.weight"
        >>> silent = fl.with_weights(spec, {name: torch.zeros(128, 384)})
        >>> bool(fl.W_out(silent, 0).any()), bool(fl.W_out(spec, 0).any())
        (False, True)
    """
    held = weights_of(spec.module)
    raise_all([*_faults(held, values, "values")])
    given = dict(values)
    for name, value in values.items():
        mates = [other for other in held if held[other] is held[name] and other != name]
        if given.keys().isdisjoint(mates):
            given.update(dict.fromkeys(mates, value))
    return exchanged(spec, given)


def add_low_rank(
    spec: ModelSpec, updates: Mapping[str, FactoredMatrix], *, scale: float = 1.0
) -> ModelSpec:
    """Give a spec with products of low rank added to some weights.

    Args:
        spec: The model.
        updates: What to add by HuggingFace's names, laid out as HuggingFace has them:
            `nn.Linear` holds `[output, input]`. Tied weights move together.
        scale: What to multiply the updates by.

    Returns:
        A new spec; memory for the weights that changed.

    Raises:
        OptionError: No weight has that name.
        ShapeError: An update has another shape than the weight.
        DtypeError: An update has another dtype, or is on another device.
        ExceptionGroup: Several of these.

    Examples:
        >>> import torch
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> update = fl.FactoredMatrix(torch.ones(128, 1), torch.ones(1, 384))
        >>> name = "model.layers.0.mlp.down_proj.weight"
        >>> edited = fl.add_low_rank(spec, {name: update}, scale=0.1)
        >>> torch.equal(fl.W_out(edited, 0), fl.W_out(spec, 0) + 0.1)
        True
    """
    held = weights_of(spec.module)
    raise_all([*_faults(held, updates, "updates")])
    with torch.no_grad():
        values = {
            name: held[name] + scale * update.AB for name, update in updates.items()
        }
    return with_weights(spec, values)


def interpolate(one: ModelSpec, other: ModelSpec, fraction: float) -> ModelSpec:
    """Give the model between two checkpoints of one architecture.

    Args:
        one: The model at 0; the result has its tokenizer and name.
        other: The model at 1.
        fraction: How far to go; beyond 0..1 it goes on along the line.

    Returns:
        A new spec whose weights are `one + fraction * (other - one)`, tied where both
        models tie them. At 0 and 1 they are exactly those models' weights.

    Raises:
        InputError: The models have not the same weights.
        OptionError: The fraction is no finite number.

    Examples:
        >>> import torch
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> name = "model.norm.weight"
        >>> other = fl.with_weights(spec, {name: torch.zeros(128)})
        >>> middle = fl.interpolate(spec, other, 0.5)
        >>> torch.equal(dict(middle.module.named_parameters())[name],
        ...             dict(spec.module.named_parameters())[name] / 2)
        True
    """
    if not math.isfinite(fraction):
        raise OptionError("fraction", f"it is {fraction}; expected a finite number")
    ours, theirs = weights_of(one.module), weights_of(other.module)
    _check_alike(ours, theirs)
    made: dict[tuple[int, int], Tensor] = {}
    for name, weight in ours.items():
        pair = (id(weight), id(theirs[name]))
        if pair not in made:
            made[pair] = _between(name, weight, theirs[name], fraction)
    return exchanged(
        one, {name: made[id(held), id(theirs[name])] for name, held in ours.items()}
    )


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Give everything that a checkpoint holds, tied weights under each name."""
    held: Mapping[str, Any] = module.state_dict(keep_vars=True)
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


def exchanged(spec: ModelSpec, values: Mapping[str, Tensor]) -> ModelSpec:
    """Give a spec with tensors put in the place of others, each name for itself.

    A tensor that stands under several names is tied there. The bias of an `nn.Linear`
    that has none may be given.

    Raises:
        UnsupportedConfigError: A weight is offloaded, and would be loaded over; or
            it is split among processes.
    """
    machinery: Machinery = spec.engine
    module = bare_copy(machinery.module)
    old = weights_of(module)
    parted = [name for name in values if name in old and is_part(old[name])]
    if parted:
        raise UnsupportedConfigError(
            spec.model_type,
            f"its {parted[0]} is split among processes",
            "Load the model in one process to change weights.",
        )
    away = [name for name in values if name in old and old[name].is_meta]
    if away and machinery.is_offloaded:
        raise UnsupportedConfigError(
            spec.model_type,
            f"its {away[0]} is offloaded, and would come back as it was",
            "Load the model without offloading to change weights.",
        )
    made: dict[int, Tensor] = {}
    for name, value in values.items():
        before = old.get(name)
        if id(value) not in made:
            made[id(value)] = _as_held(value, before)
        path, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(path), leaf, made[id(value)])
    _note_untying(module)
    return replaced(spec, module)


def _as_held(value: Tensor, before: Tensor | None) -> Tensor:
    """Make a parameter of what takes a parameter's place."""
    if before is not None and not isinstance(before, nn.Parameter):
        return value.detach()
    if isinstance(value, nn.Parameter):
        return value
    learns = before is not None and before.requires_grad
    return nn.Parameter(value.detach(), requires_grad=learns)


def _note_untying(module: Any) -> None:
    """Say in the private config that embeddings are tied no longer."""
    config = module.config
    if not getattr(config, "tie_word_embeddings", False):
        return
    last = getattr(module.get_output_embeddings(), "weight", None)
    if last is not None and last is not module.get_input_embeddings().weight:
        config.tie_word_embeddings = False


def _faults(
    held: Mapping[str, Tensor],
    given: Mapping[str, Tensor] | Mapping[str, FactoredMatrix],
    option: str,
) -> Iterator[FunlensError]:
    """Find what does not fit the weights that it is meant for."""
    for name, value in given.items():
        where = f"{option}[{name!r}]"
        if name not in held:
            near = nearest(name, held)
            yield OptionError(option, f"no weight is called {name!r}", near)
            continue
        weight = held[name]
        tensor = value.A if isinstance(value, FactoredMatrix) else value
        if tuple(value.shape) != tuple(weight.shape):
            yield ShapeError(where, tuple(value.shape), tuple(weight.shape))
        elif weight.is_meta:  # away: whoever puts values in place says so
            continue
        elif (tensor.dtype, tensor.device) != (weight.dtype, weight.device):
            found, expected = (f"{t.dtype} on {t.device}" for t in (tensor, weight))
            yield DtypeError(where, found, expected)


def _check_alike(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    for name in sorted(ours.keys() ^ theirs.keys()):
        which = "the first" if name in ours else "the second"
        raise _unlike(f"only {which} model has {name}")
    for name, weight in ours.items():
        kinds = [
            f"{list(held.shape)}, {held.dtype} on {held.device}"
            for held in (weight, theirs[name])
        ]
        if kinds[0] != kinds[1]:
            raise _unlike(f"{name} is {kinds[0]} and {kinds[1]}")


def _unlike(problem: str) -> InputError:
    return InputError(
        problem,
        "two checkpoints of one architecture, of one dtype and on one device",
        "Load both in the same way",
    )


def _between(name: str, one: Tensor, other: Tensor, fraction: float) -> Tensor:
    if one is other:
        return one
    if one.is_floating_point():
        return torch.lerp(one.detach(), other.detach(), fraction)
    if not torch.equal(one, other):
        raise _unlike(f"{name} holds other whole numbers in each model")
    return one
