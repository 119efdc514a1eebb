"""From a table and a module to taps: where each site is met."""

from collections.abc import Iterator
from typing import Any, Final

import attrs
from torch import nn

from funlens.adapters._binder import Binder, kind_of, layers_of
from funlens.adapters._language import (
    Stack,
)
from funlens.adapters._layer import Layer
from funlens.adapters._tap import Side, Tap
from funlens.adapters._taps_attention import AttentionTaps
from funlens.adapters._taps_mlp import mlp_taps
from funlens.adapters._tree import (
    find,
    number,
)
from funlens.adapters._views import (
    WHOLE,
    EveryRow,
    Scaled,
)
from funlens.data import Site

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
    placed = layers_of(binder, stack)
    layers = [
        Layer(
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
        yield from _block_taps(layer)
    ln_final = binder.below_body(stack.ln_final)
    if ln_final and not isinstance(find(binder.module, ln_final), nn.Identity):
        visit = placed[-1][1]
        yield model_tap("ln_final_scale", ln_final, "scale", visit=visit)
        changes = stack.ln_final_changes
        yield model_tap(
            "ln_final_normalized", ln_final, "out", visit=visit, in_place=changes
        )


def _block_taps(layer: Layer) -> Iterator[Tap]:
    """List the block's taps in the order of its forward pass."""
    taps = [
        tap
        for tap in _every(layer)
        if tap.site.part not in layer.block.hidden
        and not (layer.block.streams and tap.site.part in _ADDED)
    ]
    outs = _ADDED - {"resid_mid"}
    shared = [tap for tap in taps if tap.site.part in outs]
    for tap in taps:
        same = [each for each in shared if each.point == tap.point]
        again = len(same) > 1 and tap in same  # one module, once for each part
        yield attrs.evolve(tap, visit=same.index(tap)) if again else tap


def _every(layer: Layer) -> Iterator[Tap]:
    block = layer.block
    yield layer.passed("pre", block.start, note=layer.unjoined)
    for words in block.macaron:
        if layer.at(words.path):
            path = layer.at(words.added, layer.at(words.path)) or layer.at(words.path)
            yield layer.added("macaron_out", path, multiplier=words.multiplier)
    yield from layer.norm("ln1", block.ln1)
    attention = layer.chosen(block.attention)
    if attention is not None:
        yield from AttentionTaps(layer, attention, "").taps()
    yield from layer.mixer()
    has_source = layer.binder.has_encoder or any(
        words.given or block.given for words in block.cross
    )
    cross = layer.chosen(block.cross) if has_source else None
    if cross is not None:
        yield from AttentionTaps(layer, cross, "cross_").taps()
    yield from layer.middle()
    yield from layer.norm("ln2", block.ln2)
    yield from mlp_taps(layer)
    for words in block.beside:
        if layer.at(words.path):
            yield layer.added("dense_out", layer.at(words.path))
    note = block.unsummed
    if block.stream_norm:
        note = "a norm stands on the stream itself"
    yield layer.passed("post", block.end, note=note)
