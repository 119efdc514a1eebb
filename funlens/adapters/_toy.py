"""Toy transformers: a few numbers and words become a model, seeded."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters._registry import from_module
from funlens.data import ModelSpec
from funlens.errors import OptionError

ToyNorm: TypeAlias = Literal["layer", "rms", "none"]
ToyPositions: TypeAlias = Literal["learned", "rotary", "none"]
ToyActivation: TypeAlias = Literal["relu", "gelu", "silu"]

_Validator: TypeAlias = Callable[[object, "attrs.Attribute[Any]", Any], None]

_MLP_RATIO: Final = 4


def _at_least(lowest: int) -> _Validator:
    def check(_: object, field: "attrs.Attribute[Any]", value: Any) -> None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (is_whole and value >= lowest):
            problem = f"{value!r}; expected a whole number, {lowest} or more"
            raise OptionError(field.name, problem)

    return check


def _one_of(words: tuple[str, ...]) -> _Validator:
    def check(_: object, field: "attrs.Attribute[Any]", value: Any) -> None:
        if value not in words:
            raise OptionError(field.name, f"{value!r} is unknown", words)

    return check


def _is_cap(_: object, field: "attrs.Attribute[Any]", value: Any) -> None:
    if value is not None and not value > 0:
        raise OptionError(field.name, f"{value!r}; expected a number above 0")


@attrs.frozen(kw_only=True)
class ToyConfig:
    """What a toy transformer is made of.

    Attributes:
        n_layers: Blocks.
        d_model: Width of the residual stream.
        n_heads: Query heads of a layer.
        n_kv_heads: Key and value heads, fewer for grouped queries; as many as query
            heads if None.
        d_head: Width of a head; `d_model / n_heads` if None.
        d_mlp: Neurons of a layer, 0 for attention only; four times `d_model` if None.
        d_vocab: Tokens that it reads.
        d_out: Logits that it gives; `d_vocab` if None.
        n_ctx: Longest input.
        norm: Before attention, before the MLP and at the end: layer norm, RMS norm,
            or none.
        positions: A learned vector added to the embedding, queries and keys rotated,
            or none.
        activation: Of the MLP; GELU is the exact one.
        is_gated: Whether the MLP has a gate.
        is_parallel: Whether attention and MLP read the same stream.
        is_causal: Whether positions see only earlier ones.
        is_tied: Whether the unembedding is the embedding.
        has_bias: Whether the projections of attention and MLP have biases.
        attn_softcap: Scores are bent to stay below it: `cap * tanh(scores / cap)`.
        logit_softcap: The same for logits.

    Raises:
        OptionError: An option is out of range, unknown, or does not fit another.
    """

    n_layers: int = attrs.field(default=2, validator=_at_least(1))
    d_model: int = attrs.field(default=32, validator=_at_least(1))
    n_heads: int = attrs.field(default=4, validator=_at_least(1))
    n_kv_heads: int | None = attrs.field(default=None, validator=_at_least(1))
    d_head: int | None = attrs.field(default=None, validator=_at_least(1))
    d_mlp: int | None = attrs.field(default=None, validator=_at_least(0))
    d_vocab: int = attrs.field(default=32, validator=_at_least(1))
    d_out: int | None = attrs.field(default=None, validator=_at_least(1))
    n_ctx: int = attrs.field(default=64, validator=_at_least(1))
    norm: ToyNorm = attrs.field(default="layer", validator=_one_of(get_args(ToyNorm)))
    positions: ToyPositions = attrs.field(
        default="learned", validator=_one_of(get_args(ToyPositions))
    )
    activation: ToyActivation = attrs.field(
        default="gelu", validator=_one_of(get_args(ToyActivation))
    )
    is_gated: bool = False
    is_parallel: bool = False
    is_causal: bool = True
    is_tied: bool = False
    has_bias: bool = True
    attn_softcap: float | None = attrs.field(default=None, validator=_is_cap)
    logit_softcap: float | None = attrs.field(default=None, validator=_is_cap)

    def __attrs_post_init__(self) -> None:
        """Check the options against each other."""
        _check_heads(self)
        for option in ("is_gated", "is_parallel"):
            if self.d_mlp == 0 and getattr(self, option):
                problem = "it is about the MLP, and `d_mlp=0` leaves that out"
                raise OptionError(option, problem)
        if self.is_tied and self.d_out not in {None, self.d_vocab}:
            problem = f"d_out is {self.d_out} and d_vocab {self.d_vocab}, so the "
            raise OptionError("is_tied", problem + "unembedding is no embedding")


def _check_heads(config: ToyConfig) -> None:
    if config.d_head is None and config.d_model % config.n_heads:
        problem = f"{config.n_heads} heads do not divide d_model, {config.d_model}"
        raise OptionError("n_heads", f"{problem}; choose others, or give `d_head`")
    if config.n_heads % (config.n_kv_heads or 1):
        problem = f"{config.n_kv_heads} of them do not divide {config.n_heads} heads"
        raise OptionError("n_kv_heads", problem)
    width = config.d_head or config.d_model // config.n_heads
    if config.positions == "rotary" and width % 2:
        problem = f"heads {width} wide cannot be rotated; expected an even width"
        raise OptionError("d_head", problem)


def toy_module(config: ToyConfig, *, seed: int = 0) -> nn.Module:
    """Build a toy transformer to be trained with plain PyTorch.

    It is a HuggingFace model: `module(tokens).logits` are its logits, and
    `save_pretrained` writes a folder that `funlens.load` reads. It has no dropout, so
    that evaluation mode, which it is in, is right for training, too. A spec made from
    it shares its tensors and sees what training does to them.

    Weights are normal noise that keeps sums near the size of their terms, gains are 1
    and biases 0. The global generator is not touched.

    Args:
        config: What it is made of.
        seed: Fixes every weight.

    Returns:
        The module, in float32 on the CPU; its parameters require gradients.

    Examples:
        >>> import funlens as fl
        >>> module = fl.toy_module(fl.ToyConfig(n_layers=1, d_mlp=0))
        >>> fl.from_module(module).n_layers
        1
    """
    from funlens.adapters._hf_toy import FunlensToyConfig, FunlensToyForCausalLM

    settled = attrs.evolve(
        config,
        n_kv_heads=config.n_kv_heads or config.n_heads,
        d_head=config.d_head or config.d_model // config.n_heads,
        d_mlp=_MLP_RATIO * config.d_model if config.d_mlp is None else config.d_mlp,
        d_out=config.d_out or config.d_vocab,
    )
    with torch.device("meta"):  # so that nothing is drawn from the global generator
        module: Any = FunlensToyForCausalLM(
            FunlensToyConfig(**attrs.asdict(settled), dtype=torch.float32)
        )
    module.to_empty(device="cpu").tie_weights()
    _draw(module, torch.Generator().manual_seed(seed))
    drawn: nn.Module = module.eval()
    return drawn


@torch.no_grad()
def _draw(module: nn.Module, generator: torch.Generator) -> None:
    for part in module.modules():
        if isinstance(part, nn.LayerNorm | nn.RMSNorm):
            part.reset_parameters()
        if isinstance(part, nn.Linear | nn.Embedding):
            std = part.weight.shape[1] ** -0.5
            part.weight.normal_(std=std, generator=generator)
        bias = getattr(part, "bias", None)
        if isinstance(bias, Tensor):
            bias.zero_()


def toy(config: ToyConfig, *, seed: int = 0) -> ModelSpec:
    """Build a toy transformer and describe it.

    Args:
        config: What it is made of.
        seed: Fixes every weight; they are those of `toy_module`.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.toy(fl.ToyConfig(n_heads=4, n_kv_heads=2, positions="rotary"))
        >>> spec.n_kv_heads, fl.rot_q(0) in [info.site for info in fl.sites(spec)]
        (2, True)
    """
    return from_module(toy_module(config, seed=seed), name="toy")


def register_toys() -> None:
    """Make toys known to transformers; twice is once."""
    import_module("funlens.adapters._hf_toy")
