"""Conversations: the template's own special tokens, variables and refusals."""

from typing import Any, Final

import pytest
import torch
import transformers

from funlens.adapters import from_module, load, to_chat_tokens, to_tokens
from funlens.data import ModelSpec
from funlens.engine import run
from funlens.errors import InputError, OptionError, TokenizerError
from funlens.testing import tiny_hf_model
from tests.adapters.folders import TINY
from tests.adapters.words import BOS, FOUR, FULL, ONE, THREE, TWO, word_tokenizer

TEMPLATE: Final = (
    "<s> {% for m in messages %}"
    "{% if m.role == 'judge' %}{{ raise_exception('no judges') }}{% endif %}"
    "{{ m.content }} {% endfor %}"
    "{% if loud %}four {% endif %}"
    "{% if tools %}three {% endif %}"
    "{% if add_generation_prompt %}two{% endif %}"
)
HELLO: Final = ({"role": "user", "content": "one"},)


def tokenizer(**options: Any) -> Any:
    """Make a tokenizer of words with a chat template."""
    made = word_tokenizer(**FULL)
    made.chat_template = options.get("template", TEMPLATE)
    return made


def spec_of(given: Any) -> ModelSpec:
    """Describe a tiny model with it."""
    return from_module(tiny_hf_model("llama"), given)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [BOS, ONE, TWO]),
        ({"add_generation_prompt": False}, [BOS, ONE]),
        ({"loud": True}, [BOS, ONE, FOUR, TWO]),
        ({"tools": [{"name": "look"}]}, [BOS, ONE, THREE, TWO]),
        (
            {"add_generation_prompt": False, "continue_final_message": True},
            [BOS, ONE],
        ),
    ],
    ids=str,
)
def test_the_template_writes_everything(
    options: dict[str, Any], expected: list[int]
) -> None:
    """No special token is added to its own, whatever the policy."""
    for bos in ("tokenizer", "always", "never"):
        spec = from_module(tiny_hf_model("llama"), tokenizer(), bos=bos)
        assert [expected] == to_chat_tokens(spec, HELLO, **options).tolist()


def test_a_template_can_be_one_of_several() -> None:
    """The default, or the one for tools."""
    several = {"default": "one two", "tool_use": "three {{ tools }}"}
    spec = spec_of(tokenizer(template=several))
    assert [[ONE, TWO]] == to_chat_tokens(spec, HELLO).tolist()
    assert THREE == to_chat_tokens(spec, HELLO, tools=[{"name": "look"}])[0, 0]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lout": True}, "lout"),
        ({"continue_final_message": True}, "continue_final_message"),
    ],
)
def test_options_that_would_not_act_are_refused(
    options: dict[str, Any], name: str
) -> None:
    """A variable that the template does not read, and two ends at once."""
    with pytest.raises(OptionError) as caught:
        to_chat_tokens(spec_of(tokenizer()), HELLO, **options)
    assert name == caught.value.option


def test_what_is_no_conversation_is_refused(unchecked: None) -> None:
    """By us, or by the template itself."""
    spec = spec_of(tokenizer())
    image = [{"role": "user", "content": [{"type": "image"}]}]
    with pytest.raises(InputError, match="image, which tokens alone would lose"):
        to_chat_tokens(spec, image)
    with pytest.raises(InputError, match=r"messages\[0\] is 'h'"):
        to_chat_tokens(spec, "hello")  # pyright: ignore[reportArgumentType] (refused)
    with pytest.raises(TokenizerError, match="no judges"):
        to_chat_tokens(spec, [{"role": "judge", "content": "one"}])
    with pytest.raises(TokenizerError, match="no chat template"):
        to_chat_tokens(spec_of(word_tokenizer(**FULL)), HELLO)


def processor(**options: Any) -> Any:
    """A processor of sound and text."""
    words = word_tokenizer(**FULL)
    return transformers.MusicgenProcessor(
        transformers.EncodecFeatureExtractor(), words, **options
    )


def test_a_processor_stands_in_the_tokenizers_place() -> None:
    """Its tokenizer reads text, and what it returns can be run."""
    whole = processor()
    for spec in (spec_of(whole), load(TINY, tokenizer=whole, device="cpu")):
        assert spec.tokenizer is whole.tokenizer
        assert spec.processor is whole
    spec = spec_of(whole)
    texts = ["one two three", "four"]
    inputs = whole(text=texts, padding=True, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], to_tokens(spec, texts))
    assert torch.equal(run(spec, texts), run(spec, inputs))


def test_a_processors_template_serves() -> None:
    """Where the tokenizer has none."""
    whole = processor()
    whole.chat_template = TEMPLATE
    assert [[BOS, ONE, TWO]] == to_chat_tokens(spec_of(whole), HELLO).tolist()


def test_what_reads_no_text_is_no_tokenizer(unchecked: None) -> None:
    """An extractor of features is kept; anything else is refused."""
    extractor = transformers.EncodecFeatureExtractor()
    spec = spec_of(extractor)
    assert (None, extractor) == (spec.tokenizer, spec.processor)
    for wrong in (3, "words", object()):
        with pytest.raises(InputError, match="is no tokenizer"):
            spec_of(wrong)
