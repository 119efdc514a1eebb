"""Patching, ablations and statistics, as a type checker sees them."""

from typing import assert_type

import torch

import funlens as fl
from funlens.analyses import Normalized, Scrubbed, Summary

spec = fl.load("builtin:tiny")
cache = fl.run_with_cache(spec, "Tom had a ball").cache
metric = fl.log_prob_of(3)

effects = fl.patch_heads(spec, "Ben had a ball", cache, metric=metric, part=fl.q)
assert_type(effects, fl.Effects)
assert_type(
    fl.patch_blocks(spec, "Ben had a ball", cache, metric=metric, memory=2**20),
    fl.Effects,
)
grids = {"z": fl.grid(fl.Zero, fl.z, layer=...), "q": fl.grid(fl.Zero, fl.q, layer=...)}
assert_type(fl.sweep(spec, "Tom", grids, metric=metric), fl.Effects)

means = fl.mean_activations(spec, ["Tom", "Ben"], [fl.z, "resid_pre.1"])
assert_type(means, fl.Means)
assert_type(means[fl.z(1)], torch.Tensor)
fl.Mean(fl.z(1, head=2), means)
assert_type(
    fl.mean_ablation(spec, "Tom", fl.z, means, metric=metric, head=[1], layer=...),
    fl.Effects,
)
draws = fl.resample_ablation(spec, "Tom", fl.z, ["Ben"], metric=metric, seed=0)
assert_type(fl.average_over(draws, "draw"), fl.Effects)
assert_type(fl.spread_over(draws, "draw"), torch.Tensor)

found = fl.scrub(spec, ["Tom", "Ben"], {fl.z(1): [0, 0]}, metric=metric, seed=0)
assert_type(found, Scrubbed)
assert_type(found.recovered, float)

summary = fl.summarize(effects, seed=torch.Generator())
assert_type(summary, Summary)
assert_type(summary.normalized, Normalized | None)

fl.patch_heads(spec, "Ben", cache, metric=metric, memroy=1)  # pyright: ignore[reportCallIssue] (no such word)
fl.zero_ablation(spec, "Ben", fl.z, metric=metric, layr=...)  # pyright: ignore[reportCallIssue] (no such word)
fl.summarize(effects, correction="bonferroni", seed=0)  # pyright: ignore[reportArgumentType] (no such correction)
