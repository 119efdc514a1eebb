"""Ablations: what is lost when a place carries nothing, or nothing of its own."""

from collections.abc import Mapping
from typing import Any, Final, Unpack, cast

import torch
from jaxtyping import Bool
from torch import Tensor

from funlens.data import (
    AXES,
    POSITION_WORDS,
    SELECTED_AXES,
    ActivationCache,
    Choice,
    Effects,
    Grids,
    Mean,
    Means,
    ModelSpec,
    Part,
    Patch,
    Zero,
    grid,
)
from funlens.engine import Inputs, Metrics, SweepOptions, run_with_cache, sweep
from funlens.engine._inputs import Frame, Prepared, prepare
from funlens.engine._rows import row_tensors, rows_of
from funlens.engine._seeds import Seed, generator_of
from funlens.errors import InputError, OptionError

_OPTIONS: Final = ("attention_mask", "memory", "resume")


class AblationOptions(SweepOptions, total=False):
    """Which places are ablated, one at a time, as for `grid`; and options of `sweep`.

    Attributes:
        layer: Layers; `...` for all.
        head: Heads.
        pos: Positions.
        query: Positions that attend.
        key: Positions that are attended to.
        neuron: Hidden units of the MLP.
        expert: Experts.
        stream: Streams.
    """

    layer: Choice
    head: Choice
    pos: Choice
    query: Choice
    key: Choice
    neuron: Choice
    expert: Choice
    stream: Choice


def zero_ablation(
    spec: ModelSpec,
    inputs: Inputs,
    part: Part,
    *,
    metric: Metrics,
    **options: Unpack[AblationOptions],
) -> Effects:
    """Put zeros at one place at a time.

    Args:
        spec: The model.
        inputs: As for `run`.
        part: What is ablated, uncalled, such as `z`.
        metric: As for `sweep`.
        options: What is gone over, as for `grid`: all layers, and all heads where the
            part has heads, if nothing is said. And `attention_mask`, `memory` and
            `resume`, as for `sweep`.

    Returns:
        The metric on the axes that are gone over; `change` is what ablation changed.

    Raises:
        FunlensError: As for `grid` and `sweep`.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> metric = fl.log_prob_of(fl.to_single_token(spec, " Tom"))
        >>> fl.zero_ablation(spec, "Tom and", fl.z, metric=metric).axes
        ('layer', 'head')
    """
    places, more = _split(part, options)
    return sweep(spec, inputs, grid(Zero, part, **places), metric=metric, **more)


def mean_ablation(
    spec: ModelSpec,
    inputs: Inputs,
    part: Part,
    means: Means,
    *,
    metric: Metrics,
    **options: Unpack[AblationOptions],
) -> Effects:
    """Put the mean over a dataset at one place at a time.

    Args:
        spec: The model.
        inputs: As for `run`.
        part: What is ablated, uncalled, such as `z`.
        means: Of `mean_activations`, with the part in all layers.
        metric: As for `sweep`.
        options: As for `zero_ablation`.

    Returns:
        The metric on the axes that are gone over.

    Raises:
        SiteNotCachedError: The means lack the part in some layer.
        InputError: Means by position are put in rows that are padded on the left,
            where columns are not positions.
        FunlensError: As for `grid` and `sweep`.
    """
    places, more = _split(part, options)
    cells = grid(Mean, part, value=means, **places)
    prepared = prepare(spec, inputs, attention_mask=more.get("attention_mask"))
    starts = [frame.starts for frame in prepared.frames.values()]
    is_moved = any(at is not None and any(at) for at in starts)
    if means.by_position and is_moved and not POSITION_WORDS & places.keys():
        raise InputError(
            "rows are padded on the left, and the means are of positions",
            "rows that begin together",
            "Pad on the right, or go over positions with `pos=...`",
        )
    return sweep(spec, inputs, cells, metric=metric, **more)


