"""Conversations."""

import pytest

from funlens.adapters._chat import to_chat_tokens
from funlens.errors import TokenizerError
from tests.adapters.words import BOS, FULL, ONE, TWO, spec_of, word_tokenizer


def test_chat_templates_write_their_own_special_tokens() -> None:
    """The template's text is tokenized, and nothing is added."""
    tokenizer = word_tokenizer(**FULL)
    spec = spec_of(tokenizer)
    messages = [{"role": "user", "content": "one"}]
    with pytest.raises(TokenizerError, match="no chat template"):
        to_chat_tokens(spec, messages)
    tokenizer.chat_template = (
        "<s> {% for m in messages %}{{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}two{% endif %}"
    )
    assert [[BOS, ONE, TWO]] == to_chat_tokens(spec, messages).tolist()
    closed = to_chat_tokens(spec, messages, add_generation_prompt=False)
    assert [[BOS, ONE]] == closed.tolist()
