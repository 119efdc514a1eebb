"""Conversations to tokens."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from jaxtyping import Int
from torch import Tensor

from funlens.adapters._tokenizer import plain_ids, tokenizer_of
from funlens.data import ModelSpec
from funlens.errors import InputError, OptionError, TokenizerError

_TEXT: Final = "text"


def to_chat_tokens(
    spec: ModelSpec,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    tools: Sequence[Any] | None = None,
    **variables: Any,
) -> Int[Tensor, "1 pos"]:
    """Turn a conversation into token ids, with the tokenizer's chat template.

    The template writes the special tokens; no policy about them is applied.

    Args:
        spec: A model whose tokenizer, or processor, has a chat template.
        messages: Records with `role` and `content`, oldest first; text only.
        add_generation_prompt: Whether the assistant's turn is opened at the end.
        continue_final_message: Whether the last message is left open instead, so that
            the model goes on with it; needs `add_generation_prompt=False`.
        tools: Functions or their JSON schemas, for templates that write them.
        **variables: What else the template reads, such as `enable_thinking`.

    Returns:
        One row of ids on the spec's device.

    Raises:
        TokenizerError: There is no tokenizer, it has no chat template, or the template
            refuses the conversation.
        InputError: A message has no role, or holds something else than text.
        OptionError: The template reads no such variable, or two options conflict.
    """
    if add_generation_prompt and continue_final_message:
        problem = "a turn cannot be opened and the last one be continued"
        raise OptionError("continue_final_message", problem)
    tokenizer = tokenizer_of(spec)
    template = _template(spec, tools)
    _check_messages(messages)
    _check_variables(template, {**variables, **({"tools": tools} if tools else {})})
    try:
        written: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=None if tools is None else list(tools),
            **variables,
        )
    except Exception as error:
        raise TokenizerError(
            problem=f"the chat template does not take this conversation: {error}",
            advice="Look at it with `print(spec.tokenizer.chat_template)`",
        ) from error
    ids = plain_ids(spec, written)
    return torch.tensor([ids], dtype=torch.long, device=spec.device)


def _template(spec: ModelSpec, tools: Sequence[Any] | None) -> str:
    """Give the tokenizer's template, or the processor's."""
    for holder in (spec.tokenizer, spec.processor):
        held: Any = getattr(holder, "chat_template", None)
        if isinstance(held, Mapping):
            return str(holder.get_chat_template(tools=tools))
        if held:
            return str(held)
    raise TokenizerError(
        problem=f"the tokenizer of {spec.name} has no chat template",
        advice="Use an instruction-tuned model, or write the prompt as plain text",
    )


def _check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message:  # pyright: ignore[reportUnnecessaryIsInstance] (callers may pass strings)
            raise InputError(
                f"messages[{at}] is {message!r:.60}",
                "a record with `role` and `content`",
                'Write `{"role": "user", "content": "..."}`',
            )
        content = message.get("content")
        parts = [] if isinstance(content, str) or content is None else list(content)
        kinds = [part.get("type") for part in parts]
        other = next((kind for kind in kinds if kind != _TEXT), None)
        if other is not None:
            raise InputError(
                f"messages[{at}] holds {other}, which tokens alone would lose",
                "text",
                "Pass what `processor.apply_chat_template(..., tokenize=True, "
                "return_dict=True, return_tensors='pt')` returns to `funlens.run`",
            )


def _check_variables(template: str, variables: Mapping[str, Any]) -> None:
    for name in variables:
        if re.search(rf"\b{re.escape(name)}\b", template) is None:
            problem = "this chat template reads no such variable"
            raise OptionError(name, problem)
