"""Modules that accelerate has dispatched, some weights away between forwards."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from torch import Tensor

import funlens as fl
from funlens.errors import OptionError, UnsupportedConfigError
from funlens.testing import tiny_hf_model, tiny_inputs

ON_DISK: Final[Mapping[str, str]] = {
    "model.embed_tokens": "disk",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "cpu",
    "model.layers.3": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}
KEPT: Final = (fl.resid_post, fl.z, fl.pattern(3), fl.head_result(1))
EDITS: Final = (fl.Zero(fl.z(1, head=2)), fl.Scale(fl.resid_pre(3), 2.0))
PROMPT: Final = "Mary and John went to the store"


@pytest.fixture(scope="module")
def plain() -> fl.ModelSpec:
    """The builtin model, whole."""
    return fl.load("builtin:tiny", device="cpu")


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> fl.ModelSpec:
    """The builtin model with half of its weights on the disk."""
    folder = tmp_path_factory.mktemp("away")
    return fl.load("builtin:tiny", device_map=dict(ON_DISK), offload_folder=folder)


def test_every_law_holds_on_a_dispatched_module(unchecked: None) -> None:
    """With accelerate's hooks on each module, the laws hold, and the owner's runs."""
    inputs, untouched = tiny_inputs("llama"), tiny_hf_model("llama")
    module = dispatch_model(
        tiny_hf_model("llama"), device_map={"": "cpu"}, force_hooks=True
    )
    certificate = fl.verify(fl.from_module(module), inputs, untouched=untouched)
    assert [] == [row for row in certificate.rows if not row.holds]
    with torch.no_grad():
        expected, found = untouched(**inputs).logits, module(**inputs).logits
    assert torch.equal(expected, found)


@pytest.mark.parametrize("device_map", [{"": "cpu"}, "auto"], ids=str)
def test_a_device_map_changes_no_number(plain: fl.ModelSpec, device_map: Any) -> None:
    """One device through a map is one device."""
    spec = fl.load("builtin:tiny", device_map=device_map)
    tokens = fl.to_tokens(plain, PROMPT)
    assert torch.equal(fl.run(plain, tokens, EDITS), fl.run(spec, tokens, EDITS))


def test_offloaded_weights_give_the_same_numbers(
    plain: fl.ModelSpec, away: fl.ModelSpec
) -> None:
    """Logits, captures, edits, gradients and generated text, bit for bit."""
    assert any(parameter.is_meta for parameter in away.module.parameters())
    assert torch.device("cpu") == away.device

    def everything(spec: fl.ModelSpec) -> list[Tensor]:
        tokens = fl.to_tokens(spec, PROMPT)
        kept = fl.run_with_cache(spec, tokens, EDITS, capture=KEPT)
        grads = fl.run_with_grads(
            spec, tokens, lambda logits: logits[:, -1, 3], capture=[fl.resid_pre(1)]
        )
        return [
            fl.run(spec, tokens),
            kept.logits,
            *kept.cache.values(),
            *grads.grads.values(),
            fl.generate(spec, tokens, EDITS, max_new_tokens=3),
        ]

    for expected, found in zip(everything(plain), everything(away), strict=True):
        assert torch.equal(expected, found)


def test_offloaded_weights_can_be_looked_at(
    plain: fl.ModelSpec, away: fl.ModelSpec
) -> None:
    """They are read from where accelerate keeps them."""
    for look in (fl.W_E, fl.W_U, fl.W_Q, fl.W_O, fl.W_in, fl.b_O):
        assert torch.equal(look(plain), look(away))


def test_threads_do_not_meet_where_weights_come_and_go(
    plain: fl.ModelSpec, away: fl.ModelSpec
) -> None:
    """Each thread loads into a structure of its own."""
    tokens = fl.to_tokens(plain, PROMPT)

    def ablated(spec: fl.ModelSpec, head: int) -> Tensor:
        return fl.run(spec, tokens, [fl.Zero(fl.z(1, head=head))])

    expected = [ablated(plain, head) for head in range(4)] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda head: ablated(away, head), [0, 1, 2, 3] * 4))
    assert all(map(torch.equal, expected, found))


def test_what_offloading_cannot_do_is_refused(away: fl.ModelSpec) -> None:
    """Weights that were put in their place would be loaded over."""
    tokens = fl.to_tokens(away, PROMPT)
    name = "model.layers.1.mlp.up_proj.weight"
    value = torch.zeros_like(fl.W_in(away)[1].mT)
    with pytest.raises(OptionError, match=r"up_proj\.weight is offloaded"):
        fl.run(away, tokens, params={name: value})
    with pytest.raises(UnsupportedConfigError, match=r"up_proj\.weight is offloaded"):
        fl.with_weights(away, {name: value})

    def logit(vector: Tensor) -> Tensor:
        return fl.run(away, tokens, [fl.Add(fl.resid_pre(1), vector)])[0, -1, 3]

    with pytest.raises(UnsupportedConfigError, match=r"`torch\.func` cannot pass"):
        torch.func.grad(logit)(torch.zeros(away.d_model))
    with pytest.raises(UnsupportedConfigError, match="fake tensors cannot pass"):
        fl.dry_run(away, tokens)
    fl.check(away, tokens)


def in_two_entries(module: Any, folder: Path) -> None:
    """Run the first layer from one entry of a map, and the rest from another."""
    names = [name for name, _ in module.named_modules() if name]
    first = next(name for name in names if name.endswith(".0"))
    alone = [name for name in names if not first.startswith(f"{name}.")]
    device_map: dict[str, Any] = dict.fromkeys(alone, "cpu")
    device_map[first] = torch.device("cpu")
    dispatch_model(module, device_map=device_map, force_hooks=True)


def in_memory(module: Any, folder: Path) -> None:
    """Keep all weights in the CPU's memory, and their module on `meta`."""
    cpu_offload(module, execution_device=torch.device("cpu"))


