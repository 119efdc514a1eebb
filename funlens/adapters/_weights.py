"""Weights under the field's names, with one orientation: input first, output last.

What is given for one layer is a view of the model's own tensor where its layout allows;
the stack over layers is a copy. Values are read-only by contract: nothing written to
them is meant to reach the model.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from funlens.adapters._machinery import Machinery
from funlens.adapters._matrices import acting_bias, acting_weight
from funlens.adapters._tree import find
from funlens.adapters._views import input_by_output
from funlens.data import ModelSpec, Site
from funlens.errors import UnsupportedConfigError

_OPT_OFFSET = 2  # OPT leaves the first two rows of its positions unused


def W_E(spec: ModelSpec) -> Float[Tensor, "vocab d_embed"]:
    """Give the token embedding, as stored: before any multiplier or projection."""
    return _weight(spec, spec.engine.binder.embed)


def W_pos(spec: ModelSpec) -> Float[Tensor, "n_ctx d_model"]:
    """Give the learned position embedding.

    Raises:
        UnsupportedConfigError: The model has none.
    """
    weight = _weight(
        spec, spec.engine.binder.below_body(spec.engine.arch.main.pos_embed)
    )
    return weight[_OPT_OFFSET:] if spec.model_type == "opt" else weight


def W_U(spec: ModelSpec) -> Float[Tensor, "d_embed vocab"]:
    """Give the unembedding."""
    return _weight(spec, spec.engine.unembed).mT


def W_Q(spec: ModelSpec) -> Float[Tensor, "layer head d_model d_head"]:
    """Give the query weights of every layer that has attention."""
    return _heads(spec, "q")


def W_K(spec: ModelSpec) -> Float[Tensor, "layer kv_head d_model d_head"]:
    """Give the key weights; grouped heads stand once."""
    return _heads(spec, "k")


def W_V(spec: ModelSpec) -> Float[Tensor, "layer kv_head d_model d_head"]:
    """Give the value weights; grouped heads stand once."""
    return _heads(spec, "v")


def b_Q(spec: ModelSpec) -> Float[Tensor, "layer head d_head"]:
    """Give the query biases; zeros where there are none."""
    return _biases(spec, "q")


def b_K(spec: ModelSpec) -> Float[Tensor, "layer kv_head d_head"]:
    """Give the key biases; zeros where there are none."""
    return _biases(spec, "k")


def b_V(spec: ModelSpec) -> Float[Tensor, "layer kv_head d_head"]:
    """Give the value biases; zeros where there are none."""
    return _biases(spec, "v")


def W_O(spec: ModelSpec) -> Float[Tensor, "layer head d_head d_model"]:
    """Give the output weights of each head."""
    weights = [input_by_output(at) for at in _modules(spec, "attn_proj")]
    return torch.stack([_split(weight, spec.n_heads) for weight in weights])


def b_O(spec: ModelSpec) -> Float[Tensor, "layer d_model"]:
    """Give the output biases of attention; zeros where there are none."""
    return torch.stack([_bias(at) for at in _modules(spec, "attn_proj")])


def W_in(spec: ModelSpec) -> Float[Tensor, "layer d_model d_mlp"]:
    """Give the first projection of every layer's MLP; on gated ones, not the gate."""
    return _dense(spec, "mlp_pre")


def W_gate(spec: ModelSpec) -> Float[Tensor, "layer d_model d_mlp"]:
    """Give the gates of every layer's MLP.

    Raises:
        UnsupportedConfigError: The MLPs have none.
    """
    return _dense(spec, "mlp_gate")


def W_out(spec: ModelSpec) -> Float[Tensor, "layer d_mlp d_model"]:
    """Give the last projection of every layer's MLP."""
    return _dense(spec, "mlp_proj")


def b_in(spec: ModelSpec) -> Float[Tensor, "layer d_mlp"]:
    """Give the biases of the MLPs' first projections; zeros where there are none."""
    return _biases(spec, "mlp_pre")


def b_out(spec: ModelSpec) -> Float[Tensor, "layer d_model"]:
    """Give the biases of the MLPs' last projections; zeros where there are none."""
    return _biases(spec, "mlp_proj")


def _sites(spec: ModelSpec, part: str) -> list[Site]:
    machinery: Machinery = spec.engine
    found = [site for site in machinery.taps if site.part == part and not site.stack]
    if not found:
        raise UnsupportedConfigError(
            spec.model_type,
            f"no layer has {part}, so it has no such weight",
            "See `funlens.sites(spec)` for what it has.",
        )
    return found


def _module(spec: ModelSpec, path: str) -> nn.Module:
    machinery: Machinery = spec.engine
    at = find(machinery.module, path) if path else None
    if at is None:
        raise UnsupportedConfigError(
            spec.model_type,
            "it has no such weight",
            "See `funlens.sites(spec)` for what it has.",
        )
    return at


def _modules(spec: ModelSpec, part: str) -> list[nn.Module]:
    machinery: Machinery = spec.engine
    return [_module(spec, machinery.taps[site].path) for site in _sites(spec, part)]


def _weight(spec: ModelSpec, path: str) -> Tensor:
    return acting_weight(_module(spec, path))


def _bias(at: nn.Module) -> Tensor:
    bias = acting_bias(at)
    if bias is not None:
        return bias
    weight = input_by_output(at)
    return torch.zeros(weight.shape[-1], dtype=weight.dtype, device=weight.device)


def _viewed(spec: ModelSpec, site: Site, raw: Tensor) -> Tensor:
    """Cut a site's own columns out of a weight, as out of an activation."""
    machinery: Machinery = spec.engine
    return machinery.taps[site].view.read(raw[None], 1)[0]


def _heads(spec: ModelSpec, part: str) -> Tensor:
    pairs = zip(_sites(spec, part), _modules(spec, part), strict=True)
    split = [_viewed(spec, site, input_by_output(at)) for site, at in pairs]
    return torch.stack([each.transpose(0, 1) for each in split])


def _biases(spec: ModelSpec, part: str) -> Tensor:
    pairs = zip(_sites(spec, part), _modules(spec, part), strict=True)
    return torch.stack([_viewed(spec, site, _bias(at)[None])[0] for site, at in pairs])


def _dense(spec: ModelSpec, part: str) -> Tensor:
    sites = _sites(spec, part)
    if len(sites) < spec.n_layers:
        raise UnsupportedConfigError(
            spec.model_type,
            f"only {len(sites)} of {spec.n_layers} layers have {part}",
            "Weights of mixtures of experts are not given yet.",
        )
    pairs = zip(sites, _modules(spec, part), strict=True)
    return torch.stack([_viewed(spec, site, input_by_output(at)) for site, at in pairs])


def _split(weight: Tensor, n_heads: int) -> Tensor:
    return weight.reshape(n_heads, -1, weight.shape[-1])