def resample_ablation(
    spec: ModelSpec,
    inputs: Inputs,
    part: Part,
    dataset: Inputs,
    *,
    metric: Metrics,
    n_draws: int = 8,
    seed: Seed,
    **options: Unpack[AblationOptions],
) -> Effects:
    """Put at one place at a time what another example of a dataset has there.

    For each draw and each example another one is drawn from the dataset: one of other
    tokens, and at the same columns unless a single position is ablated at a time. Chan
    et al., "Causal Scrubbing" (2022), say why this keeps a model nearer to what it
    knows than zeros or means.

    Args:
        spec: The model.
        inputs: As for `run`.
        part: What is ablated, uncalled, such as `z`.
        dataset: As `inputs`, of as many positions; it may be `inputs`.
        metric: As for `sweep`.
        n_draws: How often each example is given another's.
        seed: A number, or a `torch.Generator` on the CPU.
        options: As for `zero_ablation`.

    Returns:
        The metric, with a first axis `draw`; `average_over(effects, "draw")` is the
        mean of the draws, and `spread_over` their standard deviation.

    Raises:
        OptionError: `n_draws` is below 1, or the seed is none.
        InputError: The dataset has other positions, or an example has no other.
        FunlensError: As for `grid` and `sweep`.

    Costs a run of the drawn examples for each draw, and the sweep of all draws as one.
    Memory: the part of all layers and examples, for each draw.
    """
    if type(n_draws) is not int or n_draws < 1:
        raise OptionError("n_draws", f"it is {n_draws!r}, not a number of draws")
    places, more = _split(part, options)
    prepared = prepare(spec, inputs, attention_mask=more.get("attention_mask"))
    others = prepared if dataset is inputs else prepare(spec, dataset)
    free = _others(prepared, others, by_column=_keeps_positions(part, places))
    weights, generator = free.double(), generator_of(seed)
    drawn = torch.multinomial(weights, n_draws, replacement=True, generator=generator)
    grids = {
        str(at): grid(Patch, part, source=_run(spec, others, part, rows), **places)
        for at, rows in enumerate(drawn.unbind(1))
    }
    return sweep(spec, inputs, Grids(grids, axis="draw"), metric=metric, **more)


def _split(part: Part, options: AblationOptions) -> tuple[dict[str, Any], SweepOptions]:
    """Tell what is gone over from what the sweep is told."""
    places = {word: held for word, held in options.items() if word not in _OPTIONS}
    if not places:
        has_heads = set(SELECTED_AXES["head"]) & set(AXES[part.name])
        places = {"layer": ..., **({"head": ...} if has_heads else {})}
    more = {word: held for word, held in options.items() if word in _OPTIONS}
    return dict(places), cast("SweepOptions", more)


def _keeps_positions(part: Part, places: Mapping[str, Any]) -> bool:
    """Tell whether a cell has several positions, which have to stand side by side."""
    axes = set(AXES[part.name])
    words = POSITION_WORDS - places.keys()
    return any(axes & set(SELECTED_AXES[word]) for word in words)


def _others(
    prepared: Prepared, others: Prepared, *, by_column: bool
) -> Bool[Tensor, "example other"]:
    """Tell which examples of a dataset each example may be given.

    Args:
        prepared: The examples.
        others: The dataset.
        by_column: Whether only examples at the same columns may be given.

    Raises:
        InputError: The dataset has other positions, or an example has no other.
    """
    n_pos = {name: frame.n_pos for name, frame in prepared.frames.items()}
    if n_pos != {name: frame.n_pos for name, frame in others.frames.items()}:
        raise InputError(
            f"the dataset has {others.main.n_pos} positions",
            f"{prepared.main.n_pos}, as the inputs have",
            "Choose examples of one length, and pad both alike",
        )
    mine, theirs = row_tensors(prepared), row_tensors(others)
    differs = torch.zeros(prepared.main.batch, others.main.batch, dtype=torch.bool)
    for name in mine.keys() & theirs.keys():
        one = mine[name].reshape(prepared.main.batch, 1, -1)
        two = theirs[name].reshape(1, others.main.batch, -1)
        differs |= (one != two).any(-1).cpu()
    for name in prepared.frames if by_column else ():
        differs &= _alike(prepared.frames[name], others.frames[name])
    alone = [row for row, free in enumerate(differs.any(1).unbind()) if not free]
    if alone:
        raise InputError(
            f"the dataset has no other example for row {alone[0]}",
            "one of other tokens and of the same length",
            "Add examples, or leave the row out",
        )
    return differs


def _alike(one: Frame, two: Frame) -> Bool[Tensor, "example other"]:
    """Tell which rows of two frames stand at the same columns."""
    places = [
        [*zip(f.starts or (0,) * f.batch, f.stops or (f.n_pos,) * f.batch, strict=True)]
        for f in (one, two)
    ]
    return torch.tensor([[mine == other for other in places[1]] for mine in places[0]])


def _run(spec: ModelSpec, given: Prepared, part: Part, rows: Tensor) -> ActivationCache:
    return run_with_cache(spec, rows_of(given, rows), capture=[part]).cache
