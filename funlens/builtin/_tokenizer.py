"""A byte-level BPE tokenizer in which every task word is one token."""

from collections.abc import Iterator
from itertools import repeat
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from funlens.builtin import _words
from funlens.builtin._corpus import Corpus
from funlens.builtin._english import plain_english
from funlens.builtin._indirect_object import indirect_object
from funlens.builtin._prompts import document

VOCAB: Final = 2048
CONTEXT: Final = 256
SPECIAL: Final[tuple[str, str, str]] = ("<bos>", "<eos>", "<pad>")
N_SPECIAL: Final = len(SPECIAL)
BOS, EOS, PAD = SPECIAL
BOS_ID, EOS_ID, PAD_ID = range(N_SPECIAL)
WORD_WEIGHT: Final = 2000
TEMPLATE_TEXTS: Final = 5000


def single_token_words() -> tuple[str, ...]:
    """List the words, with their leading spaces, that must be one token each."""
    words = {
        *_words.NAMES, *_words.PLACES, *_words.OBJECTS, *_words.NOUNS,
        *_words.NOUNS.values(), *_words.DAYS, *_words.CAPITALS.values(),
        *_words.OPPOSITES, *_words.OPPOSITES.values(), *_words.COLORS.values(),
        *(form for verb in _words.AGREEING_VERBS for form in verb[:2]),
        *(form for verb in _words.RELATIVE_VERBS for form in verb),
    }  # fmt: skip
    return (*sorted(f" {word}" for word in words), *_words.NAMES)


def train_tokenizer(corpus: Corpus, *, seed: int) -> PreTrainedTokenizerFast:
    """Learn the merges from the books, the templates and the task words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(corpus, seed=seed), trainer=trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, BOS_ID)],
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    _check(wrapped)
    return wrapped


def _texts(corpus: Corpus, *, seed: int) -> Iterator[str]:
    generator = torch.Generator().manual_seed(seed)
    yield from corpus.training.splitlines()
    for _ in range(TEMPLATE_TEXTS):
        yield document(indirect_object(generator, held_out=False))
        yield plain_english(generator)
    for word in single_token_words():
        yield from repeat(word, WORD_WEIGHT)


def _check(tokenizer: PreTrainedTokenizerFast) -> None:
    broken = [
        word for word in single_token_words() if len(tokenizer.tokenize(word)) > 1
    ]
    if broken or len(tokenizer) != VOCAB:
        message = f"{len(tokenizer)} tokens, and these words are split: {broken}"
        raise RuntimeError(message)
