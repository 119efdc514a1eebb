"""Statistics over examples, of numbers by cell: intervals, tests, and corrections."""

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from funlens.engine._seeds import Seed, generator_of
from funlens.errors import InputError, OptionError, nearest

Correction: TypeAlias = Literal["holm", "benjamini-hochberg"]
"""What is kept low over all cells: the chance of any false find, or their share."""

_CORRECTIONS: Final[tuple[str, ...]] = get_args(Correction)
_AT_ONCE: Final = 2**22  # numbers that are alive at once
_TIED: Final = 1e-12  # rounding of sums in float64


def bootstrap_interval(
    rows: Float[Tensor, "*axes batch"],
    *,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: Seed,
) -> Float[Tensor, "bound=2 *axes"]:
    """Estimate between which bounds a mean over examples lies.

    It is the percentile interval of Efron, "Bootstrap Methods" (1979): examples are
    drawn with replacement, the same ones for all cells.

    Args:
        rows: A number for each example.
        confidence: Share of resampled means that lie within.
        n_bootstrap: How often the examples are drawn.
        seed: A number, or a `torch.Generator` on the CPU.

    Returns:
        The lower and the upper bound, in float64; NaN where an example is NaN.

    Raises:
        InputError: There are fewer than two examples.
        OptionError: `confidence` is not between 0 and 1, or another number is none.

    Examples:
        >>> import torch
        >>> import funlens as fl
        >>> rows = torch.tensor([1.0, 2.0, 3.0, 4.0])
        >>> low, high = fl.bootstrap_interval(rows, seed=0)
        >>> bool(1.0 < low < 2.5 < high < 4.0)
        True
    """
    check_rows(rows)
    check_confidence(confidence)
    weights = bootstrap_weights(rows.shape[-1], n_bootstrap, seed).to(rows.device)
    return percentiles(rows, None, weights, confidence)


def sign_flip_test(
    change: Float[Tensor, "*axes batch"],
    *,
    n_permutations: int = 10_000,
    seed: Seed,
) -> Float[Tensor, "*axes"]:
    """Test whether paired changes lie around 0, by flipping their signs.

    It is Fisher's randomization test of pairs, two-sided: how often the absolute mean
    is as large as the one found, if each example's change could as well have been its
    opposite. Exact where all flips are no more than `n_permutations`; otherwise flips
    are drawn, and the changes as found count as one of them, so that no value is 0.

    Args:
        change: A change for each example.
        n_permutations: How many flips are tried.
        seed: A number, or a `torch.Generator` on the CPU.

    Returns:
        The p-value of each cell, in float64; NaN where an example is NaN.

    Raises:
        InputError: There are fewer than two examples.
        OptionError: `n_permutations` is below 1, or the seed is none.

    Examples:
        >>> import torch
        >>> import funlens as fl
        >>> fl.sign_flip_test(torch.tensor([1.0, 2.0, 3.0, 4.0]), seed=0)
        tensor(0.1250, dtype=torch.float64)
    """
    check_rows(change)
    signs = _signs(change.shape[-1], n_permutations, seed).to(change.device)
    wide = change.double()
    p_values = torch.empty(change.shape[:-1], dtype=torch.float64, device=change.device)
    flat, out = wide.reshape(-1, wide.shape[-1]), p_values.reshape(-1)
    for cells in _pieces(len(flat), len(signs)):
        here = flat[cells]
        found = here.sum(-1, keepdim=True).abs()
        slack = _TIED * here.abs().sum(-1, keepdim=True)
        as_large = (here @ signs.T).abs() >= found - slack
        out[cells] = as_large.double().mean(-1)
    return torch.where(wide.isnan().any(-1), torch.nan, p_values)


def corrected_p_values(
    p_values: Float[Tensor, "*axes"], *, method: Correction = "holm"
) -> Float[Tensor, "*axes"]:
    """Correct p-values for how many there are.

    Args:
        p_values: Of all cells that were looked at; NaN is none of them.
        method: `holm` (Holm 1979) bounds the chance that any find is false;
            `benjamini-hochberg` (1995) bounds the expected share of false ones.

    Returns:
        Values to be compared with the level that is wanted, at most 1.

    Raises:
        OptionError: There is no such method.
        InputError: A value is not between 0 and 1.

    Examples:
        >>> import torch
        >>> import funlens as fl
        >>> p_values = torch.tensor([0.01, 0.04, 0.03])
        >>> fl.corrected_p_values(p_values, method="holm")
        tensor([0.0300, 0.0600, 0.0600])
    """
    if method not in _CORRECTIONS:
        near = nearest(str(method), _CORRECTIONS)
        raise OptionError("method", f"{method!r} is no correction", near)
    there = ~p_values.isnan()
    known, order = p_values[there].sort()
    if bool(((known < 0) | (known > 1)).any()):
        problem = "a p-value is not between 0 and 1"
        raise InputError(problem, "probabilities", "Use those of `sign_flip_test`")
    rank = torch.arange(1, len(known) + 1, device=known.device)
    if method == "holm":
        raised = ((len(known) + 1 - rank) * known).cummax(0).values
    else:
        raised = (len(known) / rank * known).flip(0).cummin(0).values.flip(0)
    back = torch.empty_like(known).scatter(0, order, raised.clamp(max=1))
    return p_values.masked_scatter(there, back)


