"""The laws, on toy transformers of every mix of two options."""

from itertools import combinations
from typing import Any, Final

import pytest
import torch
from torch import nn

import funlens as fl

# Found by a greedy search so that every two values of two options meet in one row.
TABLE: Final = """
norm  positions mlp      n_kv activation head mask   bias out    cap    attention
layer learned   parallel 2    gelu       wide causal yes  tied   logits eager
rms   learned   none     1    relu       fit  none   no   narrow none   sdpa
none  rotary    plain    4    silu       wide none   no   own    scores eager
none  rotary    gated    1    gelu       fit  causal yes  own    logits sdpa
rms   none      none     4    relu       wide causal yes  tied   none   eager
layer none      gated    1    silu       fit  none   no   narrow scores eager
rms   none      parallel 2    silu       fit  causal no   tied   logits sdpa
layer rotary    plain    2    relu       fit  none   yes  narrow logits sdpa
none  learned   gated    4    gelu       wide causal no   narrow none   sdpa
layer learned   parallel 1    relu       wide none   yes  own    scores eager
none  none      none     2    gelu       wide none   yes  tied   scores eager
layer none      none     4    silu       fit  causal yes  own    none   sdpa
rms   rotary    gated    2    relu       fit  causal no   tied   scores eager
none  rotary    parallel 4    relu       fit  causal yes  narrow none   eager
rms   none      plain    2    gelu       fit  causal yes  own    none   eager
none  learned   plain    1    silu       fit  causal yes  tied   logits eager
layer rotary    none     4    relu       wide none   yes  own    logits eager
"""
HEAD, *BODY = [line.split() for line in TABLE.strip().splitlines()]
ROWS: Final = [dict(zip(HEAD, cells, strict=True)) for cells in BODY]


def config_of(row: dict[str, str]) -> fl.ToyConfig:
    """Spell a row as options."""
    return fl.ToyConfig(
        d_model=16,
        n_kv_heads=int(row["n_kv"]),
        d_head={"fit": None, "wide": 6}[row["head"]],
        d_mlp=0 if row["mlp"] == "none" else 24,
        d_out=7 if row["out"] == "narrow" else None,
        n_ctx=16,
        norm=row["norm"],
        positions=row["positions"],
        activation=row["activation"],
        is_gated=row["mlp"] == "gated",
        is_parallel=row["mlp"] == "parallel",
        is_causal=row["mask"] == "causal",
        is_tied=row["out"] == "tied",
        has_bias=row["bias"] == "yes",
        attn_softcap=1.5 if row["cap"] == "scores" else None,
        logit_softcap=1.5 if row["cap"] == "logits" else None,
    )


def built(row: dict[str, str]) -> nn.Module:
    """Build a row's module, with noise on every weight: no bias 0 and no gain 1."""
    module: Any = fl.toy_module(config_of(row))
    module.set_attn_implementation(row["attention"])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def test_the_rows_let_every_two_values_meet() -> None:
    """All pairs of values are there; SDPA knows no caps on scores."""
    met = {pair for row in ROWS for pair in combinations(sorted(row.items()), 2)}
    values = {(word, value) for row in ROWS for word, value in row.items()}
    wanted = {
        pair
        for pair in combinations(sorted(values, key=str), 2)
        if pair[0][0] != pair[1][0]
    }
    assert {(("attention", "sdpa"), ("cap", "scores"))} == wanted - met


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row.values()))
def test_every_law_holds(row: dict[str, str], unchecked: None) -> None:
    """Each law holds that applies, against a module that funlens never described."""
    certificate = fl.verify(fl.from_module(built(row)), untouched=built(row))
    assert [] == [law for law in certificate.rows if not law.holds]
