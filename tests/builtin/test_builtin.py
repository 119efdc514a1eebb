"""The shipped model loads with plain transformers and can do what its card says."""

import json
from typing import Any, Final

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from funlens.builtin import BUILTIN_MODELS, folder
from funlens.builtin._agreement import agreement
from funlens.builtin._evaluate import (
    TEXTBOOK,
    _induction,
    _task,
    evaluate,
    samples,
    text_losses,
)
from funlens.builtin._heads import head_scores
from funlens.builtin._indirect_object import indirect_object
from funlens.builtin._tokenizer import BOS_ID, EOS_ID, VOCAB, single_token_words
from funlens.builtin.train import EVALUATION_SEED

N_PROMPTS: Final = 200
MOST_BYTES: Final = 4_000_000
# Another processor adds in another order, and may so turn a near tie among 1,000.
SAME_SHARE: Final = 0.005
# Mean attention, rounded to three places in the file.
SAME_SCORE: Final = 0.002
RECORD: Final[dict[str, Any]] = json.loads(
    (folder("tiny") / "training.json").read_text(encoding="utf-8")
)
TEXTS: Final = (
    "The weather is very hot today.",
    " two  spaces \t tabs\r\nand\n\nlines ",
    "Zürich, naïve, Ελλάδα, 日本語, עברית",
    "🙂👩‍👩‍👧 and \u200b invisible \x00\x7f",
    'def f(x): return {"a": x != 3}  # <tag> 0123456789',
    "don 't do n't , . ! ? a .b",
)


def best_next(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str
) -> str:
    """The most likely next token, as text."""
    with torch.no_grad():
        logits = model(**tokenizer(text, return_tensors="pt")).logits
    return tokenizer.decode([int(logits[0, -1].argmax())])


def test_the_model_is_the_one_of_the_card(model: LlamaForCausalLM) -> None:
    """Sizes, precision and number of parameters are as stated."""
    config = model.config
    assert ("llama", 4, 4, 128, 256) == (
        config.model_type,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.hidden_size,
        config.max_position_embeddings,
    )
    assert {torch.float32} == {weight.dtype for weight in model.parameters()}
    assert RECORD["run"]["parameters"] == model.num_parameters()


def test_the_files_are_small() -> None:
    """The folder adds at most 4 MB to the wheel."""
    sizes = [path.stat().st_size for path in folder("tiny").iterdir()]
    assert sum(sizes) <= MOST_BYTES


def test_every_listed_model_has_its_folder() -> None:
    """Each name leads to a folder that holds a config."""
    for name in BUILTIN_MODELS:
        assert (folder(name) / "config.json").is_file()


def test_an_unknown_model_is_refused() -> None:
    """The message names what was asked for and what there is."""
    with pytest.raises(KeyError) as caught:
        folder("huge")
    for fragment in ("'huge'", "tiny"):
        assert fragment in str(caught.value)


@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no-bos"])
def test_repeated_random_tokens_are_copied(
    model: LlamaForCausalLM, generator: torch.Generator, *, bos: bool
) -> None:
    """Induction works on random tokens that were never seen before."""
    assert _induction(model, generator, bos=bos) > 0.95


@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no-bos"])
def test_the_indirect_object_is_found(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    generator: torch.Generator,
    *,
    bos: bool,
) -> None:
    """The receiver beats the giver on held-out names and frames."""
    prompts = [indirect_object(generator, held_out=True) for _ in range(N_PROMPTS)]
    found = _task(model, tokenizer, prompts, bos=bos)
    assert found["right over wrong"] > 0.95
    assert min(found["abba"], found["baba"]) > 0.9


@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no-bos"])
def test_the_verb_agrees_with_its_subject(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    generator: torch.Generator,
    *,
    bos: bool,
) -> None:
    """The right form beats the wrong one, attractors or not, on held-out nouns."""
    prompts = [agreement(generator, held_out=True) for _ in range(N_PROMPTS)]
    found = _task(model, tokenizer, prompts, bos=bos)
    assert min(found["attractor"], found["same"]) > 0.9


@pytest.mark.parametrize(
    ("text", "answer"),
    [(text, answer) for text, answer, _ in TEXTBOOK if answer[1].isupper()],
)
def test_a_textbook_sentence_goes_on_with_the_right_name(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    text: str,
    answer: str,
) -> None:
    """The name is the most likely next token of all."""
    assert answer == best_next(model, tokenizer, text)


def test_the_evaluation_gives_the_recorded_accuracies(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The shipped weights are those that `training.json` speaks of."""
    found = evaluate(model, tokenizer, seed=EVALUATION_SEED)
    assert pytest.approx(RECORD["accuracy"], abs=SAME_SHARE) == found


def test_the_heads_are_the_recorded_ones(model: LlamaForCausalLM) -> None:
    """One head does induction, one looks at the previous token."""
    found = head_scores(model, seed=EVALUATION_SEED)
    assert RECORD["heads"].keys() == found.keys()
    for kind, scores in found.items():
        assert pytest.approx(RECORD["heads"][kind], abs=SAME_SCORE) == scores


def test_the_samples_are_the_recorded_ones(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Greedy continuations are those of the card."""
    assert RECORD["samples"] == samples(model, tokenizer)


def test_generate_stops_at_the_end_of_text(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The generation config that is shipped suffices for `generate`."""
    given = tokenizer("The capital of France is", return_tensors="pt")
    row = model.generate(**given, do_sample=False)[0].tolist()
    assert " Paris." == tokenizer.decode(
        row[given["input_ids"].shape[1] :], skip_special_tokens=True
    )
    assert EOS_ID == row[-1]


def test_plain_text_costs_less_per_character_than_per_token(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Both losses are of the same text, and better than a blind guess."""
    text = "Alice was beginning to get very tired of sitting by her sister. " * 40
    losses = text_losses(model, tokenizer, text)
    blind = float(torch.tensor(VOCAB).log())
    assert 0 < losses["nats per character"] < losses["nats per token"] < blind


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_tokenizer(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    """Decoding gives the text back, whatever is in it."""
    tokens = tokenizer.encode(text)
    assert BOS_ID == tokens[0]
    assert text == tokenizer.decode(tokens, skip_special_tokens=True)


def test_random_characters_survive_the_tokenizer(
    tokenizer: PreTrainedTokenizerFast, generator: torch.Generator
) -> None:
    """Text from anywhere in Unicode's first plane, surrogates excepted, comes back."""
    codes = torch.randint(0xD800, (50, 40), generator=generator).tolist()
    for row in codes:
        text = "".join(map(chr, row))
        tokens = tokenizer.encode(text, add_special_tokens=False)
        assert text == tokenizer.decode(tokens)


def test_a_task_word_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    """Names, nouns and verbs are whole, so that answers can be compared."""
    split = [word for word in single_token_words() if len(tokenizer.tokenize(word)) > 1]
    assert [] == split
    assert VOCAB == len(tokenizer)
