"""The laws, on every architecture of the foundation."""

import pytest

import funlens as fl
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs

NAMES = [recipe.name for recipe in FOUNDATION]
# HuggingFace gives these no SDPA.
EAGER_ONLY = {"gptj", "gpt_neo", "bloom", "mpt", "gpt_oss", "mamba", "gemma2"}
CASES = [
    (name, attention)
    for name in NAMES
    for attention in ("sdpa", "eager")
    if attention == "eager" or name not in EAGER_ONLY
]


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_every_law_holds(name: str, attention: str, unchecked: None) -> None:
    """Each law holds that applies, against a model that funlens never saw."""
    untouched = tiny_hf_model(name, attn_implementation=attention)
    spec = fl.from_module(tiny_hf_model(name, attn_implementation=attention))
    certificate = fl.verify(spec, tiny_inputs(name), untouched=untouched)
    failed = [row for row in certificate.rows if not row.holds]
    assert [] == failed


@pytest.mark.parametrize("name", NAMES)
def test_the_owner_keeps_the_module(name: str) -> None:
    """After runs with edits and captures the module equals a copy built apart."""
    module, apart = tiny_hf_model(name), tiny_hf_model(name)
    spec = fl.from_module(module)
    fl.run(spec, tiny_inputs(name), [fl.Scale(fl.resid_post(0), 0.5)])
    fl.run_with_cache(spec, tiny_inputs(name), capture=[fl.resid_pre])
    described = [
        [
            (path, type(part), len(part._forward_hooks), len(part._forward_pre_hooks))
            for path, part in each.named_modules()
        ]
        for each in (module, apart)
    ]
    assert described[0] == described[1]
    for (_, own), (_, other) in zip(
        module.state_dict().items(), apart.state_dict().items(), strict=True
    ):
        assert own.equal(other)
    attributes = [
        {path: set(vars(part)) for path, part in each.named_modules()}
        for each in (module, apart)
    ]
    assert attributes[0] == attributes[1]
    assert module.config.to_dict() == apart.config.to_dict()
    assert module.config._attn_implementation == apart.config._attn_implementation
