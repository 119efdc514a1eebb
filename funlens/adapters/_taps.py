"""From a table and a module to taps: where each site is met."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

import attrs
from torch import nn

from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Layout,
    Mixer,
    Mlp,
    Path,
    Place,
    Stack,
)
from funlens.adapters._matrices import unreadable
from funlens.adapters._taps_mixers import steps_in
from funlens.adapters._tree import (
    Sizes,
    features,
    find,
    first,
    joined,
    lists_of,
    number,
    subconfig,
)
from funlens.adapters._views import (
    WHOLE,
    BeforeSink,
    EveryRow,
    Half,
    HeadPart,
    Heads,
    Scaled,
    Slots,
    Square,
    StreamsBehind,
    StreamsFirst,
    Swapped,
    Tokens,
    View,
)
from funlens.data import AXES, Site
from funlens.errors import PathNotFoundError, UnsupportedConfigError

# What is added to the one residual stream, and what it is in between.
_ADDED: Final = frozenset(
    {
        "macaron_out",
        "attn_out",
        "ssm_out",
        "cross_out",
        "resid_mid",
        "mlp_out",
        "dense_out",
    }
)

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
    "ssm_conv",
    "ssm_gate",
    "ssm_q",
    "ssm_k",
    "ssm_v",
    "ssm_decay",
    "ssm_beta",
    "ssm_state",
    "ssm_y",
]

MIXER_SIDES: Final[tuple[Side, ...]] = (
    "ssm_conv",
    "ssm_gate",
    "ssm_q",
    "ssm_k",
    "ssm_v",
    "ssm_decay",
    "ssm_beta",
    "ssm_state",
    "ssm_y",
)
"""Steps inside a mixer, named as the parts they are."""


_SQUARE: Final = frozenset({"scores", "pattern"})


@attrs.frozen(kw_only=True)
class Tap:
    """Where one site is met.

    Attributes:
        site: The site.
        path: Module it is met at.
        side: Its input, its output, or a step inside it.
        index: Which of several outputs.
        view: How the value lies in the tensor.
        sizes: Lengths of its axes, as far as they are known without running; a word
            where an axis is longer than its name says.
        note: What one would expect to hold of it and does not, and why.
        rejoins: Whether a changed value must also enter the sum at the block's end.
        in_place: Whether the model later changes that tensor in place.
        by_name: Whether the module looks at the name of the attention function.
        all_keys: Whether positions count all keys, also those of a cache.
        layout: Order of rows, positions and widths in the tensor.
        overhangs: Whether the tensor holds positions beyond the site's.
        read_only: Why it cannot be changed; empty where it can.
        given: The input without which it is not met.
        visit: Which of the module's runs in one forward, where it runs several times.
        front: Whether other positions may stand before those that the model is given.
    """

    site: Site
    path: str
    side: Side
    index: int = 0
    view: View = WHOLE
    sizes: Mapping[str, int | str] = attrs.field(factory=dict[str, int | str])
    note: str = ""
    rejoins: bool = False
    in_place: bool = False
    by_name: bool = False
    all_keys: bool = False
    layout: Layout = "bpd"
    overhangs: bool = False
    read_only: str = ""
    given: str = ""
    visit: int | None = None
    front: bool = False

    @property
    def point(self) -> tuple[str, Side]:
        """What the model passes there: a module's path, and a side of it."""
        return self.path, self.side


