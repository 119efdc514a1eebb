"""Losses and metrics, against HuggingFace's loss and against hand computations."""

from functools import cache
from typing import Any, Final

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

NAMES: Final = ("gpt2", "llama", "gptj", "bloom", "mamba")
TOLERANCE: Final = 1e-5  # float32: a mean of a few logarithms, in another order
PADDED: Final = 1e-4  # float32: softmax over more keys sums in another order
IGNORED: Final = -100  # HuggingFace's label of what does not count


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def tokens_of(name: str) -> Tensor:
    """Two rows of seven tokens."""
    return tiny_inputs(name)["input_ids"]


def mask_of(side: str) -> Tensor:
    """A mask under which the second row has two tokens fewer."""
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, slice(0, 2) if side == "left" else slice(-2, None)] = 0
    return mask


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_huggingface_s(name: str) -> None:
    """The untouched model's own loss, of the same tokens as labels."""
    with torch.no_grad():
        expected = tiny_hf_model(name)(tokens_of(name), labels=tokens_of(name)).loss
    got = fl.loss(spec_of(name), tokens_of(name))
    torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_no_part_of_the_loss(name: str, side: str) -> None:
    """The mean over both rows is that of the rows run alone, weighted by tokens."""
    tokens, mask = tokens_of(name), mask_of(side)
    alone = [row[kept.bool()] for row, kept in zip(tokens, mask, strict=True)]
    model: Any = tiny_hf_model(name)
    with torch.no_grad():
        losses = [model(row[None], labels=row[None]).loss for row in alone]
    counts = [len(row) - 1 for row in alone]
    expected = torch.stack(losses) @ torch.tensor(counts).float() / sum(counts)
    got = fl.loss(spec_of(name), tokens, attention_mask=mask)
    torch.testing.assert_close(expected, got, atol=PADDED, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_loss_per_token_is_nan_at_padding_alone(side: str) -> None:
    """Where the predicting or the predicted token is padding."""
    tokens, mask = tokens_of("gpt2"), mask_of(side)
    got = fl.loss_per_token(spec_of("gpt2"), tokens, attention_mask=mask)
    real = mask.bool()
    assert torch.equal(real[:, 1:] & real[:, :-1], ~got.isnan())


def test_loss_per_token_is_a_cross_entropy() -> None:
    """Computed by PyTorch from the untouched model's logits."""
    tokens = tokens_of("gpt2")
    with torch.no_grad():
        logits = tiny_hf_model("gpt2")(tokens).logits
    expected = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    got = fl.loss_per_token(spec_of("gpt2"), tokens)
    assert (2, 6) == got.shape
    torch.testing.assert_close(expected.view(2, 6), got, atol=TOLERANCE, rtol=0)


def test_mask_in_a_mapping_counts_as_one_beside_it() -> None:
    """What a tokenizer returns, or tokens and a mask."""
    tokens, mask = tokens_of("gpt2"), mask_of("right")
    given = {"input_ids": tokens, "attention_mask": mask}
    expected = fl.loss(spec_of("gpt2"), tokens, attention_mask=mask)
    assert torch.equal(expected, fl.loss(spec_of("gpt2"), given))


def test_loss_is_of_the_edited_run() -> None:
    """An edit of the logits that makes every token as likely."""
    edit = fl.Zero(fl.logits())
    got = fl.loss(spec_of("gpt2"), tokens_of("gpt2"), [edit])
    expected = torch.tensor(32.0).log()
    torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_loss_of_a_model_that_predicts_no_next_token_is_refused(name: str) -> None:
    """Masked and sequence-to-sequence models."""
    with pytest.raises(fl.errors.InputError, match="does not predict"):
        fl.loss(spec_of(name), tiny_inputs(name))


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ({"input_ids": torch.tensor([[5]])}, "one token"),
        ({"inputs_embeds": torch.ones(1, 4, 16)}, "no tokens"),
    ],
)
def test_loss_without_anything_to_predict_is_refused(given: Any, fragment: str) -> None:
    """One token, or embeddings of no known token."""
    with pytest.raises(fl.errors.InputError, match=fragment):
        fl.loss(spec_of("gpt2"), given)


LOGITS: Final = torch.tensor(
    [[[9.0, 9.0, 9.0], [1.0, 2.0, 4.0]], [[9.0] * 3, [3.0] * 3]]
)


@pytest.mark.parametrize(
    ("answer", "wrong", "expected"),
    [(2, 0, [3.0, 0.0]), (torch.tensor([1, 0]), torch.tensor([0, 2]), [1.0, 0.0])],
)
def test_logit_diff_is_a_difference_of_two_logits(
    answer: Any, wrong: Any, expected: list[float]
) -> None:
    """Of one pair of tokens, or of one pair for each row."""
    assert expected == fl.logit_diff(answer, wrong)(LOGITS).tolist()


def test_logit_diff_looks_at_the_column_asked_for() -> None:
    """By default at the last one."""
    assert [0.0, 0.0] == fl.logit_diff(0, 1, pos=0)(LOGITS).tolist()


@pytest.mark.parametrize("answer", [1, torch.tensor([1, 1])])
def test_log_prob_is_the_logarithm_of_the_softmax(answer: Any) -> None:
    """Written out by hand."""
    first = torch.tensor([1.0, 2.0, 4.0])
    expected = torch.stack([2.0 - first.exp().sum().log(), -torch.tensor(3.0).log()])
    got = fl.log_prob_of(answer)(LOGITS)
    torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (3, fl.errors.InputError),
        (-1, fl.errors.InputError),
        (torch.tensor([1, 1, 1]), fl.errors.ShapeError),
    ],
)
def test_token_that_is_none_is_refused(answer: Any, error: type[Exception]) -> None:
    """Beyond the vocabulary, counted from its end, or too many of them."""
    with pytest.raises(error):
        fl.log_prob_of(answer)(LOGITS)
