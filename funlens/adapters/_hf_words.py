"""A tokenizer in which words stand between spaces, and each is one token."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from funlens.errors import TokenizerError, nearest


class WordTokenizer(PreTrainedTokenizerFast):
    """HuggingFace's tokenizer, which refuses words that are not in its vocabulary."""

    def __call__(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        """Tokenize one text or several."""
        known: Mapping[str, int] = self.get_vocab()
        for one in (text,) if isinstance(text, str) else text:
            strange = [word for word in one.split() if word not in known]
            if strange:
                near = ", ".join(nearest(strange[0], known))
                raise TokenizerError(
                    problem=f"{strange[0]!r} is not in the vocabulary",
                    advice=f"Write words with spaces between them; there are: {near}",
                )
        return super().__call__(text, *args, **kwargs)


def word_tokenizer(vocabulary: Mapping[str, int], *, bos: str, pad: str) -> Any:
    """Make a tokenizer that puts `bos` in front of each text.

    Args:
        vocabulary: The id of each word.
        bos: The word that stands in front.
        pad: The word that fills up shorter rows.
    """
    words: Any = Tokenizer(models.WordLevel(dict(vocabulary)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
    )
    return WordTokenizer(tokenizer_object=words, bos_token=bos, pad_token=pad)
