"""Tiny random HuggingFace models of every architecture, built from their configs."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from funlens.errors import UnknownRecipeError, nearest
from funlens.testing._recipes_causal import CAUSAL
from funlens.testing._recipes_config import (
    N_EXPERTS,
    VOCAB,
    Config,
    config_of,
    special_ids,
)
from funlens.testing._recipes_drawing import draw, placeholders
from funlens.testing._recipes_foundation import FOUNDATION
from funlens.testing._recipes_heads import heads_of
from funlens.testing._recipes_inputs import draw_inputs
from funlens.testing._recipes_masked import MASKED
from funlens.testing._recipes_multimodal import MULTIMODAL
from funlens.testing._recipes_record import Recipe, Task
from funlens.testing._recipes_seq2seq import SEQ2SEQ

RECIPES: Final[tuple[Recipe, ...]] = (
    *FOUNDATION,
    *CAUSAL,
    *MASKED,
    *SEQ2SEQ,
    *MULTIMODAL,
)

_AUTO_CLASSES: Final[Mapping[Task, str]] = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "base": "AutoModel",
    "token-classification": "AutoModelForTokenClassification",
    "sequence-classification": "AutoModelForSequenceClassification",
    "image-text": "AutoModelForImageTextToText",
    "speech": "AutoModelForSpeechSeq2Seq",
    "ctc": "AutoModelForCTC",
    "image-classifier": "AutoModelForImageClassification",
    "audio-classifier": "AutoModelForAudioClassification",
}

# The classes themselves, by the whole config of a family.
_CLASSES: Final[Mapping[Task, str]] = {
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "base": "MODEL_MAPPING",
}

_MATRIX_STD: Final = 0.2  # with 16 inputs of size 1 a sum has size 0.8
_NOISE_STD: Final = 0.1

# Recurrent layers overflow or die if these are drawn like matrices.
_JITTERED: Final = frozenset({"A_log"})


def recipe_names() -> tuple[str, ...]:
    """List the names that `tiny_hf_model` takes, in the table's order."""
    return tuple(_by_name())


@functools.cache
def head_recipes() -> tuple[Recipe, ...]:
    """List the recipes of models with another head or none.

    Returns:
        For each type of language model in the table, what transformers has of it
        without a head, and with a classifier of tokens or of sequences.
    """
    return heads_of(RECIPES)


def tiny_hf_model(
    name: str, *, seed: int = 0, attn_implementation: str | None = None
) -> nn.Module:
    """Build a tiny random HuggingFace model, without network.

    The model is in evaluation mode, in float32 on the CPU, and as HuggingFace made it
    but for its weights, drawn anew so that no bias is 0 and no gain is 1.
    The global random state is left as it was.

    Args:
        name: One of `recipe_names()`.
        seed: Fixes every weight.
        attn_implementation: HuggingFace's name of one; its own choice if None.

    Returns:
        The model; the same bits for the same arguments.

    Raises:
        UnknownRecipeError: No recipe has this name.
    """
    found = _recipe_named(name)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        model = _built(found, attn_implementation=attn_implementation)
    _redraw(model, generator=torch.Generator().manual_seed(seed))
    return model.eval()


def tiny_inputs(
    name: str, *, batch: int = 2, pos: int = 7, seed: int = 0
) -> dict[str, Tensor]:
    """Draw token ids for a tiny model, none of them special, and what else it reads.

    A sequence classifier with an encoder and a decoder pools at the end of the text,
    so there each row ends with its token.

    Args:
        name: One of `recipe_names()`.
        batch: How many rows.
        pos: How many tokens in a row, without those that stand for a picture or a
            sound; a decoder behind an encoder gets two fewer, so that the two kinds
            of position cannot be taken for each other.
        seed: Fixes the ids, the pictures and the sounds.

    Returns:
        Keyword arguments of the model's forward.

    Raises:
        UnknownRecipeError: No recipe has this name.
    """
    found = _recipe_named(name)
    generator = torch.Generator().manual_seed(seed)
    if not found.inputs:
        return draw_inputs(found, batch=batch, pos=pos, generator=generator)
    return draw(
        found.inputs,
        plain=_plain_ids(config_of(found), placeholders(found.inputs)),
        batch=batch,
        pos=pos,
        generator=generator,
    )


def _plain_ids(config: Config, taken: Iterable[int]) -> Tensor:
    """List the token ids that have no meaning of their own; none without words."""
    special = {*special_ids(config.to_dict()), *taken}
    vocab = getattr(config.get_text_config(), "vocab_size", VOCAB)
    return torch.tensor([i for i in range(vocab) if i not in special])


@functools.cache
def _by_name() -> Mapping[str, Recipe]:
    """Order all recipes by name."""
    return {row.name: row for row in (*RECIPES, *head_recipes())}


def _recipe_named(name: str) -> Recipe:
    """Look a recipe up."""
    rows = _by_name()
    if name not in rows:
        raise UnknownRecipeError(name, nearest(name, rows))
    return rows[name]


def _built(found: Recipe, *, attn_implementation: str | None) -> nn.Module:
    """Let HuggingFace build a model, with weights of its own."""
    import transformers  # here: as in `config_of`

    config = config_of(found)
    if found.config_type:
        # The auto class would hand over the whole config, which this class cannot read.
        whole = transformers.CONFIG_MAPPING[found.model_type]
        part: Any = getattr(transformers, _CLASSES[found.task])[whole]
        model = part(config)
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        return model
    auto: Any = getattr(transformers, _AUTO_CLASSES[found.task])
    given = {"attn_implementation": attn_implementation} if attn_implementation else {}
    return auto.from_config(config, dtype=torch.float32, **given)


@torch.no_grad()
def _redraw(model: nn.Module, *, generator: torch.Generator) -> None:
    """Draw everything that a checkpoint holds anew.

    Matrices become normal noise. Vectors, gains of any shape and the few parameters
    that a recurrence is sensitive to keep what HuggingFace gave them, plus noise: so
    gains stay near 1, or near 0 where the family adds the 1 itself. So do buffers that
    training would have moved from 0 or 1.
    """
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "embed_positions" in name and not parameter.requires_grad:
            continue  # a fixed table of sines
        if _is_jittered(name, parameter):
            parameter.add_(noise, alpha=_NOISE_STD)
        else:
            parameter.copy_(noise * _MATRIX_STD)
    stored = model.state_dict()
    for name, buffer in model.named_buffers():
        if name.endswith("tid2eid"):  # which experts a token id goes to
            buffer.copy_(torch.arange(buffer.numel()).view_as(buffer) % N_EXPERTS)
        elif name in stored and buffer.is_floating_point() and _is_unit(buffer):
            noise = torch.randn(buffer.shape, generator=generator)
            buffer.add_(noise, alpha=_NOISE_STD)


def _is_jittered(name: str, parameter: Tensor) -> bool:
    """Tell what keeps HuggingFace's value, plus noise, from what is drawn whole."""
    last = name.rpartition(".")[2]
    return (
        parameter.ndim <= 1
        or last in _JITTERED
        or last.endswith("bias")
        or bool((parameter == 1).all())
    )


def _is_unit(buffer: Tensor) -> bool:
    """Tell whether a buffer is all 0 or all 1, as only an untrained one is."""
    return bool((buffer == 0).all() or (buffer == 1).all())