@attrs.frozen(kw_only=True, eq=False)
class Binder:
    """A table, a module, and the numbers of its config.

    Attributes:
        arch: The table.
        module: The model.
        body: Path of the body within it, which tables start at.
        whole: Path of HuggingFace's `base_model`, where the body is a part of it.
        config: HuggingFace's config of the main stack.
        sizes: Its numbers.
        embed: Path of the model's own input embedding; empty without one.
    """

    arch: Architecture
    module: nn.Module
    body: str
    whole: str
    config: Any
    sizes: Sizes
    embed: str

    @property
    def width(self) -> int:
        """Width of the main stack's stream, where blocks differ that of the last."""
        main = self.arch.main
        if main.sized_by:
            return self.width_at(main, blocks_of(self, main)[-1])
        return self.sizes.width(self.config)

    def width_at(self, stack: Stack, path: str) -> int:
        """Width of the stream at a stack's block."""
        norm: Any = find(self.module, joined(path, stack.sized_by))
        if stack.sized_by and norm is not None:
            return int(norm.weight.shape[-1])
        return self.sizes_of(stack).width(self.config_of(stack))

    @property
    def has_encoder(self) -> bool:
        """Whether the model has an encoder beside its main stack."""
        encoder = self.arch.others.get("encoder")
        return encoder is not None and self.has(encoder)

    def has(self, stack: Stack) -> bool:
        """Tell whether the model has a stack."""
        return bool(self.below_body(lists_of(stack.blocks)))

    @property
    def is_causal(self) -> bool:
        """Whether positions of the main stack see only earlier ones."""
        told = self.arch.is_causal
        return bool(getattr(self.config, told, True)) if isinstance(told, str) else told

    def config_of(self, stack: Stack) -> Any:
        """Give the config that describes a stack."""
        whole: Any = self.module.config
        held = (subconfig(one, stack.config) for one in (whole, self.config))
        return next((found for found in held if found is not None), self.config)

    def sizes_of(self, stack: Stack) -> Sizes:
        """Give the numbers of a stack's config."""
        if not stack.sizes:
            return self.sizes
        return attrs.evolve(self.sizes, names={**self.sizes.names, **stack.sizes})

    def at(self, path: Path, base: str = "") -> str:
        """Resolve the alternatives of a path below a base; empty if none is there."""
        return first(self.module, path, base)

    def below_body(self, path: Path) -> str:
        """Resolve a path below the model's body, or below the model."""
        found = (self.at(path, base) for base in self.bases)
        return next(filter(None, found), "")

    @property
    def bases(self) -> tuple[str, ...]:
        """Where a stack's paths may start, the nearest first."""
        return tuple(dict.fromkeys((self.body, self.whole, "")))


def blocks_of(binder: Binder, stack: Stack) -> tuple[str, ...]:
    """List the blocks of a stack's layers: the path of each.

    Raises:
        PathNotFoundError: There is no list of blocks where the table says.
    """
    return tuple(path for path, _ in _layers_of(binder, stack))


def _layers_of(binder: Binder, stack: Stack) -> tuple[tuple[str, int | None], ...]:
    """List the blocks of a stack's layers, and which of a block's runs each is."""
    if stack.rounds is None:
        blocks = _listed(binder, stack.blocks)
        if stack.scattered:
            return tuple((binder.body, None) for _ in blocks)
        times = len(stack.halves) or 1
        return tuple((path, None) for path in blocks for _ in range(times))
    lists = [_listed(binder, path) for path in stack.rounds.lists]
    runs = [0] * len(lists)
    found: list[tuple[str, int | None]] = []
    for which in stack.rounds.order(binder.config_of(stack)):
        found += [(path, runs[which]) for path in lists[which]]
        runs[which] += 1
    return tuple(found)


def _listed(binder: Binder, blocks: Path) -> tuple[str, ...]:
    """List the paths of a list's modules, or of several lists'."""
    names = (blocks,) if isinstance(blocks, str) else blocks
    for name in names:
        for base in binder.bases:
            found = tuple(_children(binder.module, joined(base, name)))
            if found:
                return found
    raise PathNotFoundError(
        model_type=binder.arch.model_types[0],
        base=binder.body,
        paths=names,
        verified=binder.arch.verified,
    )


def _children(module: nn.Module, path: str) -> Iterator[str]:
    """List what the lists at a path hold, `*` standing for every child that fits."""
    before, star, after = path.partition("*")
    if not star:
        found = find(module, path)
        if isinstance(found, nn.ModuleList | nn.Sequential | nn.ModuleDict):
            yield from (f"{path}.{name}" for name, _ in found.named_children())
        return
    base, _, start = before.rpartition(".")
    held = find(module, base)
    for name, _ in held.named_children() if held is not None else ():
        if name.startswith(start):
            yield from _children(module, f"{base}.{name}{after}")


def taps_of(binder: Binder) -> tuple[Tap, ...]:
    """List every tap, in the order of the forward pass.

    Raises:
        PathNotFoundError: A list of blocks is not where the table says.
        UnsupportedConfigError: The table does not fit the module.
    """
    taps: list[Tap] = []
    for name, stack in binder.arch.others.items():
        if binder.has(stack):
            taps += _stack_taps(binder, stack, name)
    taps += _stack_taps(binder, binder.arch.main, "")
    return tuple(taps)