def on_the_disk(module: Any, folder: Path) -> None:
    """Keep all weights on the disk."""
    disk_offload(module, str(folder), execution_device=torch.device("cpu"))


@pytest.mark.parametrize("family", ["gpt2", "llama", "mixtral", "qwen3"])
@pytest.mark.parametrize("place", [in_two_entries, in_memory, on_the_disk])
def test_wherever_weights_lie_every_site_is_the_same(
    family: str, place: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    """What is met, what edits do, one after the other, and gradients, bit for bit."""
    inputs, untouched = tiny_inputs(family), tiny_hf_model(family)
    with torch.no_grad():
        expected = untouched(**inputs).logits
    module = tiny_hf_model(family)
    place(module, tmp_path)
    one, other = fl.from_module(tiny_hf_model(family)), fl.from_module(module)
    assert torch.equal(expected, fl.run(other, inputs))
    every = [i.site for i in one.sites if not i.site.part.endswith("indices")]

    def everything(spec: fl.ModelSpec) -> list[Tensor]:
        met = fl.run_with_cache(spec, inputs, capture=every).cache
        edits = [fl.Scale(site, 1.5) for site in every]
        slopes = fl.run_with_grads(
            spec, inputs, lambda logits: logits[:, -1, 3].sum(), capture=every
        )
        return [
            *met.values(),
            *(fl.run(spec, inputs, [edit]) for edit in edits),
            *slopes.grads.values(),
            fl.generate(spec, inputs["input_ids"], edits[:3], max_new_tokens=3),
        ]

    assert all(map(torch.equal, everything(one), everything(other)))


def test_a_module_that_its_owner_offloaded_is_left_as_it_was() -> None:
    """Its weights are away before and after, and its logits the same."""
    module, inputs = tiny_hf_model("llama"), tiny_inputs("llama")
    with torch.no_grad():
        expected = module(**inputs).logits
    cpu_offload(module, execution_device=torch.device("cpu"))
    spec = fl.from_module(module)
    assert torch.equal(expected, fl.run(spec, inputs))
    fl.run_with_cache(spec, inputs, [fl.Zero(fl.resid_pre(1))])
    assert all(parameter.is_meta for parameter in module.parameters())
    with torch.no_grad():
        assert torch.equal(expected, module(**inputs).logits)
