"""What a user writes, with the types that an editor shows; checked, not run."""

from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from torch import Tensor, nn

import funlens as fl

# loading

spec = fl.load("builtin:tiny", dtype=torch.float32, device="cpu", n_ctx=64)
module: nn.Module = nn.Linear(1, 1)
described = fl.from_module(module, name="mine")
assert_type(spec, fl.ModelSpec)
assert_type(described, fl.ModelSpec)
assert_type(spec.n_layers, int)
assert_type(spec.n_ctx, int | None)
assert_type(spec.dtype, torch.dtype)
assert_type(spec.module, nn.Module)
assert_type(fl.sites(spec), tuple[fl.SiteInfo, ...])
assert_type(fl.sites(spec)[0].site, fl.Site)
assert_type(fl.supported(), tuple[fl.Support, ...])

# tokens

tokens = fl.to_tokens(spec, ["one", "two"], padding_side="left")
assert_type(tokens, Tensor)
assert_type(fl.to_str_tokens(spec, tokens[0]), tuple[str, ...])
assert_type(fl.to_string(spec, tokens[0]), str)
assert_type(fl.to_strings(spec, tokens), tuple[str, ...])
assert_type(fl.to_single_token(spec, " the"), int)
assert_type(fl.tokens_to_directions(spec, " the"), Tensor)

# sites

assert_type(fl.resid_pre, fl.Part)
assert_type(fl.z(1, head=2, pos=-1), fl.Site)
assert_type(fl.pattern(1, query=slice(1, None), key=(0, 2)), fl.Site)
assert_type(fl.resid_post(0, pos=torch.tensor([1, 2])), fl.Site)
assert_type(fl.resid_post(0, pos=fl.generated), fl.Site)
assert_type(fl.embed(), fl.Site)
assert_type(fl.encoder.resid_post(0), fl.Site)
assert_type(fl.Site.parse("blocks.0.attn.hook_z"), fl.Site)
assert_type(str(fl.z(1)), str)

# running

logits = fl.run(spec, tokens)
run = fl.run_with_cache(spec, tokens, capture=[fl.resid_post, fl.pattern(1), "z.0"])
assert_type(logits, Tensor)
assert_type(run, fl.Run)
assert_type(run.logits, Tensor)
assert_type(run.cache, fl.ActivationCache)
_, cache = run
assert_type(cache, fl.ActivationCache)
assert_type(fl.run(spec, "text", stop_at_layer=1), Tensor)
assert_type(fl.run(spec, ["a", "b"], logits_at=-1), Tensor)
assert_type(fl.run(spec, {"input_ids": tokens, "attention_mask": tokens}), Tensor)
assert_type(fl.run(spec, tokens, start_at_layer=1, residual=logits), Tensor)
assert_type(fl.run(spec, tokens, params={"a": logits}, grad=True, finite=True), Tensor)
assert_type(fl.run_with_cache(spec, tokens, offload="cpu", capture=fl.EVERY), fl.Run)
assert_type(fl.loss(spec, tokens), Tensor)
assert_type(fl.loss_per_token(spec, tokens), Tensor)

# the cache, by every kind of name

assert_type(cache[fl.pattern(1)], Tensor)
assert_type(cache[fl.pattern(1, head=0, query=-1)], Tensor)
assert_type(cache["resid_post.0"], Tensor)
assert_type(cache["blocks.0.attn.hook_pattern"], Tensor)
assert_type(cache["pattern", 1], Tensor)
assert_type(cache.get(fl.z(0)), Tensor | None)
assert_type(fl.z(0) in cache, bool)
assert_type(list(cache), list[fl.Site])
assert_type(dict(cache), dict[fl.Site, Tensor])
assert_type(cache.stack(fl.resid_post), Tensor)
assert_type(cache.to("cpu"), fl.ActivationCache)
assert_type(cache.rows(0, 1), fl.ActivationCache)
assert_type(cache.positions(1, None), fl.ActivationCache)
assert_type(cache.rows(0, 1).remove_batch_dim(), fl.ActivationCache)
assert_type(fl.concatenate_caches([cache, cache]), fl.ActivationCache)
assert_type(cache.receipts, tuple[fl.Receipt, ...])
assert_type(cache.receipts[0].count, int)
assert_type(cache.receipts[0].change, Tensor)
assert_type(fl.to_numpy(cache), Mapping[str, np.ndarray])
fl.save_cache(cache, Path("run.safetensors"))
assert_type(fl.load_cache("run.safetensors"), fl.ActivationCache)

# every intervention

vector = torch.ones(16)


def double(value: Tensor) -> Tensor:
    return 2 * value