def _stack_taps(binder: Binder, stack: Stack, name: str) -> Iterator[Tap]:
    config = binder.config_of(stack)
    placed = _layers_of(binder, stack)
    layers = [
        _Layer(
            binder=binder,
            config=config,
            words=stack,
            block=kind_of(binder, stack, path, layer),
            path=path,
            stack=name,
            layer=layer,
            visit=visit,
        )
        for layer, (path, visit) in enumerate(placed)
    ]
    first, last = (binder.width_at(stack, placed[end][0]) for end in (0, -1))

    def model_tap(part: str, path: str, side: Side, **more: Any) -> Tap:
        site = Site(part=part, stack=name)
        at = find(binder.module, path)
        own = {"d_model": at.embedding_dim} if isinstance(at, nn.Embedding) else {}
        width = first if part.endswith("embed") else last
        sizes = {"d_model": width, **own, "one": 1}
        front = stack is binder.arch.main and binder.arch.front is not None
        more = {
            "front": front,
            "overhangs": stack.overhangs,
            "given": stack.given,
            **more,
        }
        return Tap(site=site, path=path, side=side, sizes=sizes, **more)

    embed = binder.below_body(stack.embed) or ("" if name else binder.embed)
    if embed:
        factor = number(config, stack.embed_multiplier)
        view = Scaled(factor) if factor != 1.0 else WHOLE
        changes = stack.embed_changes
        yield model_tap(
            "embed",
            embed,
            "out",
            view=view,
            in_place=changes,
            layout=stack.embed_layout,
            visit=0 if stack.overhangs else None,  # what it adds may be embedded apart
        )
    pos_embed = binder.below_body(stack.pos_embed)
    if pos_embed:
        yield model_tap("pos_embed", pos_embed, "out", view=EveryRow())
    for layer in layers:
        yield from layer.taps()
    ln_final = binder.below_body(stack.ln_final)
    if ln_final and not isinstance(find(binder.module, ln_final), nn.Identity):
        visit = placed[-1][1]
        yield model_tap("ln_final_scale", ln_final, "scale", visit=visit)
        changes = stack.ln_final_changes
        yield model_tap(
            "ln_final_normalized", ln_final, "out", visit=visit, in_place=changes
        )


def kind_of(binder: Binder, stack: Stack, path: str, layer: int) -> Block:
    """Pick what one layer of a stack looks like."""
    if stack.halves:
        return stack.halves[layer % len(stack.halves)]
    for block in stack.kinds:
        if not block.needs or binder.at(block.needs, path):
            return block
    raise UnsupportedConfigError(
        binder.arch.model_types[0], f"the block at {path!r} is of no kind in its table"
    )


