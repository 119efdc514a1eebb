"""Finding things in a module's tree, and numbers in a HuggingFace config."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import attrs
from torch import nn

from funlens.adapters._verified import VERIFIED
from funlens.errors import UnsupportedConfigError

_MODEL_WIDTHS: Final = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim")
_HEADS: Final = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "decoder_attention_heads",
    "encoder_attention_heads",
)
_KV_HEADS: Final = ("num_key_value_heads", "num_kv_heads")
_LAYERS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_STREAMS: Final = ("hc_mult", "hc_count", "altup_num_inputs")
_CONTEXT: Final = ("max_position_embeddings", "n_positions", "max_seq_len")
_HEAD_WIDTHS: Final = (
    "qk_head_dim",
    "head_dim",
    "attention_head_size",
    "key_value_proj_dim",
    "d_head",
    "head_size",
)


def joined(*parts: str) -> str:
    """Join the parts of a dotted path that are not empty."""
    return ".".join(part for part in parts if part)


def find(module: nn.Module, path: str) -> nn.Module | None:
    """Follow a dotted path; None where it ends early. The empty path is the module."""
    found: object = module
    for name in path.split(".") if path else ():
        if not isinstance(found, nn.Module):
            return None
        found = dict(found.named_children()).get(name)
    return found if isinstance(found, nn.Module) else None


def first(module: nn.Module, path: str | tuple[str, ...], base: str = "") -> str:
    """Give the first of several paths below a base that is there; else nothing."""
    for name in (path,) if isinstance(path, str) else path:
        whole = joined(base, name)
        if name and find(module, whole) is not None:
            return whole
    return ""


def lists_of(blocks: str | tuple[str, ...]) -> tuple[str, ...]:
    """Name the lists that hold blocks, up to where a path has a `*`."""
    names = (blocks,) if isinstance(blocks, str) else blocks
    cut = (name.partition("*") for name in names)
    return tuple(
        before.rpartition(".")[0] if star else before for before, star, _ in cut
    )


def path_of(module: nn.Module, part: object) -> str:
    """Give the path of a part that a module holds; nothing if it does not."""
    named = cast("Iterator[tuple[str, nn.Module]]", module.named_modules())
    return next((name for name, held in named if held is part), "")


def features(at: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear map, HuggingFace's Conv1D and PEFT's included."""
    at = getattr(at, "base_layer", at)
    if hasattr(at, "in_features"):
        groups = getattr(at, "n_groups", 1)  # each with a map of its own
        return int(at.in_features) * groups, int(at.out_features)
    if isinstance(at, nn.Conv1d):
        return int(at.in_channels), int(at.out_channels)
    weight: Any = getattr(at, "weight", None)
    if weight is None or weight.ndim != 2:  # noqa: PLR2004 -- a matrix
        return 0, 0
    return int(weight.shape[0]), int(weight.shape[1])


def subconfig(config: Any, path: str) -> Any:
    """Follow a dotted path through a config; None where it ends early."""
    found = config if path else None
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def number(config: Any, field: str | float) -> float:
    """Read a multiplier; 1 where there is no name.

    Args:
        config: The config.
        field: A number, a field's name, `"a / sqrt(b)"` of two fields or of a number
            and one, or `"sqrt(a) if b"`, which is 1 where the second is not set.

    Raises:
        UnsupportedConfigError: The config has no such field.
    """
    if not isinstance(field, str):
        return float(field)
    root, _, condition = field.partition(" if ")
    if condition:
        size = float(getattr(config, root.removeprefix("sqrt(").rstrip(")")))
        return size**0.5 if getattr(config, condition) else 1.0
    over, _, under = field.partition(" / sqrt(")
    value = _multiplier(config, over) if over else 1.0
    return value / _multiplier(config, under.rstrip(")")) ** 0.5 if under else value


def _multiplier(config: Any, field: str) -> float:
    if field.isdigit():
        return float(field)
    value = getattr(config, field, None)
    if value is None:
        raise UnsupportedConfigError(
            str(getattr(config, "model_type", "unknown")),
            f"its config has no {field!r}, which transformers {VERIFIED} had; another "
            "version may have renamed it",
        )
    return float(value)


def _read(config: Any, names: tuple[str, ...]) -> int:
    for name in names:
        value = getattr(config, name, None) if name else None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


@attrs.frozen(kw_only=True)
class Sizes:
    """How a family calls its sizes, and what they are in one config.

    Attributes:
        names: Config fields that are not called as usual.
        config: The main stack's config.
    """

    names: Mapping[str, str]
    config: Any = attrs.field(repr=False)

    def _named(self, word: str, config: Any, usual: tuple[str, ...]) -> int:
        return _read(config, (self.names.get(word, ""), *usual))

    @property
    def n_layers(self) -> int:
        """Blocks of the main stack."""
        return self._named("n_layers", self.config, _LAYERS)

    @property
    def d_vocab(self) -> int:
        """Size of the vocabulary; 0 without one."""
        return self._named("d_vocab", self.config, ("vocab_size",))

    @property
    def n_ctx(self) -> int | None:
        """Longest input; None if there is no limit."""
        return max(self._named("n_ctx", self.config, _CONTEXT), 0) or None  # -1 is none

    def width(self, config: Any) -> int:
        """Width of the residual stream."""
        return self._named("d_model", config, _MODEL_WIDTHS)

    def streams(self, config: Any) -> int:
        """Streams that blocks pass on, where they are several."""
        return self._named("n_streams", config, _STREAMS)

    def heads(self, config: Any) -> int:
        """Query heads of a layer."""
        return self._named("n_heads", config, _HEADS)

    def head_width(self, attention: Any, config: Any) -> int:
        """Width of a query head: what the attention module says, or the config."""
        own = _read(attention, (self.names.get("d_head", ""), *_HEAD_WIDTHS))
        if own:
            return own
        heads = self.heads(config)
        named = self._named("d_head", config, ("head_dim", "d_head"))
        return named or (self.width(config) // heads if heads else 0)

    def kv_heads(self, attention: Any, config: Any, n_heads: int) -> int:
        """Key and value heads of a layer."""
        groups = getattr(attention, "num_key_value_groups", None)
        if isinstance(groups, int) and groups:
            return n_heads // groups
        own = _read(attention, (self.names.get("n_kv_heads", ""), "num_kv_heads"))
        return own or self._named("n_kv_heads", config, _KV_HEADS) or n_heads
