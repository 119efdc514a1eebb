"""Weights under the field's names, with one orientation: input first, output last.

Every function of layers takes a `layer` and a `stack`. What is given for one layer is a
view of the model's own tensor where its layout allows; the stack over layers is a copy.
Values are read-only by contract: nothing written to them is meant to reach the model.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import attrs
import torch
from jaxtyping import Float
from torch import Tensor, nn

from funlens.adapters._expert_weights import expert_bias, expert_weight, experts_of
from funlens.adapters._machinery import Machinery
from funlens.adapters._matrices import acting_bias, acting_weight
from funlens.adapters._tree import find
from funlens.adapters._views import in_whole, input_by_output
from funlens.data import ModelSpec, Site
from funlens.errors import OptionError, UnsupportedConfigError

_Cut: TypeAlias = Callable[[ModelSpec, int, str], Tensor]

_ASK_SITES: Final = "See `funlens.sites(spec)` for what it has."
_ASK_LAYER: Final = "Ask for one layer at a time, with `layer=`."


def W_E(spec: ModelSpec) -> Float[Tensor, "vocab d_embed"]:
    """Give the token embedding, as stored: before any multiplier, norm or projection.

    It is the model's own tensor.
    """
    return _weight(spec, spec.engine.binder.embed)


def W_pos(spec: ModelSpec) -> Float[Tensor, "n_ctx d_model"]:
    """Give the learned position embedding: row 0 is position 0.

    It is the model's own tensor, without rows that belong to no position.

    Raises:
        UnsupportedConfigError: The model has none.
    """
    machinery: Machinery = spec.engine
    path = machinery.binder.below_body(machinery.arch.main.pos_embed)
    # OPT's and BART's tables begin with rows for padding, and say how many
    first = getattr(_module(spec, path), "offset", machinery.first_position)
    return _weight(spec, path)[int(first) :]


def W_E_pos(spec: ModelSpec) -> Float[Tensor, "token_or_pos d_model"]:
    """Give both embeddings, one above the other: all that the first layer can read.

    It is a copy.

    Raises:
        UnsupportedConfigError: The model has no learned positions, or its token
            embedding has another width than the stream.
    """
    tokens, positions = W_E(spec), W_pos(spec)
    if tokens.shape[1] != positions.shape[1]:
        raise UnsupportedConfigError(
            spec.model_type,
            f"its token embedding is {tokens.shape[1]} wide and its positions are "
            f"{positions.shape[1]}",
            "Ask for `W_E` and `W_pos`.",
        )
    return torch.cat([tokens, positions])


def W_U(spec: ModelSpec) -> Float[Tensor, "d_embed vocab"]:
    """Give the unembedding, before any cap or scale of the logits.

    It is a view of the model's own tensor.
    """
    return input_by_output(_module(spec, spec.engine.unembed))


def b_U(spec: ModelSpec) -> Float[Tensor, " vocab"]:
    """Give the unembedding's bias; zeros where there is none."""
    return _bias(_module(spec, spec.engine.unembed))