@attrs.frozen(kw_only=True, eq=False)
class _Layer:
    """One block of a stack, and its taps."""

    binder: Binder
    config: Any
    words: Stack
    block: Block
    path: str
    stack: str
    layer: int
    visit: int | None

    def at(self, path: Path, base: str = "") -> str:
        """Resolve a path below a part of the block, itself a path below the block."""
        names = (path,) if isinstance(path, str) else path
        for word in names:
            name = word.replace("{layer}", str(self.layer))
            name = name.replace("{before}", str(self.layer - 1))
            absolute = name.startswith("/")
            start = self.path if absolute else joined(self.path, base)
            found = self.binder.at(name.removeprefix("/"), start)
            if found:
                return found.removeprefix(f"{self.path}.")
        return ""

    @property
    def sizes(self) -> Sizes:
        """The numbers of its stack."""
        return self.binder.sizes_of(self.words)

    def module(self, path: str) -> Any:
        """Give the module at a path below the block."""
        return find(self.binder.module, joined(self.path, path))

    def tap(self, part: str, path: str, side: Side, **more: Any) -> Tap:
        """Make a tap of this layer."""
        site = Site(part=part, layer=self.layer, stack=self.stack)
        sizes = {
            "one": 1,
            "d_model": self.binder.width_at(self.words, self.path),
            **more.pop("sizes", {}),
        }
        more.setdefault("layout", "bpd" if side in _SQUARE else self.words.layout)
        more.setdefault("overhangs", self.words.overhangs)
        more.setdefault("visit", self.visit)
        main = self.binder.arch.main
        return Tap(
            site=site,
            path=joined(self.path, path),
            side=side,
            sizes=sizes,
            given=self.block.given or self.words.given,
            front=self.words is main and self.binder.arch.front is not None,
            **more,
        )

    def taps(self) -> Iterator[Tap]:
        """List the block's taps in the order of its forward pass."""
        taps = [
            tap
            for tap in self._every()
            if tap.site.part not in self.block.hidden
            and not (self.block.streams and tap.site.part in _ADDED)
        ]
        outs = _ADDED - {"resid_mid"}
        shared = [tap for tap in taps if tap.site.part in outs]
        for tap in taps:
            same = [each for each in shared if each.point == tap.point]
            again = len(same) > 1 and tap in same  # one module, once for each part
            yield attrs.evolve(tap, visit=same.index(tap)) if again else tap

    def _every(self) -> Iterator[Tap]:
        block = self.block
        yield self.passed("pre", block.start, note=self.unjoined)
        for words in block.macaron:
            if self.at(words.path):
                path = self.at(words.added, self.at(words.path)) or self.at(words.path)
                yield self.added("macaron_out", path, multiplier=words.multiplier)
        yield from self.norm("ln1", block.ln1)
        attention = self.chosen(block.attention)
        if attention is not None:
            yield from _Heads(self, attention, "").taps()
        yield from self.mixer()
        has_source = self.binder.has_encoder or any(
            words.given or block.given for words in block.cross
        )
        cross = self.chosen(block.cross) if has_source else None
        if cross is not None:
            yield from _Heads(self, cross, "cross_").taps()
        yield from self.middle()
        yield from self.norm("ln2", block.ln2)
        yield from self.feed_forward()
        for words in block.beside:
            if self.at(words.path):
                yield self.added("dense_out", self.at(words.path))
        note = block.unsummed
        if block.stream_norm:
            note = "a norm stands on the stream itself"
        yield self.passed("post", block.end, note=note)

    def passed(
        self, end: Literal["pre", "post"], place: Place | None, *, note: str = ""
    ) -> Tap:
        """What blocks pass to each other: one stream, or several."""
        side: Side = "in" if end == "pre" else "out"
        path = self.at(place[1]) if place else ""
        side = place[0] if place and path else side
        layout = self.block.streams
        if not layout:
            inner = bool(path) and side == "in"
            return self.tap(
                f"resid_{end}",
                path,
                side,
                note=note,
                rejoins=inner,
                in_place=self.block.stream_changes,
            )
        count = self.sizes.streams(self.config) + (layout == "behind")
        views = {
            "inner": WHOLE,
            "flat": Heads(count),
            "first": StreamsFirst(),
            "behind": StreamsBehind(count),
        }
        sizes = {"stream": count}
        return self.tap(
            f"streams_{end}", path, side, view=views[layout], sizes=sizes, note=note
        )

    @property
    def unjoined(self) -> str:
        """Why what enters is not what the layer before gave."""
        rounds = self.words.rounds
        if rounds is None:
            return self.block.unjoined
        return rounds.between if self.path.rpartition(".")[2] == "0" else ""

    def chosen(self, alternatives: tuple[Attention, ...]) -> Attention | None:
        """Pick the first whose module and output projection are there."""
        for words in alternatives:
            path = self.at(words.path)
            told = self.at(words.needs, path) if words.needs else path
            source = (
                words.q,
                words.v,
                words.kv,
                words.fused.path if words.fused else "",
            )
            # with no paths at all, the projections are no modules
            has_source = not any(source) or any(self.at(way, path) for way in source)
            out = not words.o or self.at(words.o, path)
            if path and told and has_source and out:
                return words
        return None

    def norm(self, word: str, path: Path) -> Iterator[Tap]:
        """A norm's scale and output."""
        at = self.at(path)
        if at and not isinstance(self.module(at), nn.Identity):
            yield self.tap(f"{word}_scale", at, "scale")
            yield self.tap(f"{word}_normalized", at, "out")

    def added(
        self, part: str, path: str, *, multiplier: str | float = "", **more: Any
    ) -> Tap:
        """What the block adds to the stream."""
        factor = number(self.config, multiplier or self.block.multiplier)
        view = Scaled(factor) if factor != 1.0 else WHOLE
        return self.tap(part, path, "out", view=view, **more)

    def mixer(self) -> Iterator[Tap]:
        """A recurrence or a convolution."""
        for words in self.block.mixer:
            path = self.at(words.path)
            out = self.at(words.o, path) if path else ""
            if (
                not path
                or (words.o and not out)
                or (words.needs and not self.at(words.needs, path))
            ):
                continue
            yield self.tap("ssm_in", path, "in")
            yield from self.inner(words, path)
            width = features(self.module(out or path))[0]
            for one in steps_in(self.module(path), words, self.config, width):
                at = joined(path, one.path)
                side: Any = one.side or one.part
                yield self.tap(one.part, at, side, view=one.view, sizes=one.sizes)
            if out:
                yield self.tap("ssm_post", out, "in", sizes={"d_inner": width})
            added = self.at(self.block.ln1_post) or self.at(words.added, path)
            yield self.added("ssm_out", added or path, multiplier=words.multiplier)
            return

    def inner(self, words: Mixer, base: str) -> Iterator[Tap]:
        """The steps inside a recurrence."""
        for part, (side, path) in words.parts.items():
            at = self.at(path, base)
            if at:
                entering, leaving = features(self.module(at))
                width = entering if side == "in" else leaving
                width = width or features(self.module(self.at(words.o, base)))[0]
                (axis,) = {*AXES[part]} - {"batch", "pos"}
                yield self.tap(part, at, side, sizes={axis: width})

    def middle(self) -> Iterator[Tap]:
        """The stream between attention and MLP."""
        block = self.block
        cross_mid = self.at(block.cross_mid) if self.binder.has_encoder else ""
        if cross_mid:
            yield self.mid(cross_mid, "out", rejoins=False)
        elif block.mid is not None:
            side, path = block.mid
            at = self.at(path)
            joins = side == "in" and not self.at(block.ln2)
            if at:
                yield self.mid(at, side, rejoins=joins)
        elif not block.parallel and self.at(block.ln2):
            yield self.mid(self.at(block.ln2), "in", rejoins=True)

    def mid(self, path: str, side: Side, *, rejoins: bool) -> Tap:
        """Where the stream between attention and MLP is met."""
        why = self.block.unsummed if rejoins else ""
        return self.tap("resid_mid", path, side, rejoins=rejoins, read_only=why)

    def feed_forward(self) -> Iterator[Tap]:
        """The MLP or the experts, from the input to what is added."""
        for words in self.block.mlp:
            path = self.at(words.path)
            if words.path and not path:
                continue
            if isinstance(words, Experts):
                if self.at(words.experts, path):
                    yield from self.mixture(words, path)
                    return
            elif self.at(words.down, path):
                taps = self.dense(words, path)
                yield from (t for t in taps if t.site.part not in words.hidden)
                return

    def mixture(self, words: Experts, path: str) -> Iterator[Tap]:
        """A mixture of experts."""
        yield self.tap("mlp_in", path, "in")
        router, experts = self.at(words.router, path), self.at(words.experts, path)
        if router:
            sizes = {"expert": self.n_experts(router, experts)}
            yield self.tap("router_logits", router, "linear", sizes=sizes)
        if hasattr(self.module(experts), "is_transposed"):  # of the experts interface
            yield self.tap("router_weights", experts, "weights", view=Tokens())
            yield self.tap("router_indices", experts, "choices", view=Tokens())
            yield self.tap("expert_out", experts, "experts", view=Tokens())
        shared = self.at(words.shared, path)
        if shared:
            changes = words.shared_changes
            yield self.tap("shared_out", shared, "out", in_place=changes)
        added = self.at(self.block.ln2_post) or self.at(words.added, path)
        yield self.added("mlp_out", added or path)

    def n_experts(self, router: str, experts: str) -> int:
        """How many experts a router scores; 0 where only a run tells."""
        module = self.module(router)
        if isinstance(module, nn.Linear):
            return module.out_features
        weight = getattr(module, "weight", None)
        if weight is not None and weight.ndim == 2:  # noqa: PLR2004 -- a matrix
            return int(weight.shape[0])
        return int(getattr(self.module(experts), "num_experts", 0) or 0)

    def dense(self, words: Mlp, path: str) -> Iterator[Tap]:
        """A dense MLP."""
        up, gate = self.at(words.up, path), self.at(words.gate, path)
        both, down = self.at(words.gate_up, path), self.at(words.down, path)
        width = {"d_mlp": features(self.module(down))[0]}
        yield self.tap("mlp_in", path or up or both, "in")
        if gate:
            yield self.tap("mlp_gate", gate, "out", sizes=width)
        if up:
            yield self.tap("mlp_pre", up, "out", sizes=width)
        elif both:
            gate_half = Half(second=not words.gate_first)
            up_half = Half(second=words.gate_first)
            yield self.tap("mlp_gate", both, "out", view=gate_half, sizes=width)
            yield self.tap("mlp_pre", both, "out", view=up_half, sizes=width)
        yield self.tap("mlp_post", down, "in", sizes=width)
        changed = words.changed_in_place
        yield self.tap("mlp_proj", down, "out", in_place=changed)
        added = self.at(self.block.ln2_post) or self.at(words.added, path)
        yield self.added(
            "mlp_out",
            added or path or down,
            multiplier=words.multiplier,
            in_place=changed,
        )


