"""Small pure functions of logits."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from funlens.shapes import Logits

Metric = Callable[[Tensor], Tensor]


def logit_diff(
    answer: int | Int[Tensor, " batch"],
    wrong: int | Int[Tensor, " batch"],
    *,
    pos: int = -1,
) -> Metric:
    """Make a metric: the answer's logit minus the wrong one's.

    Args:
        answer: Token id, one or one for each row.
        wrong: Token id, likewise.
        pos: Column that is looked at.

    Returns:
        A function from logits `[batch, pos, vocab]` to `[batch]`, in logits.
    """

    def metric(logits: Logits) -> Float[Tensor, " batch"]:
        last = logits[:, pos]
        return _of(last, answer) - _of(last, wrong)

    return metric


def log_prob_of(answer: int | Int[Tensor, " batch"], *, pos: int = -1) -> Metric:
    """Make a metric: the answer's log-probability, in nats.

    Args:
        answer: Token id, one or one for each row.
        pos: Column that is looked at.
    """

    def metric(logits: Logits) -> Float[Tensor, " batch"]:
        return _of(logits[:, pos].log_softmax(-1), answer)

    return metric


def _of(values: Tensor, token: int | Tensor) -> Tensor:
    if isinstance(token, int):
        return values[:, token]
    return values.gather(-1, token[:, None])[:, 0]
