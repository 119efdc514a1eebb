"""TransformerLens's hooks do what PyTorch's hooks do to an untouched module."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

FIRST: Final = "blocks.0.hook_resid_post"


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def hooked(name: str, *pairs: Any) -> Tensor:
    """Logits of a run with hooks."""
    spec = spec_of(name)
    return fl.run(spec, tiny_inputs(name), fl.from_hooks(spec, pairs))


def by_hand(path: str, change: Any) -> Tensor:
    """Logits of an untouched GPT-2, with a forward hook of PyTorch's on one module."""
    model = tiny_hf_model("gpt2")

    def leave(module: Any, args: Any, output: Any) -> Any:
        return change(output)

    model.get_submodule(path).register_forward_hook(leave)
    with torch.no_grad():
        return model(**tiny_inputs("gpt2")).logits


def double_last(value: Tensor, hook: Any) -> Tensor:
    """A hook that gives a new tensor."""
    return torch.cat([value[:, :-1], 2 * value[:, -1:]], dim=1)


def double_last_in_place(value: Tensor, hook: Any) -> None:
    """The same hook, as TransformerLens's users often write it."""
    value[:, -1] *= 2


@pytest.mark.parametrize("function", [double_last, double_last_in_place])
@pytest.mark.parametrize(
    "name", [FIRST, "resid_post.0", ("resid_post", 0), fl.resid_post(0)], ids=str
)
def test_hook_equals_a_hook_of_pytorch(name: Any, function: Any) -> None:
    """By every kind of name, returned or in place."""
    expected = by_hand("transformer.h.0", lambda out: double_last(out, None))
    assert torch.equal(expected, hooked("gpt2", (name, function)))


def test_hook_of_heads_equals_a_hook_before_the_projection() -> None:
    """`hook_z` is what enters the output projection."""
    model = tiny_hf_model("gpt2")

    def enter(module: Any, args: Any) -> Any:
        z = args[0].unflatten(-1, (4, 4)).clone()
        z[:, :, 1] = 0
        return (z.flatten(-2),)

    path = "transformer.h.1.attn.c_proj"
    model.get_submodule(path).register_forward_pre_hook(enter)
    with torch.no_grad():
        expected = model(**tiny_inputs("gpt2")).logits

    def zero(z: Tensor, hook: Any) -> Tensor:
        z[:, :, 1] = 0
        return z

    assert torch.equal(expected, hooked("gpt2", ("blocks.1.attn.hook_z", zero)))


def test_hooks_act_in_the_order_given() -> None:
    """Two hooks on one name, then the other way round."""

    def add(value: Tensor, hook: Any) -> Tensor:
        return value + 1

    def double(value: Tensor, hook: Any) -> Tensor:
        return 2 * value

    expected = by_hand("transformer.h.0", lambda out: 2 * (out + 1))
    assert torch.equal(expected, hooked("gpt2", (FIRST, add), (FIRST, double)))
    expected = by_hand("transformer.h.0", lambda out: 2 * out + 1)
    assert torch.equal(expected, hooked("gpt2", (FIRST, double), (FIRST, add)))


def test_hook_is_told_its_name_and_layer() -> None:
    """`hook.name` is the name that was given, `hook.layer()` its layer."""
    told: list[tuple[str, int]] = []

    def tell(value: Tensor, hook: Any) -> None:
        told.append((hook.name, hook.layer()))

    hooked("gpt2", ("blocks.1.attn.hook_z", tell), (fl.z(0), tell))
    assert [("z.0", 0), ("blocks.1.attn.hook_z", 1)] == told


def test_hook_of_the_whole_model_has_no_layer() -> None:
    """Asking for it is an error that says so."""

    def ask(value: Tensor, hook: Any) -> None:
        hook.layer()

    with pytest.raises(fl.errors.SelectionError, match="no layer"):
        hooked("gpt2", ("hook_embed", ask))


def test_part_without_a_layer_means_every_layer_that_has_it() -> None:
    """As in a capture."""
    edits = fl.from_hooks(spec_of("gpt2"), [(fl.resid_post, double_last)])
    assert [fl.resid_post(0), fl.resid_post(1)] == [edit.site for edit in edits]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gpt2", fl.mlp_pre(1)), ("llama", fl.mlp_gate(1))],
)
def test_filter_chooses_among_the_model_s_own_names(
    name: str, expected: fl.Site
) -> None:
    """TransformerLens's filters; its `hook_pre` is the gate where there is one."""

    def is_pre(hook: str) -> bool:
        return hook == "blocks.1.mlp.hook_pre"

    (edit,) = fl.from_hooks(spec_of(name), [(is_pre, double_last)])
    assert expected == edit.site


def test_filter_acts_on_each_name_it_chooses() -> None:
    """Once each, although the model has sites without such a name."""
    seen: list[str] = []

    def see(value: Tensor, hook: Any) -> None:
        seen.append(hook.name)

    hooked("llama", (lambda name: name.endswith("hook_resid_post"), see))
    assert [FIRST, "blocks.1.hook_resid_post"] == seen


def test_filter_that_chooses_nothing_is_refused() -> None:
    """A hook that never acts is an error."""
    with pytest.raises(fl.errors.InputError, match="none of the hooks"):
        hooked("gpt2", (lambda name: name == "nope", double_last))


def test_hook_on_a_missing_site_is_refused() -> None:
    """With the nearest names."""
    with pytest.raises(fl.errors.SiteNotFoundError, match="nearest"):
        hooked("gpt2", ("blocks.0.hook_resid_pst", double_last))
    with pytest.raises(fl.errors.SiteNotFoundError):
        hooked("gpt2", ("blocks.9.hook_resid_post", double_last))


def test_hook_of_another_shape_is_refused() -> None:
    """The error names the site."""

    def cut(value: Tensor, hook: Any) -> Tensor:
        return value[:, :1]

    with pytest.raises(fl.errors.UserFunctionError, match=r"resid_post\.0"):
        hooked("gpt2", (FIRST, cut))