@attrs.frozen
class _Heads:
    """The attention of a layer, and its taps."""

    layer: _Layer
    words: Attention
    prefix: str

    def taps(self) -> Iterator[Tap]:
        """From the attention's input to what is added."""
        for tap in self._every():
            name = tap.site.part.removeprefix("cross_")
            if name not in self.words.hidden:
                given = self.words.given or tap.given
                yield attrs.evolve(tap, given=given)

    def _every(self) -> Iterator[Tap]:
        words, path = self.words, self._path
        merged = {"overhangs": True} if words.merged else {}
        yield from self._inputs()
        if words.has_rotary:
            sizes = self._sizes(self._n_heads)
            yield self._tap("rot_q", path, "rot_q", view=Swapped(), sizes=sizes)
            repeats = self._n_heads // self._n_kv_heads if words.repeats_keys else 1
            sizes = self._sizes(self._n_kv_heads, kv=True)
            yield self._tap(
                "rot_k",
                path,
                "rot_k",
                view=Swapped(repeats),
                all_keys=True,
                sizes=sizes,
                **merged,
            )
        sink = (
            getattr(self.layer.module(path), words.sink, None) if words.sink else None
        )
        view = Square() if sink is None else BeforeSink()
        note = words.lossy if sink is None else "an attention sink"
        note = "the encoder's keys share each row" if words.merged else note
        sizes = {"head": self._n_heads}
        if words.more_keys:
            sizes = {**sizes, "key": "keys"}
        scores = f"{'' if self.prefix else 'attn_'}scores"
        yield self._tap(scores, path, "scores", view=view, sizes=sizes, **merged)
        yield self._tap(
            "pattern",
            path,
            "pattern",
            view=view,
            sizes=sizes,
            note=note,
            by_name=words.asks_by_name,
            in_place=words.pattern_changes,
            **merged,
        )
        if words.o:
            yield from self._outputs()

    def _inputs(self) -> Iterator[Tap]:
        words, path = self.words, self._path
        if not self.prefix:
            yield self._tap("attn_in", path, "in")
        for part, latent in (
            ("q_latent", words.q_latent),
            ("kv_latent", words.kv_latent),
        ):
            at = self._at(latent)
            if at:
                norm = self.layer.module(at)
                sizes = {"d_latent": int(norm.weight.shape[-1])}
                yield self._tap(part, at, "out", sizes=sizes)
        fused = self._at(words.fused.path) if words.fused else ""
        if words.fused is None or not fused:
            yield from self._separate()
            return
        if "q" not in words.fused.order:
            yield from self._of_their_own((("q", words.q),))
        yield from self._fused(fused)

    def _separate(self) -> Iterator[Tap]:
        words = self.words
        yield from self._of_their_own((("q", words.q), ("k", words.k), ("v", words.v)))
        both = self._at(words.kv)
        if both:
            count = self._n_kv_heads
            width = features(self.layer.module(both))[1] // count
            d_value = features(self.layer.module(self._at(words.o)))[0] // self._n_heads
            view = HeadPart(count, width - d_value, width)
            sizes = self._axes("v", count, d_value)
            yield self._tap("v", both, "out", view=view, sizes=sizes, all_keys=True)

    def _of_their_own(self, parts: tuple[tuple[str, Path], ...]) -> Iterator[Tap]:
        """Projections that make one part each."""
        words = self.words
        for part, path in parts:
            at = self._at(path)
            if not at:
                continue
            count = self._n_heads if part == "q" else self._n_kv_heads
            width = features(self.layer.module(at))[1]
            view: View = Heads(count)
            if part == "q" and words.gated_query:
                width //= 2
                view = HeadPart(count, 0, width // count)
            sizes = self._axes(part, count, width // count)
            more: dict[str, Any] = {"visit": 0} if words.again or words.merged else {}
            more |= {"layout": words.layout} if words.layout else {}
            in_place = words.changed_in_place
            yield self._tap(
                part, at, "out", view=view, sizes=sizes, in_place=in_place, **more
            )

    def _fused(self, path: str) -> Iterator[Tap]:
        words = self.words
        if words.fused is None:
            return
        heads, groups = self._n_heads, self._n_kv_heads
        times = words.fused.groups or (groups if words.fused.by_group else 1)
        counts = {"q": heads // times, "k": groups // times, "v": groups // times}
        total, start = sum(counts[part] for part in words.fused.order), 0
        width = features(self.layer.module(path))[1] // (total * times)
        for part in words.fused.order:
            view = Slots(times, total, start, start + counts[part])
            start += counts[part]
            sizes = self._axes(part, heads if part == "q" else groups, width)
            in_place = words.changed_in_place
            yield self._tap(
                part, path, "out", view=view, sizes=sizes, in_place=in_place
            )

    def _outputs(self) -> Iterator[Tap]:
        words, layer = self.words, self.layer
        out = self._at(words.o)
        count = self._n_heads * words.times
        mixed = self._at(words.z) or out
        sizes = self._axes("q", count, features(layer.module(mixed))[0] // count)
        note = words.changes
        if words.changed_in_place:
            note = "values change in place between projection and mixing"
        note = "the encoder's values are mixed in" if words.merged else note
        laid: dict[str, Any] = {"layout": words.out_layout} if words.out_layout else {}
        view = Heads(count)
        yield self._tap("z", mixed, "in", view=view, sizes=sizes, note=note, **laid)
        if not self.prefix:
            if mixed == out and not unreadable(layer.module(out)):
                sizes = {"head": count}
                yield self._tap(
                    "head_result", out, "heads", view=view, sizes=sizes, **laid
                )
            yield self._tap("attn_proj", out, "out", **laid)
        post = "" if self.prefix else layer.at(layer.block.ln1_post)
        added = post or self._at(words.added) or self._path
        tap = layer.added("attn_out", added, multiplier=words.multiplier)
        yield attrs.evolve(tap, site=self._site("out" if self.prefix else "attn_out"))

    @property
    def _path(self) -> str:
        return self.layer.at(self.words.path)

    def _at(self, path: Path) -> str:
        return self.layer.at(path, self._path)

    @property
    def _d_head(self) -> int:
        module = self.layer.module(self._path)
        return self.layer.sizes.head_width(module, self.layer.config)

    @property
    def _n_heads(self) -> int:
        at = self._at(self.words.q)
        if not at or not self._d_head:
            return self.layer.sizes.heads(self.layer.config)
        width = features(self.layer.module(at))[1]
        return width // self._d_head // (2 if self.words.gated_query else 1)

    @property
    def _n_kv_heads(self) -> int:
        words = self.words
        fused = self._at(words.fused.path) if words.fused else ""
        if fused and self._d_head:
            width = features(self.layer.module(fused))[1]
            own = self._n_heads if words.fused and "q" in words.fused.order else 0
            return (width // self._d_head - own) // 2
        at = self._at(words.k) or ("" if words.kv else self._at(words.v))
        if not at or not self._d_head:
            module = self.layer.module(self._path)
            return self.layer.sizes.kv_heads(module, self.layer.config, self._n_heads)
        return features(self.layer.module(at))[1] // self._d_head

    def _sizes(self, count: int, *, kv: bool = False) -> dict[str, int]:
        return {"kv_head" if kv else "head": count, "d_head": self._d_head}

    def _axes(self, part: str, count: int, width: int) -> dict[str, int]:
        return {"head" if part == "q" else "kv_head": count, "d_head": width}

    def _site(self, part: str) -> Site:
        layer = self.layer
        return Site(part=self.prefix + part, layer=layer.layer, stack=layer.stack)

    def _tap(self, part: str, path: str, side: Side, **more: Any) -> Tap:
        return self.layer.tap(self.prefix + part, path, side, **more)
