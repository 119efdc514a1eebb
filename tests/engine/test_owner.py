"""What belongs to the caller stays as it was; wrapped models run as they are."""

from collections.abc import Mapping
from typing import Any, Final

import peft
import pytest
import torch
from torch import Tensor, nn

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

NAMES: Final = ("gpt2", "llama", "gemma2", "mixtral", "t5", "bert", "mamba", "gptj")


def snapshot(module: nn.Module) -> dict[str, Any]:
    """Everything about a module that a call could change, by identity or value."""
    config: Any = module.config
    return {
        "tree": [(name, id(part)) for name, part in module.named_modules()],
        "attributes": [sorted(vars(part)) for part in module.modules()],
        "hooks": [
            {key: len(held) for key, held in vars(part).items() if "hooks" in key}
            for part in module.modules()
        ],
        "forwards": [part.forward for part in module.modules()],
        "versions": [p._version for p in module.parameters()],
        "grads": [p.grad for p in module.parameters()],
        "config": config.to_dict(),
        "attention": config._attn_implementation,
        "training": [part.training for part in module.modules()],
    }


def same_weights(before: Mapping[str, Tensor], module: nn.Module) -> bool:
    """Tell whether all weights have the bits they had."""
    after = module.state_dict()
    return [*before] == [*after] and all(
        torch.equal(held, after[name]) for name, held in before.items()
    )


def fails(value: Tensor) -> Tensor:
    """An edit that breaks a run in the middle."""
    raise ZeroDivisionError


@pytest.mark.parametrize("name", NAMES)
def test_module_is_as_its_owner_left_it(name: str) -> None:
    """After runs of all kinds, one that raises in the middle included."""
    module, inputs = tiny_hf_model(name), tiny_inputs(name)
    before = snapshot(module)
    weights = {key: held.clone() for key, held in module.state_dict().items()}
    state = torch.get_rng_state()
    spec = fl.from_module(module)
    fl.run(spec, inputs)
    fl.run_with_cache(spec, inputs, [fl.Zero(fl.resid_pre(1))])
    fl.run(spec, inputs, [fl.Noise(fl.resid_pre(1), std=1.0, seed=0)])
    with pytest.raises(fl.errors.UserFunctionError):
        fl.run(spec, inputs, [fl.Apply(fl.resid_pre(1), fails)])
    assert before == snapshot(module)
    assert same_weights(weights, module)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_same_script_twice_gives_same_bits(name: str) -> None:
    """Two loads, two runs, one result."""

    def script() -> Tensor:
        spec = fl.from_module(tiny_hf_model(name))
        noise = fl.Noise(fl.resid_pre(0), std=0.3, seed=5)
        return fl.run(spec, tiny_inputs(name), [noise])

    assert torch.equal(script(), script())


def test_edit_in_place_reaches_no_other_value() -> None:
    """A function that writes in place changes what it was given, and that only."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    whole = fl.run_with_cache(spec, inputs).cache
    edits = [fl.Apply(fl.resid_pre(1), lambda value: value.zero_())]
    edited = fl.run_with_cache(spec, inputs, edits).cache
    assert torch.equal(whole[fl.resid_post(0)], edited[fl.resid_post(0)])
    assert not edited[fl.resid_pre(1)].any()


def adapted(name: str, target: str) -> nn.Module:
    """A model with low-rank adapters that do something."""
    config = peft.LoraConfig(r=2, target_modules=[target], init_lora_weights=False)
    torch.manual_seed(0)
    model: Any = peft.get_peft_model(tiny_hf_model(name), config)
    return model.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "target"), [("gpt2", "c_attn"), ("llama", "q_proj")])
def test_adapted_model_equals_its_own_logits(name: str, target: str) -> None:
    """A model wrapped by PEFT gives its own logits, and edits act."""
    model, inputs = adapted(name, target), tiny_inputs(name)
    with torch.no_grad():
        expected = model(**inputs).logits
        plain = tiny_hf_model(name)(**inputs).logits
    spec = fl.from_module(model)
    got = fl.run(spec, inputs)
    assert torch.equal(expected, got)
    assert not torch.equal(plain, got)
    for site in (fl.q(0), fl.z(0, head=1), fl.resid_pre(1)):
        assert not torch.equal(expected, fl.run(spec, inputs, [fl.Zero(site)]))
    with torch.no_grad():
        assert torch.equal(expected, model(**inputs).logits)


def test_a_forward_that_its_owner_wrapped_runs_on_the_copy() -> None:
    """Taps below it are met, and the wrapper acts; the owner's stays as it was."""
    plain, wrapped = tiny_hf_model("llama"), tiny_hf_model("llama")
    calls: list[nn.Module] = []

    def wrap(part: nn.Module) -> None:
        own = part.forward

        def forward(*args: Any) -> Any:
            calls.append(part)
            return 2 * own(*args)

        part.forward = forward
        part.register_forward_hook(lambda module, args, out: out / 2)

    wrap(wrapped.model.layers[1].mlp)
    kept = wrapped.model.layers[1].mlp.forward
    inputs, edits = tiny_inputs("llama"), [fl.Zero(fl.mlp_post(1, neuron=3))]
    expected = fl.run(fl.from_module(plain), inputs, edits)
    assert torch.equal(expected, fl.run(fl.from_module(wrapped), inputs, edits))
    assert calls
    assert wrapped.model.layers[1].mlp not in calls
    assert kept is wrapped.model.layers[1].mlp.forward
