"""The taps of a layer's MLP, dense or a mixture."""

from collections.abc import Iterator

from torch import nn

from funlens.adapters._language import (
    Experts,
    Mlp,
)
from funlens.adapters._layer import Layer
from funlens.adapters._tap import Tap
from funlens.adapters._tree import (
    features,
)
from funlens.adapters._views import (
    Half,
    Tokens,
)


def mlp_taps(layer: Layer) -> Iterator[Tap]:
    """The MLP or the experts, from the input to what is added."""
    for words in layer.block.mlp:
        path = layer.at(words.path)
        if words.path and not path:
            continue
        if isinstance(words, Experts):
            if layer.at(words.experts, path):
                yield from _mixture(layer, words, path)
                return
        elif layer.at(words.down, path):
            taps = _dense(layer, words, path)
            yield from (t for t in taps if t.site.part not in words.hidden)
            return


def _mixture(layer: Layer, words: Experts, path: str) -> Iterator[Tap]:
    """A mixture of experts."""
    yield layer.tap("mlp_in", path, "in")
    router, experts = layer.at(words.router, path), layer.at(words.experts, path)
    if router:
        sizes = {"expert": _n_experts(layer, router, experts)}
        yield layer.tap("router_logits", router, "linear", sizes=sizes)
    if hasattr(layer.module(experts), "is_transposed"):  # of the experts interface
        yield layer.tap("router_weights", experts, "weights", view=Tokens())
        yield layer.tap("router_indices", experts, "choices", view=Tokens())
        yield layer.tap("expert_out", experts, "experts", view=Tokens())
    shared = layer.at(words.shared, path)
    if shared:
        changes = words.shared_changes
        yield layer.tap("shared_out", shared, "out", in_place=changes)
    added = layer.at(layer.block.ln2_post) or layer.at(words.added, path)
    yield layer.added("mlp_out", added or path)


def _n_experts(layer: Layer, router: str, experts: str) -> int:
    """How many experts a router scores; 0 where only a run tells."""
    module = layer.module(router)
    if isinstance(module, nn.Linear):
        return module.out_features
    weight = getattr(module, "weight", None)
    if weight is not None and weight.ndim == 2:  # noqa: PLR2004 -- a matrix
        return int(weight.shape[0])
    return int(getattr(layer.module(experts), "num_experts", 0) or 0)


def _dense(layer: Layer, words: Mlp, path: str) -> Iterator[Tap]:
    """A dense MLP."""
    up, gate = layer.at(words.up, path), layer.at(words.gate, path)
    both, down = layer.at(words.gate_up, path), layer.at(words.down, path)
    width = {"d_mlp": features(layer.module(down))[0]}
    yield layer.tap("mlp_in", path or up or both, "in")
    if gate:
        yield layer.tap("mlp_gate", gate, "out", sizes=width)
    if up:
        yield layer.tap("mlp_pre", up, "out", sizes=width)
    elif both:
        gate_half = Half(second=not words.gate_first)
        up_half = Half(second=words.gate_first)
        yield layer.tap("mlp_gate", both, "out", view=gate_half, sizes=width)
        yield layer.tap("mlp_pre", both, "out", view=up_half, sizes=width)
    yield layer.tap("mlp_post", down, "in", sizes=width)
    changed = words.changed_in_place
    yield layer.tap("mlp_proj", down, "out", in_place=changed)
    added = layer.at(layer.block.ln2_post) or layer.at(words.added, path)
    yield layer.added(
        "mlp_out",
        added or path or down,
        multiplier=words.multiplier,
        in_place=changed,
    )