def bootstrap_weights(
    n_examples: int, n_bootstrap: int, seed: Seed
) -> Float[Tensor, "draw batch"]:
    """Draw examples with replacement: how much each weighs in each draw."""
    check_count("n_bootstrap", n_bootstrap)
    shape = (n_bootstrap, n_examples)
    drawn = torch.randint(n_examples, shape, generator=generator_of(seed))
    ones = torch.ones(shape, dtype=torch.float64)
    return torch.zeros_like(ones).scatter_add(1, drawn, ones) / n_examples


def percentiles(
    rows: Float[Tensor, "*axes batch"],
    over: Float[Tensor, "*axes batch"] | None,
    weights: Float[Tensor, "draw batch"],
    confidence: float,
) -> Float[Tensor, "bound=2 *axes"]:
    """Give the percentiles of resampled means, or of ratios of two of them.

    Args:
        rows: A number for each example.
        over: What means are divided by, of the same examples; None for nothing.
        weights: Of each example in each draw.
        confidence: Share that lies between the bounds.
    """
    tail = (1 - confidence) / 2
    bounds = torch.tensor([tail, 1 - tail], dtype=torch.float64, device=rows.device)
    n_examples = rows.shape[-1]
    flat = rows.double().reshape(-1, n_examples)
    below = None if over is None else over.double().reshape(-1, n_examples)
    found = [
        _means(flat, below, weights, cells).quantile(bounds, dim=-1)
        for cells in _pieces(len(flat), len(weights))
    ]
    return torch.cat(found, 1).reshape(2, *rows.shape[:-1])


def check_rows(rows: Tensor) -> None:
    """Refuse what has no examples to compare.

    Raises:
        InputError: There are fewer than two.
    """
    n_examples = rows.shape[-1] if rows.ndim else 0
    if n_examples < 2:  # noqa: PLR2004 -- one example has no spread
        raise InputError(
            f"there are {n_examples} examples",
            "two or more on the last axis",
            "Run more prompts; one has no spread",
        )


def check_confidence(confidence: float) -> None:
    """Refuse a share that is none.

    Raises:
        OptionError: It is not between 0 and 1.
    """
    if not isinstance(confidence, (int, float)) or not 0 < confidence < 1:  # pyright: ignore[reportUnnecessaryIsInstance] (callers need no types)
        raise OptionError("confidence", f"{confidence!r} is not between 0 and 1")


def check_count(option: str, count: int) -> None:
    """Refuse a number of times that is none.

    Raises:
        OptionError: It is not a whole number of 1 or more.
    """
    if type(count) is not int or count < 1:
        raise OptionError(option, f"it is {count!r}, not a whole number above 0")


def _signs(
    n_examples: int, n_permutations: int, seed: Seed
) -> Float[Tensor, "flip batch"]:
    """List all flips, or draw some beside the one that flips nothing."""
    check_count("n_permutations", n_permutations)
    generator = generator_of(seed)
    if 2**n_examples <= n_permutations:
        numbers = torch.arange(2**n_examples)[:, None]
        flipped = numbers >> torch.arange(n_examples) & 1
    else:
        shape = (n_permutations, n_examples)
        drawn = torch.randint(2, shape, generator=generator)
        flipped = torch.cat([torch.zeros_like(drawn[:1]), drawn])
    return 1 - 2 * flipped.double()


def _means(
    rows: Tensor, over: Tensor | None, weights: Tensor, cells: slice
) -> Float[Tensor, "cell draw"]:
    means = rows[cells] @ weights.T
    return means if over is None else means / (over[cells] @ weights.T)


def _pieces(n_cells: int, n_each: int) -> Iterator[slice]:
    """Cut cells so that not too many numbers are alive at once."""
    size = max(1, _AT_ONCE // n_each)
    for at in range(0, n_cells, size):
        yield slice(at, at + size)
