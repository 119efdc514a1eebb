"""What the saved model can do, measured on prompts that training never saw."""

from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from funlens.builtin._agreement import agreement
from funlens.builtin._batches import repeated_tokens
from funlens.builtin._indirect_object import indirect_object
from funlens.builtin._prompts import Prompt
from funlens.builtin._tokenizer import BOS_ID, EOS_ID
from funlens.builtin._words import CAPITALS, DAYS, OPPOSITES

N_PROMPTS: Final = 1000
REPEAT_LENGTHS: Final[tuple[int, ...]] = (8, 16, 32, 48, 60)
REPEAT_ROWS: Final = 40
WINDOW: Final = 128
WINDOWS_AT_ONCE: Final = 64
SAMPLE_TOKENS: Final = 24

TEXTBOOK: Final[tuple[tuple[str, str, str], ...]] = (
    ("When Mary and John went to the store, John gave a drink to", " Mary", " John"),
    ("When John and Mary went to the store, John gave a drink to", " Mary", " John"),
    ("When Mary and John went to the store, Mary gave a drink to", " John", " Mary"),
    (
        "Then, Alice and Tom had a long argument, and afterwards Tom said to",
        " Alice",
        " Tom",
    ),
    ("The keys to the cabinet", " are", " is"),
    ("The key to the cabinets", " is", " are"),
)
"""Sentences of the literature; their pairs are held out as well."""

SAMPLES: Final[tuple[str, ...]] = (
    "The weather is",
    "Once upon a time",
    "Mary was",
    "She said that",
    "The capital of France is",
    "On Monday",
)


def evaluate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, seed: int
) -> dict[str, float]:
    """Measure every skill.

    Args:
        model: The model as read back from disk.
        tokenizer: Its tokenizer.
        seed: Seed of the prompts; not the one that training used.

    Returns:
        Shares of right answers from 0 to 1, by name.
    """
    generator = torch.Generator().manual_seed(seed)
    textbook = [
        Prompt(text=text, answer=answer, wrong=wrong, rest="", kind="all")
        for text, answer, wrong in TEXTBOOK
    ]
    tasks = {
        "indirect object": [
            indirect_object(generator, held_out=True) for _ in range(N_PROMPTS)
        ],
        "agreement": [agreement(generator, held_out=True) for _ in range(N_PROMPTS)],
        "textbook": textbook,
    }
    scores: dict[str, float] = {}
    for bos in (True, False):
        end = "" if bos else " (no BOS)"
        scores[f"induction top-1{end}"] = _induction(model, generator, bos=bos)
        for name, prompts in tasks.items():
            found = _task(model, tokenizer, prompts, bos=bos)
            scores |= {f"{name} {key}{end}": share for key, share in found.items()}
    scores["learned facts top-1"] = _facts(model, tokenizer)
    return scores


def text_losses(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str
) -> dict[str, float]:
    """Measure the loss on plain text in windows of 128 tokens after BOS.

    Returns:
        Mean loss in nats, per token and per character.
    """
    tokens = torch.tensor(tokenizer.encode(text, add_special_tokens=False))
    rows = tokens[: len(tokens) // WINDOW * WINDOW].view(-1, WINDOW)
    whole = torch.cat([torch.full((len(rows), 1), BOS_ID), rows], dim=1)
    total = 0.0
    for start in range(0, len(whole), WINDOWS_AT_ONCE):
        part = whole[start : start + WINDOWS_AT_ONCE]
        logits = _logits(model, part[:, :-1]).flatten(0, 1)
        targets = part[:, 1:].flatten()
        total += float(functional.cross_entropy(logits, targets, reduction="sum"))
    n_characters = len(tokenizer.decode(rows.flatten()))
    return {
        "nats per token": total / rows.numel(),
        "nats per character": total / n_characters,
    }


def samples(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> dict[str, str]:
    """Continue a few openings greedily, and give each continuation."""
    return {text: _continued(model, tokenizer, text) for text in SAMPLES}


def _continued(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str
) -> str:
    """Take the most likely next token again and again, up to the end of text."""
    tokens = tokenizer.encode(text)
    n_given = len(tokens)
    while len(tokens) < n_given + SAMPLE_TOKENS and tokens[-1] != EOS_ID:
        tokens.append(int(_logits(model, torch.tensor([tokens]))[0, -1].argmax()))
    return str(tokenizer.decode(tokens[n_given:], skip_special_tokens=True))


@torch.no_grad()
def _logits(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    return model(tokens, use_cache=False).logits


def _induction(
    model: LlamaForCausalLM, generator: torch.Generator, *, bos: bool
) -> float:
    """Say how often the second half is copied; its first token cannot be."""
    vocab = model.config.vocab_size
    right: list[bool] = []
    for length in REPEAT_LENGTHS:
        tokens = repeated_tokens(
            generator, batch=REPEAT_ROWS, length=length, vocab=vocab
        )
        if bos:
            start = torch.full((len(tokens), 1), BOS_ID)
            tokens = torch.cat([start, tokens], dim=1)
        best = _logits(model, tokens)[:, -length:-1].argmax(dim=-1)
        right += (best == tokens[:, 1 - length :]).flatten().tolist()
    return _share(right)


def _task(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    *,
    bos: bool,
) -> dict[str, float]:
    """Measure one task: against the wrong answer, against all, and by variant."""
    right, top = _answers(model, tokenizer, prompts, bos=bos)
    by_kind: dict[str, list[bool]] = {}
    for good, prompt in zip(right, prompts, strict=True):
        by_kind.setdefault(prompt.kind, []).append(good)
    return {
        "right over wrong": _share(right),
        "top-1": _share(top),
        **{kind: _share(good) for kind, good in sorted(by_kind.items())},
    }


def _answers(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    *,
    bos: bool,
) -> tuple[list[bool], list[bool]]:
    """Say for each prompt if the answer beats the wrong one, and if it beats all."""
    texts = [
        tokenizer.encode(prompt.text, add_special_tokens=bos) for prompt in prompts
    ]
    last = torch.empty(len(prompts), model.config.vocab_size)
    for length in sorted({len(text) for text in texts}):
        at = [index for index, text in enumerate(texts) if len(text) == length]
        tokens = torch.tensor([texts[index] for index in at])
        last[at] = _logits(model, tokens)[:, -1]
    rows = torch.arange(len(prompts))
    answer = torch.tensor([_token(tokenizer, prompt.answer) for prompt in prompts])
    wrong = torch.tensor([_token(tokenizer, prompt.wrong) for prompt in prompts])
    right = last[rows, answer] > last[rows, wrong]
    top = last.argmax(dim=-1) == answer
    return cast("list[bool]", right.tolist()), cast("list[bool]", top.tolist())


def _facts(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """Measure the facts that training states; nothing is held out here."""
    pairs = [
        *((f"The capital of {key} is", value) for key, value in CAPITALS.items()),
        *((f"The opposite of {key} is", value) for key, value in OPPOSITES.items()),
        *(
            (f"The day after {day} is", DAYS[(at + 1) % len(DAYS)])
            for at, day in enumerate(DAYS)
        ),
    ]
    prompts = [
        Prompt(text=text, answer=f" {word}", wrong=" the", rest="", kind="")
        for text, word in pairs
    ]
    return _share(_answers(model, tokenizer, prompts, bos=True)[1])


def _token(tokenizer: PreTrainedTokenizerFast, word: str) -> int:
    return tokenizer.encode(word, add_special_tokens=False)[0]


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4)
