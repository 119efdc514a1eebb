"""What the forward of a tiny model takes: token ids, and what some read besides."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from funlens.testing._recipes_config import config_of, special_ids
from funlens.testing._recipes_record import Recipe

_FEWER: Final = 2  # positions that the other side of a cross-attention lacks
_N_ENTITIES: Final = 3
_SPAN: Final = 2  # tokens in an entity's name
_SPECIAL_ENTITIES: Final = 4  # nothing, unknown, masked, and one to spare


@attrs.frozen(kw_only=True)
class _Wanted:
    """For what to draw, how much, and from what."""

    config: Any
    batch: int
    pos: int
    generator: torch.Generator


def draw_inputs(
    found: Recipe, *, batch: int, pos: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the keyword arguments of a forward.

    Args:
        found: For which model.
        batch: How many rows.
        pos: How many tokens in a row.
        generator: Where the numbers come from.

    Returns:
        The arguments: token ids first, then what the recipe asks for besides.
    """
    config: Any = config_of(found)
    wanted = _Wanted(config=config, batch=batch, pos=pos, generator=generator)
    drawn = {"input_ids": _plain_ids(wanted, batch, pos)}
    if getattr(config, "is_encoder_decoder", False):
        if found.task in {"seq2seq-lm", "base"}:
            length = max(1, pos - _FEWER)
            drawn["decoder_input_ids"] = _plain_ids(wanted, batch, length)
        elif found.task == "sequence-classification":
            drawn["input_ids"][:, -1] = config.eos_token_id  # where these look
    return drawn | {name: _EXTRAS[name](wanted) for name in found.extra}


def _plain_ids(wanted: _Wanted, rows: int, length: int) -> Tensor:
    """Draw token ids of which none is special."""
    special = set(special_ids(wanted.config.to_dict()))
    vocab = wanted.config.get_text_config().vocab_size
    plain = torch.tensor([i for i in range(vocab) if i not in special])
    return plain[_below(wanted, len(plain), rows, length)]


def _below(wanted: _Wanted, limit: int, *shape: int) -> Tensor:
    """Draw whole numbers below a limit."""
    return torch.randint(limit, shape, generator=wanted.generator)


def _normal(wanted: _Wanted, *shape: int) -> Tensor:
    """Draw normal noise."""
    return torch.randn(shape, generator=wanted.generator)


def _one_of(setting: str) -> Callable[[_Wanted], Tensor]:
    """Draw one of as many kinds as a setting says, for each token."""

    def draw(wanted: _Wanted) -> Tensor:
        limit: int = getattr(wanted.config, setting)
        return _below(wanted, limit, wanted.batch, wanted.pos)

    return draw


def _boxes(wanted: _Wanted) -> Tensor:
    """Draw where on a page each token stands: left, top, right, bottom."""
    limit = wanted.config.max_2d_position_embeddings // 2
    corner, size = (_below(wanted, limit, wanted.batch, wanted.pos, 2) for _ in "xy")
    return torch.cat((corner, corner + size), dim=-1)


def _table_cells(wanted: _Wanted) -> Tensor:
    """Draw where in a table each token stands, one column for each kind of place."""
    kinds: list[int] = wanted.config.type_vocab_sizes
    columns = [_below(wanted, kind, wanted.batch, wanted.pos) for kind in kinds]
    return torch.stack(columns, dim=-1)


def _global_first(wanted: _Wanted) -> Tensor:
    """Let the first token attend to all."""
    mask = torch.zeros(wanted.batch, wanted.pos, dtype=torch.long)
    mask[:, 0] = 1
    return mask


def _entities(wanted: _Wanted) -> Tensor:
    """Draw which entities are named, none of them special."""
    limit = wanted.config.entity_vocab_size - _SPECIAL_ENTITIES
    return _SPECIAL_ENTITIES + _below(wanted, limit, wanted.batch, _N_ENTITIES)


def _entity_spans(wanted: _Wanted) -> Tensor:
    """Draw the tokens that name each entity."""
    return _below(wanted, wanted.pos, wanted.batch, _N_ENTITIES, _SPAN)


def _heard(wanted: _Wanted) -> Tensor:
    """Draw embedded sound, several frames for each token."""
    config = wanted.config
    frames = wanted.pos * config.downsample_factor
    return _normal(wanted, wanted.batch, frames, config.audio_config.hidden_size)


def _condition(wanted: _Wanted) -> Tensor:
    """Draw what a decoder without its encoder attends to."""
    length = max(1, wanted.pos - _FEWER)
    return _normal(wanted, wanted.batch, length, wanted.config.hidden_size)


def _codes(wanted: _Wanted) -> Tensor:
    """Draw codes, a row for each codebook."""
    rows = wanted.batch * wanted.config.num_codebooks
    return _plain_ids(wanted, rows, wanted.pos)


def _language(wanted: _Wanted) -> Tensor:
    """Give rows languages in turn; the first is what a model takes by itself."""
    return torch.arange(1, wanted.batch + 1) % len(wanted.config.languages)


_EXTRAS: Final[Mapping[str, Callable[[_Wanted], Tensor]]] = {
    "bbox": _boxes,
    "encoder_hidden_states": _condition,
    "encoder_inputs_embeds": _heard,
    "entity_ids": _entities,
    "entity_position_ids": _entity_spans,
    "global_attention_mask": _global_first,
    "input_ids": _codes,
    "input_pronunciation_ids": _one_of("pronunciation_vocab_size"),
    "input_shape_ids": _one_of("shape_vocab_size"),
    "lang_ids": _language,
    "langs": _one_of("n_langs"),
    "token_type_ids": _table_cells,
}