def W_Q(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer head d_model d_head"]:
    """Give the query weights.

    Args:
        spec: The model.
        layer: The layer; all of them if left out.
        stack: `"encoder"` for the one beside the main stack.

    Returns:
        `[head, d_model, d_head]` of one layer, a view where queries do not lie between
        keys and values; `[layer, head, d_model, d_head]`, a copy, of all layers.

    Raises:
        UnsupportedConfigError: A layer has no such weight, or layers differ in shape.
        OptionError: There is no such layer or stack.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> fl.W_Q(spec).shape
        torch.Size([4, 4, 128, 32])
        >>> fl.W_Q(spec, 3).shape
        torch.Size([4, 128, 32])
    """
    return _over_layers(spec, partial(_head_weight, part="q"), layer, stack)


def W_K(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer kv_head d_model d_head"]:
    """Give the key weights, as `W_Q`; a head that several queries share stands once."""
    return _over_layers(spec, partial(_head_weight, part="k"), layer, stack)


def W_V(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer kv_head d_model d_head"]:
    """Give the value weights, as `W_Q`; a head that several queries share stands once.

    Query head `h` of `n` looks at key and value head `h * kv_heads // n`.
    """
    return _over_layers(spec, partial(_head_weight, part="v"), layer, stack)


def W_O(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer head d_head d_model"]:
    """Give the output weights of each head, as `W_Q`."""
    return _over_layers(spec, _output_weight, layer, stack)


def b_Q(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer head d_head"]:
    """Give the query biases, as `W_Q`; zeros where there are none."""
    return _over_layers(spec, partial(_site_bias, part="q"), layer, stack)


def b_K(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer kv_head d_head"]:
    """Give the key biases, as `W_K`; zeros where there are none."""
    return _over_layers(spec, partial(_site_bias, part="k"), layer, stack)


def b_V(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer kv_head d_head"]:
    """Give the value biases, as `W_V`; zeros where there are none."""
    return _over_layers(spec, partial(_site_bias, part="v"), layer, stack)


def b_O(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer d_model"]:
    """Give the output biases of attention, as `W_O`; zeros where there are none."""
    return _over_layers(spec, partial(_site_bias, part="attn_proj"), layer, stack)


def W_in(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer_expert d_model d_mlp"]:
    """Give the MLP's first projection; on gated ones, not the gate.

    A mixture of experts has `[expert, d_model, d_mlp]`, its shared expert left out.

    Args:
        spec: The model.
        layer: The layer; all of them if left out.
        stack: `"encoder"` for the one beside the main stack.

    Returns:
        `[d_model, d_mlp]` of one layer, a view; with a layer axis, a copy, of all.

    Raises:
        UnsupportedConfigError: A layer has no such weight, or layers differ in shape,
            as a dense one and a mixture.
        OptionError: There is no such layer or stack.
    """
    return _over_layers(spec, partial(_mlp_weight, part="mlp_pre"), layer, stack)


def W_gate(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer_expert d_model d_mlp"]:
    """Give the MLP's gate, as `W_in`.

    Raises:
        UnsupportedConfigError: The MLPs have none, or layers differ.
    """
    return _over_layers(spec, partial(_mlp_weight, part="mlp_gate"), layer, stack)


def W_out(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer_expert d_mlp d_model"]:
    """Give the MLP's last projection, as `W_in`."""
    return _over_layers(spec, partial(_mlp_weight, part="mlp_proj"), layer, stack)


def b_in(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer_expert d_mlp"]:
    """Give the biases that go with `W_in`; zeros where there are none."""
    return _over_layers(spec, partial(_mlp_bias, part="mlp_pre"), layer, stack)


def b_gate(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer_expert d_mlp"]:
    """Give the biases that go with `W_gate`; zeros where there are none."""
    return _over_layers(spec, partial(_mlp_bias, part="mlp_gate"), layer, stack)


def b_out(
    spec: ModelSpec, layer: int | None = None, *, stack: str = ""
) -> Float[Tensor, "*layer_expert d_model"]:
    """Give the biases that go with `W_out`; zeros where there are none."""
    return _over_layers(spec, partial(_mlp_bias, part="mlp_proj"), layer, stack)


def _over_layers(spec: ModelSpec, cut: _Cut, layer: int | None, stack: str) -> Tensor:
    """Give one layer's weight, or those of all layers in a stack."""
    n_layers = _n_layers(spec, stack)
    if layer is not None:
        if not 0 <= layer < n_layers:
            problem = f"layer {layer} of {n_layers}"
            raise OptionError("layer", problem, (f"0..{n_layers - 1}",))
        return cut(spec, layer, stack)
    each = [cut(spec, at, stack) for at in range(n_layers)]
    shapes = dict.fromkeys(tuple(weight.shape) for weight in each)
    if len(shapes) > 1:
        problem = f"its layers' weights differ in shape: {', '.join(map(str, shapes))}"
        raise UnsupportedConfigError(spec.model_type, problem, _ASK_LAYER)
    devices = dict.fromkeys(str(weight.device) for weight in each)
    if len(devices) > 1:
        problem = f"its layers are on several devices, {', '.join(devices)}"
        raise UnsupportedConfigError(spec.model_type, problem, _ASK_LAYER)
    return torch.stack(each)


def _n_layers(spec: ModelSpec, stack: str) -> int:
    machinery: Machinery = spec.engine
    blocks = [site for site in machinery.taps if site.part == "resid_pre"]
    n_layers = sum(site.stack == stack for site in blocks)
    if not n_layers:
        stacks = tuple(dict.fromkeys(site.stack for site in blocks))
        raise OptionError("stack", f"the model has no stack {stack!r}", stacks)
    return n_layers


def _site(spec: ModelSpec, part: str, layer: int, stack: str) -> Site:
    """Find the site that a weight makes or is applied to."""
    machinery: Machinery = spec.engine
    site = Site(part=part, layer=layer, stack=stack)
    if site in machinery.taps:
        return site
    others = [
        str(each.layer)
        for each in machinery.taps
        if each.part == part and each.stack == stack
    ]
    raise UnsupportedConfigError(
        spec.model_type,
        f"layer {layer} has no {part}, so it has no such weight",
        f"Layers {', '.join(others)} have it: ask for one of them with `layer=`."
        if others
        else _ASK_SITES,
    )


def _module(spec: ModelSpec, path: str) -> nn.Module:
    machinery: Machinery = spec.engine
    at = find(machinery.module, path) if path else None
    if at is None:
        raise UnsupportedConfigError(
            spec.model_type, "it has no such weight", _ASK_SITES
        )
    return at


def _weight(spec: ModelSpec, path: str) -> Tensor:
    return acting_weight(_module(spec, path))


def _bias(at: nn.Module) -> Tensor:
    bias = acting_bias(at)
    if bias is not None:
        return bias
    weight = input_by_output(at)
    return torch.zeros(weight.shape[-1], dtype=weight.dtype, device=weight.device)


def _cut_out(spec: ModelSpec, site: Site, raw: Tensor) -> Tensor:
    """Cut a site's own columns out of a weight, as out of an activation."""
    machinery: Machinery = spec.engine
    return in_whole(machinery.taps[site].view).read(raw[None], 1)[0]


def _projection(spec: ModelSpec, site: Site) -> nn.Module:
    machinery: Machinery = spec.engine
    return _module(spec, machinery.taps[site].path)


def _head_weight(spec: ModelSpec, layer: int, stack: str, *, part: str) -> Tensor:
    site = _site(spec, part, layer, stack)
    latent = attrs.evolve(site, part="q_latent" if part == "q" else "kv_latent")
    if latent in spec.engine.taps:
        raise UnsupportedConfigError(
            spec.model_type,
            f"{site} is made from {latent}, behind a norm, so that no matrix leads "
            "to it from the stream",
            "Take the two projections from `spec.module`.",
        )
    weight = input_by_output(_projection(spec, site))
    return _cut_out(spec, site, weight).transpose(0, 1)


def _site_bias(spec: ModelSpec, layer: int, stack: str, *, part: str) -> Tensor:
    site = _site(spec, part, layer, stack)
    return _cut_out(spec, site, _bias(_projection(spec, site))[None])[0]


def _output_weight(spec: ModelSpec, layer: int, stack: str) -> Tensor:
    site = _site(spec, "z", layer, stack)
    projection = _projection(spec, _site(spec, "attn_proj", layer, stack))
    return _cut_out(spec, site, input_by_output(projection).mT).permute(1, 2, 0)


def _dense_weight(spec: ModelSpec, layer: int, stack: str, *, part: str) -> Tensor:
    site = _site(spec, part, layer, stack)
    return _cut_out(spec, site, input_by_output(_projection(spec, site)))


def _mlp_weight(spec: ModelSpec, layer: int, stack: str, *, part: str) -> Tensor:
    experts = experts_of(spec.engine, layer, stack)
    if experts:
        return expert_weight(spec.engine, experts, part)
    return _dense_weight(spec, layer, stack, part=part)


def _mlp_bias(spec: ModelSpec, layer: int, stack: str, *, part: str) -> Tensor:
    experts = experts_of(spec.engine, layer, stack)
    if experts:
        return expert_bias(spec.engine, experts, part)
    return _site_bias(spec, layer, stack, part=part)
