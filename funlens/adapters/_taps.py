"""From a table and a module to taps: where each site is met."""

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import attrs
from torch import nn

from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Mlp,
    NormKind,
    Stack,
)
from funlens.adapters._matrices import unreadable
from funlens.adapters._views import (
    WHOLE,
    BeforeSink,
    EveryRow,
    Half,
    Heads,
    Scaled,
    Slots,
    Swapped,
    Tokens,
    View,
)
from funlens.data import Site
from funlens.errors import UnsupportedConfigError

Side: TypeAlias = Literal[
    "in",
    "out",
    "scale",
    "heads",
    "scores",
    "pattern",
    "rot_q",
    "rot_k",
    "linear",
    "choices",
    "weights",
    "experts",
]


@attrs.frozen(kw_only=True)
class Tap:
    """Where one site is met.

    Attributes:
        site: The site.
        path: Module it is met at.
        side: Its input, its output, or a step inside it.
        index: Which of several outputs.
        view: How the value lies in the tensor.
        rejoins: Whether a changed value must also enter the sum at the block's end.
        in_place: Whether the model later changes that tensor in place.
        all_keys: Whether positions count all keys, also those of a cache.
        read_only: Why it cannot be changed; empty where it can.
    """

    site: Site
    path: str
    side: Side
    index: int = 0
    view: View = WHOLE
    rejoins: bool = False
    in_place: bool = False
    all_keys: bool = False
    read_only: str = ""