edits: list[fl.Intervention] = [
    fl.Zero(fl.z(1, head=2)),
    fl.Mean(fl.resid_mid(1), vector),
    fl.Set(fl.mlp_out(1), 0.0),
    fl.Set("mlp_out.0", vector),
    fl.Add(fl.resid_pre(1, pos=-1), vector, scale=2.0),
    fl.Scale(fl.attn_out(1), 0.5),
    fl.Patch(fl.resid_post(0), cache),
    fl.Patch(fl.resid_post(1), vector),
    fl.Freeze(fl.pattern(1), cache),
    fl.Project(fl.resid_pre(0), vector),
    fl.ProjectOut(fl.resid_pre(0), vector),
    fl.Clamp(fl.mlp_post(0), low=0.0),
    fl.Noise(fl.embed(), std=0.1, seed=0),
    fl.Interchange(fl.resid_pre(0), cache, directions=vector),
    fl.Splice(fl.mlp_out(0), module, keep_error=True),
    fl.Apply(fl.resid_pre(1), double),
]
assert_type(fl.run(spec, tokens, edits), Tensor)
assert_type(fl.check(spec, tokens, edits, capture=[fl.z]), None)
assert_type(fl.dry_run(spec, tokens), tuple[fl.SiteInfo, ...])
assert_type(fl.content_hash(edits), str)
assert_type(fl.same_record(edits[0], edits[1]), bool)
fl.to_json(edits, "edits.json")
assert_type(fl.from_json("edits.json"), tuple[fl.Intervention, ...])
assert_type(edits[0].site, fl.Site)


def hook(value: Tensor, hook: object) -> Tensor | None:
    return None


def is_resid(name: str) -> bool:
    return "resid" in name


hooks = fl.from_hooks(spec, [("blocks.0.hook_resid_pre", hook), (is_resid, hook)])
assert_type(hooks, tuple[fl.Apply, ...])

with fl.instrumented(spec, edits, [fl.z]) as call:
    assert_type(call(tokens), fl.Run)
    assert_type(call("text").cache, fl.ActivationCache)

# gradients

grads = fl.run_with_grads(spec, tokens, fl.logit_diff(1, 2), capture=[fl.resid_pre])
assert_type(grads, fl.RunWithGrads)
assert_type(grads.grads, fl.ActivationCache)
assert_type(grads.value, Tensor)
assert_type(fl.log_prob_of(torch.tensor([1, 2]))(logits), Tensor)
assert_type(fl.Backward(fl.Zero(fl.z(0))), fl.Backward)

# estimates of patching

estimates = fl.attribution_patching(spec, tokens, cache, metric=fl.logit_diff(1, 2))
assert_type(estimates, fl.Attributions)
assert_type(estimates[fl.z(1, head=2)], Tensor)
assert_type(estimates["resid_pre.0"], Tensor)
assert_type(estimates.effects(fl.z, "layer", "head"), fl.Effects)
assert_type(
    fl.integrated_gradients(
        spec, "one", "two", metric=fl.log_prob_of(1), along="activations", sites=[fl.z]
    ),
    fl.Attributions,
)
trust = fl.linearity(spec, "one", "two", metric=fl.log_prob_of(1), sites=[fl.z])
assert_type(trust, fl.Linearity)
assert_type(trust.first, fl.Attributions)
assert_type(trust.scores(fl.z, "layer", "head"), fl.Effects)
assert_type(trust.error_bars(fl.z(0)), fl.Effects)

# generation

assert_type(fl.generate(spec, "text", edits, max_new_tokens=3), str)
assert_type(fl.generate(spec, ["a", "b"]), tuple[str, ...])
assert_type(fl.generate(spec, tokens, do_sample=True, seed=0), Tensor)
assert_type(fl.generate(spec, {"input_ids": tokens}), Tensor)
held = fl.generate_with_cache(spec, "text", capture=[fl.resid_post])
assert_type(held, fl.Generation)
assert_type(held.tokens, Tensor)
assert_type(held.texts, tuple[str, ...])
assert_type(held.cache, fl.ActivationCache)

# laws, weights, analyses

certificate = fl.verify(spec, untouched=module)
assert_type(certificate, fl.Certificate)
assert_type(certificate.holds, bool)
assert_type(certificate.rows[0].value, float)
assert_type(fl.W_Q(spec), Tensor)
assert_type(fl.W_E(spec), Tensor)
assert_type(fl.b_in(spec), Tensor)
assert_type(fl.head_scores(spec, cache, role="induction"), Tensor)
assert_type(fl.effective_attention(spec, cache, 0), Tensor)

# torch.func


def value(direction: Tensor) -> Tensor:
    return fl.run(spec, tokens, [fl.Add(fl.resid_pre(1), direction)]).sum()


mapped = torch.func.vmap(value)(torch.ones(3, 16))
