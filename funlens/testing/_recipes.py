"""Tiny random HuggingFace models of every architecture, built from their configs."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from funlens.errors import UnknownRecipeError, nearest
from funlens.testing._recipes_causal import CAUSAL
from funlens.testing._recipes_config import N_EXPERTS, config_of, special_ids
from funlens.testing._recipes_foundation import FOUNDATION
from funlens.testing._recipes_record import Recipe, Task

RECIPES: Final[tuple[Recipe, ...]] = (*FOUNDATION, *CAUSAL)

_BY_NAME: Final[Mapping[str, Recipe]] = {row.name: row for row in RECIPES}

_AUTO_CLASSES: Final[Mapping[Task, str]] = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
}

_MATRIX_STD: Final = 0.2  # with 16 inputs of size 1 a sum has size 0.8
_NOISE_STD: Final = 0.1

# Recurrent layers overflow or die if these are drawn like matrices.
_JITTERED: Final = frozenset({"A_log"})


def recipe_names() -> tuple[str, ...]:
    """List the names that `tiny_hf_model` takes, in the table's order."""
    return tuple(_BY_NAME)


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
    import transformers  # here: as in `config_of`

    found = _recipe_named(name)
    auto: Any = getattr(transformers, _AUTO_CLASSES[found.task])
    wanted = {} if attn_implementation is None else _attention(attn_implementation)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = auto.from_config(
            config_of(found), dtype=torch.float32, **wanted
        )
    _redraw(model, generator=torch.Generator().manual_seed(seed))
    return model.eval()


def tiny_inputs(
    name: str, *, batch: int = 2, pos: int = 7, seed: int = 0
) -> dict[str, Tensor]:
    """Draw token ids for a tiny model, none of them special.

    Args:
        name: One of `recipe_names()`.
        batch: How many rows.
        pos: How many tokens in a row; a decoder behind an encoder gets two fewer,
            so that the two kinds of position cannot be taken for each other.
        seed: Fixes the ids.

    Returns:
        Keyword arguments of the model's forward.

    Raises:
        UnknownRecipeError: No recipe has this name.
    """
    found = _recipe_named(name)
    config = config_of(found)
    special = set(special_ids(config.to_dict()))
    vocab = config.get_text_config().vocab_size
    plain = torch.tensor([i for i in range(vocab) if i not in special])
    generator = torch.Generator().manual_seed(seed)

    def draw(length: int) -> Tensor:
        return plain[torch.randint(len(plain), (batch, length), generator=generator)]

    drawn = {"input_ids": draw(pos)}
    if found.task == "seq2seq-lm":
        drawn["decoder_input_ids"] = draw(max(1, pos - 2))
    return drawn


def _recipe_named(name: str) -> Recipe:
    """Look a recipe up."""
    if name not in _BY_NAME:
        raise UnknownRecipeError(name, nearest(name, _BY_NAME))
    return _BY_NAME[name]


def _attention(implementation: str) -> dict[str, str]:
    """Spell the choice of an attention implementation for transformers."""
    return {"attn_implementation": implementation}


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
