"""Small pure functions of logits."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from funlens.errors import InputError, ShapeError
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
        pos: Column that is looked at. Where rows are padded on the right, run with
            `logits_at=-1`, which leaves each row's last real position.

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
    n_rows, n_tokens = values.shape
    if isinstance(token, int):
        if not 0 <= token < n_tokens:
            problem = f"the token is {token}"
            expected = f"an id in 0..{n_tokens - 1}"
            raise InputError(problem, expected, "Use the model's own tokenizer")
        return values[:, token]
    if token.shape != (n_rows,):
        raise ShapeError("the tokens", tuple(token.shape), (n_rows,), ("batch",))
    return values.gather(-1, token[:, None])[:, 0]
