"""Drift: modules that another version of transformers calls otherwise."""

import re
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import transformers
from torch import nn

import funlens as fl
from funlens.adapters import ARCHITECTURES, _registry
from funlens.adapters._verified import VERIFIED
from funlens.errors import PathNotFoundError, UnsupportedConfigError
from funlens.testing import recipe_names, tiny_hf_model
from tests.another_version import skip_absent

ROOT: Final = Path(__file__).parents[2]
RENAMED: Final = [
    ("llama", "model.layers", "model"),
    ("llama", "model.layers.*.self_attn", "model.layers.0"),
    ("llama", "model.layers.*.self_attn.q_proj", "model.layers.0"),
    ("llama", "model.layers.*.self_attn.k_proj", "model.layers.0"),
    ("llama", "model.layers.*.self_attn.v_proj", "model.layers.0"),
    ("llama", "model.layers.*.self_attn.o_proj", "model.layers.0.self_attn"),
    ("llama", "model.layers.*.mlp", "model.layers.0"),
    ("llama", "model.layers.*.mlp.up_proj", "model.layers.0"),
    ("llama", "model.layers.*.mlp.down_proj", "model.layers.0.mlp"),
    ("llama", "model.layers.*.input_layernorm", "model.layers.0"),
    ("llama", "model.layers.*.post_attention_layernorm", "model.layers.0"),
    ("gpt2", "transformer.h.*.attn.c_attn", "transformer.h.0.attn"),
    ("mamba", "backbone.layers.*.mixer", "backbone.layers.0"),
    ("bert", "bert.encoder.layer.*.attention.self.query", "bert.encoder.layer.0"),
]
# Attention, a recurrence, experts, two stacks, and an MLP whose input is no site.
A_FEW: Final = frozenset({"gpt2", "mamba", "mixtral", "mobilebert", "t5"})


def renamed(family: str, pattern: str) -> Any:
    """Build a tiny model whose modules of one path are called otherwise."""
    module = tiny_hf_model(family)
    wanted = re.compile(re.escape(pattern).replace(r"\*", r"\d+"))
    for path in [path for path, _ in module.named_modules() if wanted.fullmatch(path)]:
        above, _, name = path.rpartition(".")
        parent: Any = module.get_submodule(above)
        held = parent._modules.pop(name)
        parent._modules[f"another_{name}"] = held
    return module


@pytest.fixture
def another_version(monkeypatch: pytest.MonkeyPatch) -> str:
    """The installed version, after another one than the tables were verified with."""
    before = tuple(attrs.evolve(table, verified="5.0.0") for table in ARCHITECTURES)
    monkeypatch.setattr(_registry, "_BUILTIN", before)
    return transformers.__version__


@pytest.mark.parametrize(("family", "pattern", "base"), RENAMED)
def test_a_renamed_module_is_named(
    family: str, pattern: str, base: str, another_version: str
) -> None:
    """The error names the path, where it was looked for, and both versions."""
    with pytest.raises(PathNotFoundError) as caught:
        fl.from_module(renamed(family, pattern))
    error = caught.value
    assert base == error.base
    names = {path.rpartition(".")[2] for path in error.paths}
    assert pattern.rpartition(".")[2] in names
    assert ("5.0.0", another_version) == (error.verified, error.installed)
    assert "last verified with transformers 5.0.0" in str(error)
    assert f"transformers {another_version} is installed" in str(error)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            row.name, marks=[] if row.name in A_FEW else pytest.mark.architectures
        )
        for row in fl.supported()
        if row.task and not row.refused
    ],
)
def test_no_architecture_lacks_what_its_table_names(
    name: str, another_version: str
) -> None:
    """So another version that did not rename anything loads, too."""
    if name not in recipe_names():
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    skip_absent(name)
    assert fl.from_module(tiny_hf_model(name)).n_layers


def test_a_table_is_held_to_another_version_than_its_own() -> None:
    """Without a version, what is not there is left out, as the language says."""
    (table,) = (table for table in ARCHITECTURES if "llama" in table.model_types)
    module = renamed("llama", "model.layers.*.self_attn.q_proj")
    for verified in ("", transformers.__version__):
        own = attrs.evolve(table, verified=verified)
        spec = fl.from_module(module, adapter=own)
        assert not any(info.site.part == "q" for info in spec.sites)
    with pytest.raises(PathNotFoundError, match=r"verified with transformers 5\.1\.0"):
        fl.from_module(module, adapter=attrs.evolve(table, verified="5.1.0"))


def test_a_renamed_field_of_the_config_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A multiplier that is not there would be taken for 1."""
    module: nn.Module = tiny_hf_model("granite")
    config: Any = module.config
    del config.residual_multiplier
    monkeypatch.delattr(type(config), "residual_multiplier")
    with pytest.raises(UnsupportedConfigError) as caught:
        fl.from_module(module)
    assert f"'residual_multiplier', which transformers {VERIFIED}" in str(caught.value)


def test_the_version_is_the_one_that_was_verified() -> None:
    """What was run, and the version that the project's checks run on, say so."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert {VERIFIED} == {row.checked_with for row in fl.supported() if row.task}
    assert f"transformers=={VERIFIED}" in pins
