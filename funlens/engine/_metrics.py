"""Metrics: small pure functions of a run that say what of it they read."""

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import torch
from jaxtyping import Float, Int
from torch import Tensor

from funlens.data import Selector, Site
from funlens.data._constructors import logits as _logits
from funlens.errors import InputError, ShapeError
from funlens.shapes import Logits


@attrs.frozen(eq=False)
class Metric:
    """A number for each row, and the site that it is read from.

    Called with logits `[batch, pos, vocab]` it gives the same number. `sweep` computes
    no more of a run than the site needs.

    Attributes:
        name: What it is, for labels.
        site: What it reads; `logits` at one position, at all, or another site.
        function: Maps the site's value, as a capture would give it, to `[batch]`.
        tokens: Token ids, one or one for each row each, whose logits at one position
            are all that it reads; empty where it reads more.
        of_tokens: Maps those tokens' logits, `[batch]` each, to `[batch]`.
    """

    name: str
    site: Site
    function: Callable[[Tensor], Tensor] = attrs.field(repr=False)
    tokens: tuple[int | Tensor, ...] = attrs.field(default=(), repr=False)
    of_tokens: Callable[..., Tensor] | None = attrs.field(default=None, repr=False)

    def __call__(self, logits: Logits) -> Float[Tensor, " batch"]:
        """Read the metric off all logits, columns for positions.

        Raises:
            InputError: It reads another site, or positions that differ by row.
        """
        if self.site.whole != _logits():
            raise InputError(
                f"{self.name} reads {self.site}, and was given logits",
                "a value of that site",
                "Use it as a metric of `sweep`",
            )
        pos = self.site.pos
        if pos is None:
            return self.function(logits)
        if isinstance(pos, int):
            return self.function(logits[:, pos])
        raise InputError(
            f"{self.name} reads the positions {pos}",
            "one column",
            "Use it as a metric of `sweep`, which knows where rows begin",
        )


MetricLike: TypeAlias = Metric | Callable[[Tensor], Tensor]
"""A metric, or any function from logits `[batch, pos, vocab]` to `[batch]` or one."""


def metric_of(given: MetricLike) -> Metric:
    """Let any function be a metric of all logits.

    Raises:
        InputError: It is no function.
    """
    if isinstance(given, Metric):
        return given
    if not callable(given):
        problem = f"the metric is a {type(given).__name__}"
        raise InputError(problem, "a function", "Use `logit_diff`")
    return reads(_logits(), given)


def measured(metric: Metric, value: Tensor) -> Tensor:
    """Give what a metric says of a value: `[batch]`, or one number.

    Raises:
        InputError: It gives something else.
    """
    function: Any = metric.function
    found: object = function(value)
    n_rows = len(value)
    if not isinstance(found, Tensor) or tuple(found.shape) not in {(), (n_rows,)}:
        is_tensor = isinstance(found, Tensor)
        given = f"shape {tuple(found.shape)}" if is_tensor else type(found).__name__
        raise InputError(
            f"the metric {metric.name} gave {given}",
            f"one number, or one for each of {n_rows} rows",
            "Sum or average over its other axes",
        )
    return found


def logit_diff(
    answer: int | Int[Tensor, " batch"],
    wrong: int | Int[Tensor, " batch"],
    *,
    pos: Selector = -1,
) -> Metric:
    """Make a metric: the answer's logit minus the wrong one's.

    Args:
        answer: Token id, one or one for each row.
        wrong: Token id, likewise.
        pos: Position that is looked at. In `sweep` positions count from each row's
            first real token, negative ones from its last; given logits alone, a
            column: where rows are padded on the right, run with `logits_at=-1`.

    Returns:
        A metric of logits `[batch, pos, vocab]`, in logits.
    """

    def difference(last: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
        return _of(last, answer) - _of(last, wrong)

    return Metric(
        "logit difference",
        _logits(pos=pos),
        difference,
        tokens=(answer, wrong),
        of_tokens=torch.sub,
    )


def log_prob_of(answer: int | Int[Tensor, " batch"], *, pos: Selector = -1) -> Metric:
    """Make a metric: the answer's log-probability, in nats.

    Args:
        answer: Token id, one or one for each row.
        pos: Position that is looked at, as for `logit_diff`.
    """

    def log_prob(last: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
        return _of(last.log_softmax(-1), answer)

    return Metric("log-probability", _logits(pos=pos), log_prob)


def prob_of(answer: int | Int[Tensor, " batch"], *, pos: Selector = -1) -> Metric:
    """Make a metric: the answer's probability.

    Args:
        answer: Token id, one or one for each row.
        pos: Position that is looked at, as for `logit_diff`.
    """

    def prob(last: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
        return _of(last.softmax(-1), answer)

    return Metric("probability", _logits(pos=pos), prob)


def rank_of(answer: int | Int[Tensor, " batch"], *, pos: Selector = -1) -> Metric:
    """Make a metric: how many tokens have a higher logit than the answer; 0 is best.

    Args:
        answer: Token id, one or one for each row.
        pos: Position that is looked at, as for `logit_diff`.
    """

    def rank(last: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
        return (last > _of(last, answer)[:, None]).sum(-1).to(last.dtype)

    return Metric("rank", _logits(pos=pos), rank)


def kl_divergence(
    reference: Float[Tensor, "batch vocab"], *, pos: Selector = -1
) -> Metric:
    """Make a metric: KL divergence of the run from a reference, in nats.

    It is the sum over tokens of `p (log p - log q)`, `p` the reference's probabilities
    and `q` the run's: 0 where they agree.

    Args:
        reference: Logits that the run is compared with, at that position.
        pos: Position that is looked at, as for `logit_diff`.
    """
    expected = reference.log_softmax(-1)

    def divergence(last: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
        if last.shape != expected.shape:
            where = "the reference"
            raise ShapeError(where, tuple(expected.shape), tuple(last.shape))
        return (expected.exp() * (expected - last.log_softmax(-1))).sum(-1)

    return Metric("KL divergence", _logits(pos=pos), divergence)


def reads(
    site: Site, function: Callable[[Tensor], Tensor], *, name: str = ""
) -> Metric:
    """Make a metric of any site: a run of it ends where it has been read.

    Args:
        site: What is read, with a selection or whole.
        function: Maps the value, as a capture would give it, to `[batch]`.
        name: What it is, for labels; the function's name if left out.
    """
    return Metric(name or getattr(function, "__name__", str(site)), site, function)


def _of(values: Tensor, token: int | Tensor) -> Tensor:
    check_token(token, *values.shape)
    if isinstance(token, int):
        return values[:, token]
    return values.gather(-1, token[:, None])[:, 0]


def check_token(token: int | Tensor, n_rows: int, n_tokens: int) -> None:
    """Refuse a token that has no logit, or tokens for another number of rows.

    Raises:
        InputError: The vocabulary has no such token.
        ShapeError: There are more or fewer tokens than rows.
    """
    if not isinstance(token, int):
        if token.shape != (n_rows,):
            raise ShapeError("the tokens", tuple(token.shape), (n_rows,), ("batch",))
    elif not 0 <= token < n_tokens:
        problem = f"the token is {token}"
        expected = f"an id in 0..{n_tokens - 1}"
        raise InputError(problem, expected, "Use the model's own tokenizer")