@attrs.frozen(kw_only=True)
class Sizes:
    """Numbers that a config tells."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_vocab: int
    n_ctx: int | None


@attrs.frozen(kw_only=True, eq=False)
class Binder:
    """A table, a module, and the numbers of its config."""

    arch: Architecture
    module: nn.Module
    config: Any
    sizes: Sizes

    def has(self, path: str) -> bool:
        """Tell whether the module has a submodule."""
        return bool(path) and find(self.module, path) is not None


def find(module: nn.Module, path: str) -> nn.Module | None:
    """Follow a dotted path; None where it ends early."""
    found: object = module
    for name in path.split("."):
        if not isinstance(found, nn.Module):
            return None
        found = dict(found.named_children()).get(name)
    return found if isinstance(found, nn.Module) else None


def sizes_of(arch: Architecture, config: Any) -> Sizes:
    """Read the sizes from a config, under the family's names of them."""

    def read(word: str, *names: str) -> int | None:
        for name in (arch.sizes.get(word, ""), *names):
            value = getattr(config, name, None) if name else None
            if isinstance(value, int):
                return int(value)
        return None

    d_model = read("d_model", "hidden_size", "d_model") or 0
    n_heads = read("n_heads", "num_attention_heads", "n_head") or 0
    d_head = read("d_head", "head_dim") or (d_model // n_heads if n_heads else 0)
    n_kv_heads = _falcon_kv_heads(config) or read("n_kv_heads", "num_key_value_heads")
    return Sizes(
        n_layers=read("n_layers", "num_hidden_layers", "n_layer") or 0,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads or n_heads,
        d_head=d_head,
        d_vocab=read("d_vocab", "vocab_size") or 0,
        n_ctx=read("n_ctx", "max_position_embeddings", "n_positions", "max_seq_len"),
    )


def _falcon_kv_heads(config: Any) -> int | None:
    """Falcon's `num_kv_heads` counts only in the new architecture."""
    if not hasattr(config, "new_decoder_architecture"):
        return None
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


def taps_of(binder: Binder) -> tuple[Tap, ...]:
    """List every tap, in the order of the forward pass.

    Raises:
        UnsupportedConfigError: A path of the table is not in the module.
    """
    arch = binder.arch
    taps = (
        [] if arch.encoder is None else [*_stack_taps(binder, arch.encoder, "encoder")]
    )
    taps += _stack_taps(binder, arch.main, "")
    taps.append(Tap(site=Site(part="logits"), path="", side="out"))
    return tuple(taps)


def _stack_taps(binder: Binder, stack: Stack, name: str) -> Iterator[Tap]:
    def site(part: str) -> Site:
        return Site(part=part, stack=name)

    embed = next((path for path in stack.embeds if binder.has(path)), None)
    if embed is not None:
        factor = _multiplier(binder, stack.embed_multiplier)
        view = Scaled(factor) if factor != 1.0 else WHOLE
        yield Tap(site=site("embed"), path=embed, side="out", view=view)
    if binder.has(stack.pos_embed):
        path = stack.pos_embed
        yield Tap(site=site("pos_embed"), path=path, side="out", view=EveryRow())
    blocks = find(binder.module, stack.blocks)
    if not isinstance(blocks, nn.ModuleList):
        raise UnsupportedConfigError(
            binder.arch.model_types[0], f"it has no list of blocks at {stack.blocks!r}"
        )
    for layer in range(len(blocks)):
        yield from _Layer(
            binder=binder,
            block=stack.block,
            path=f"{stack.blocks}.{layer}",
            stack=name,
            layer=layer,
        ).taps()
    if binder.has(stack.ln_final):
        path = stack.ln_final
        yield Tap(site=site("ln_final_scale"), path=path, side="scale")
        yield Tap(site=site("ln_final_normalized"), path=path, side="out")


def _multiplier(binder: Binder, field: str) -> float:
    return float(getattr(binder.config, field)) if field else 1.0


@attrs.frozen(kw_only=True, eq=False)
class _Layer:
    """One block of a stack, and its taps."""

    binder: Binder
    block: Block
    path: str
    stack: str
    layer: int

    def has(self, path: str) -> bool:
        """Tell whether the block has a submodule."""
        return bool(path) and self.binder.has(f"{self.path}.{path}")

    def is_readable(self, path: str) -> bool:
        """Tell whether a submodule's weight can be read, quantized or not."""
        at = find(self.binder.module, f"{self.path}.{path}")
        return at is not None and not unreadable(at)

    def tap(self, part: str, path: str, side: Side, **more: Any) -> Tap:
        """Make a tap of this layer."""
        at = f"{self.path}.{path}" if path else self.path
        site = Site(part=part, layer=self.layer, stack=self.stack)
        return Tap(site=site, path=at, side=side, **more)

    def taps(self) -> Iterator[Tap]:
        """List the block's taps in the order of its forward pass."""
        block = self.block
        yield self.tap("resid_pre", "", "in")
        yield from self.norm("ln1", block.ln1)
        if block.attention is not None and self.has(block.attention.o):
            yield from self.attention(block.attention)
        yield from self.cross_attention()
        yield from self.mixer()
        yield from self.middle()
        yield from self.norm("ln2", block.ln2)
        yield from self.feed_forward()
        yield self.tap("resid_post", "", "out")

    def norm(self, word: str, path: str) -> Iterator[Tap]:
        """A norm's scale and output."""
        if self.has(path):
            yield self.tap(f"{word}_scale", path, "scale")
            yield self.tap(f"{word}_normalized", path, "out")

    def added(self, part: str, path: str, **more: Any) -> Tap:
        """What the block adds to the stream."""
        factor = _multiplier(self.binder, self.block.multiplier)
        view = Scaled(factor) if factor != 1.0 else WHOLE
        return self.tap(part, path, "out", view=view, **more)

    def attention(self, words: Attention) -> Iterator[Tap]:
        """Self-attention, from its input to what is added."""
        sizes = self.binder.sizes
        yield self.tap("attn_in", words.path, "in")
        yield from self.projections(words)
        if words.has_rotary:
            yield self.tap("rot_q", words.path, "rot_q", view=Swapped())
            repeats = sizes.n_heads // sizes.n_kv_heads if words.repeats_keys else 1
            view = Swapped(repeats)
            yield self.tap("rot_k", words.path, "rot_k", view=view, all_keys=True)
        view = BeforeSink() if words.sink else WHOLE
        yield self.tap("attn_scores", words.path, "scores", view=view)
        yield self.tap("pattern", words.path, "pattern", view=view)
        yield self.tap("z", words.o, "in", view=Heads(sizes.n_heads))
        if self.is_readable(words.o):
            yield self.tap("head_result", words.o, "heads", view=Heads(sizes.n_heads))
        yield self.tap("attn_proj", words.o, "out")
        yield self.added("attn_out", self.block.ln1_post or words.added or words.path)

    def projections(self, words: Attention) -> Iterator[Tap]:
        """Queries, keys and values, before rotation."""
        heads, groups = self.binder.sizes.n_heads, self.binder.sizes.n_kv_heads
        if words.fused is None:
            changed = words.changed_in_place
            for part, path in (("q", words.q), ("k", words.k), ("v", words.v)):
                view = Heads(heads if part == "q" else groups)
                yield self.tap(part, path, "out", view=view, in_place=changed)
            return
        times = groups if words.fused.by_group else 1
        each, kv = heads // times, groups // times
        bounds = (0, each, each + kv, each + 2 * kv)
        for part, start, stop in zip("qkv", bounds[:-1], bounds[1:], strict=True):
            view = Slots(times, bounds[-1], start, stop)
            yield self.tap(part, words.fused.path, "out", view=view)

    def cross_attention(self) -> Iterator[Tap]:
        """Attention over the encoder's output."""
        words = self.block.cross
        if words is None or not self.has(words.o):
            return
        view = Heads(self.binder.sizes.n_heads)
        yield self.tap("cross_q", words.q, "out", view=view)
        yield self.tap("cross_k", words.k, "out", view=view)
        yield self.tap("cross_v", words.v, "out", view=view)
        yield self.tap("cross_scores", words.path, "scores")
        yield self.tap("cross_pattern", words.path, "pattern")
        yield self.tap("cross_z", words.o, "in", view=view)
        yield self.tap("cross_out", words.path, "out")

    def mixer(self) -> Iterator[Tap]:
        """A state-space mixer."""
        words = self.block.mixer
        if words is None or not self.has(words.path):
            return
        yield self.tap("ssm_in", words.path, "in")
        yield self.tap("ssm_proj", words.projection, "out")
        if self.has(words.parameters):
            yield self.tap("ssm_params", words.parameters, "out")
        yield self.tap("ssm_post", words.o, "in")
        yield self.added("ssm_out", words.path)

    def middle(self) -> Iterator[Tap]:
        """The stream between attention and MLP."""
        block = self.block
        if block.mid is not None:
            side, path = block.mid
            joined = side == "in" and path == "mlp"
            yield self.tap("resid_mid", path, side, rejoins=joined)
        elif not block.parallel and self.has(block.ln2):
            yield self.tap("resid_mid", block.ln2, "in", rejoins=True)

    def feed_forward(self) -> Iterator[Tap]:
        """The MLP or the experts, from the input to what is added."""
        for words in self.block.mlp:
            if isinstance(words, Experts) and self.has(words.router):
                yield from self.experts(words)
                return
            paths = () if isinstance(words, Experts) else words.paths
            if isinstance(words, Mlp) and all(self.has(path) for path in paths):
                yield from self.dense(words)
                return

    def experts(self, words: Experts) -> Iterator[Tap]:
        """A mixture of experts."""
        yield self.tap("mlp_in", words.path, "in")
        yield self.tap("router_logits", words.router, "linear")
        yield self.tap("router_weights", words.experts, "weights")
        yield self.tap("router_indices", words.experts, "choices")
        yield self.tap("expert_out", words.experts, "experts", view=Tokens())
        yield self.added("mlp_out", self.block.ln2_post or words.path)

    def dense(self, words: Mlp) -> Iterator[Tap]:
        """A dense MLP."""
        yield self.tap("mlp_in", words.path or words.up, "in")
        if words.gate:
            yield self.tap("mlp_gate", words.gate, "out")
        if words.gate_up:
            yield self.tap("mlp_gate", words.gate_up, "out", view=Half(second=False))
            yield self.tap("mlp_pre", words.gate_up, "out", view=Half(second=True))
        else:
            yield self.tap("mlp_pre", words.up, "out")
        yield self.tap("mlp_post", words.down, "in")
        changed = words.changed_in_place
        yield self.tap("mlp_proj", words.down, "out", in_place=changed)
        path = self.block.ln2_post or words.added or words.path or words.down
        yield self.added("mlp_out", path, in_place=changed)


def is_centered(kind: NormKind) -> bool:
    """Tell whether norms of a kind subtract the mean."""
    return kind == "layer"
