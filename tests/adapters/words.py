"""A tokenizer of words, with whichever special tokens a test wants."""

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from funlens.adapters import from_module
from funlens.data import ModelSpec
from funlens.testing import tiny_hf_model

BOS, EOS, PAD, UNK = range(4)
WORDS = ("<s>", "</s>", "<pad>", "<unk>", "one", "two", "three", "four")
ONE, TWO, THREE, FOUR = range(4, 8)
NO_PAD = {"bos_token": "<s>", "eos_token": "</s>"}
FULL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
SAME = {"bos_token": "<s>", "eos_token": "<s>", "pad_token": "<s>"}


def word_tokenizer(*, adds_bos: bool = True, **special: str) -> Any:
    """Make a tokenizer of words; the special tokens are those that are named."""
    words = {word: at for at, word in enumerate(WORDS)}
    inner = Tokenizer(models.WordLevel(words, unk_token=WORDS[UNK]))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", BOS)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=WORDS[UNK], **special
    )


def spec_of(tokenizer: Any = None, **options: Any) -> ModelSpec:
    """Describe a tiny model that has this tokenizer."""
    return from_module(tiny_hf_model("llama"), tokenizer, **options)
