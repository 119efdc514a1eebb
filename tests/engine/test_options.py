"""Options act, or raise; against HuggingFace and against whole runs."""

import copy
from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.testing import tiny_hf_model, tiny_inputs

TOLERANCE: Final = 1e-5  # float32: a few terms in another order
WTE: Final = "transformer.wte.weight"


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def tokens_of(name: str = "gpt2") -> Tensor:
    """Two rows of seven tokens."""
    return tiny_inputs(name)["input_ids"]


def run(*edits: Any, name: str = "gpt2", **how: Any) -> Tensor:
    """A run of a tiny model."""
    return fl.run(spec_of(name), tiny_inputs(name), list(edits), **how)


# params


def doubled(name: str, parameter: str) -> tuple[Tensor, Tensor]:
    """One weight times two, and the logits of an untouched module that has it."""
    model: Any = tiny_hf_model(name)
    weight = 2 * model.get_parameter(parameter).detach()
    model.get_parameter(parameter).data = weight
    with torch.no_grad():
        return weight, model(**tiny_inputs(name)).logits


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("gpt2", "transformer.h.1.mlp.c_fc.weight"),
        ("gpt2", WTE),  # tied: also the unembedding
        ("llama", "model.layers.0.self_attn.q_proj.weight"),
        ("t5", "decoder.block.0.layer.0.SelfAttention.q.weight"),
    ],
)
def test_params_are_used_in_place_of_the_weights(name: str, parameter: str) -> None:
    """An untouched module with that weight gives the same bits; ours keeps its own."""
    before = run(name=name)
    weight, expected = doubled(name, parameter)
    assert torch.equal(expected, run(name=name, params={parameter: weight}))
    assert torch.equal(before, run(name=name))


def test_params_and_edits_act_together() -> None:
    """An edit in a run with other weights."""
    weight, _ = doubled("gpt2", WTE)
    site = fl.resid_post(1)
    zero = fl.Zero(site)
    _, kept = fl.run_with_cache(
        spec_of("gpt2"), tokens_of(), [zero], capture=[site], params={WTE: weight}
    )
    assert not kept[site].any()
    assert not torch.equal(run(zero), run(zero, params={WTE: weight}))


@pytest.mark.parametrize(
    ("params", "error", "fragment"),
    [
        ({"nope": torch.ones(1)}, errors.OptionError, "'nope'"),
        ({WTE: 3}, errors.OptionError, "int"),
        ({WTE: torch.ones(16)}, errors.ShapeError, "(32, 16)"),
        (
            {WTE: torch.ones(32, 16, dtype=torch.float64)},
            errors.DtypeError,
            "torch.float64",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_params_that_are_no_weights_are_refused(
    params: Any, error: type[Exception], fragment: str
) -> None:
    """Another name, kind, shape or dtype."""
    with pytest.raises(error) as caught:
        run(params=params)
    assert fragment in str(caught.value)


# start_at_layer, stop_at_layer, logits_at


def test_run_between_two_layers_is_the_block_s_own() -> None:
    """From the residual that enters block 1 to the one that leaves it, untouched."""
    model: Any = tiny_hf_model("llama")
    with torch.no_grad():
        hidden = model(tokens_of("llama"), output_hidden_states=True).hidden_states
    got = run(name="llama", start_at_layer=0, residual=hidden[0], stop_at_layer=1)
    assert torch.equal(hidden[1], got)


def test_run_that_stops_where_it_starts_gives_the_residual_back() -> None:
    """No block in between."""
    residual = torch.ones(2, 7, 16)
    assert torch.equal(
        residual, run(start_at_layer=1, residual=residual, stop_at_layer=1)
    )


@pytest.mark.parametrize(
    ("how", "fragment"),
    [
        ({"stop_at_layer": -1}, "layer -1 of 0"),
        ({"stop_at_layer": 3}, "layer 3 of 0"),
        ({"start_at_layer": 2, "residual": torch.ones(2, 7, 16)}, "layer 2 of 0"),
        ({"start_at_layer": -1, "residual": torch.ones(2, 7, 16)}, "layer -1 of 0"),
        ({"residual": torch.ones(2, 7, 16)}, "one of them is missing"),
        (
            {
                "start_at_layer": 1,
                "residual": torch.ones(2, 7, 16),
                "stop_at_layer": 0,
            },
            "comes before",
        ),
        ({"stop_at_layer": 1, "logits_at": -1}, "all logits"),
        ({"logits_at": fl.generated}, "generates no positions"),
    ],
)
def test_options_that_contradict_are_refused(how: Any, fragment: str) -> None:
    """Layers that are not there, halves that are missing, one that undoes another."""
    with pytest.raises(errors.OptionError, match=fragment):
        run(**how)


def test_start_in_a_model_that_passes_more_is_refused() -> None:
    """The blocks of T5 hand a bias on."""
    with pytest.raises(errors.OptionError, match="pass more than"):
        run(name="t5", start_at_layer=1, residual=torch.ones(2, 5, 16))


def test_residual_of_another_shape_is_refused() -> None:
    """It is not stretched over the batch."""
    with pytest.raises(errors.ShapeError, match=r"\(1, 7, 16\)"):
        run(start_at_layer=1, residual=torch.ones(1, 7, 16))


STARTED: Final = {"start_at_layer": 1, "residual": torch.ones(2, 7, 16)}


@pytest.mark.parametrize(
    ("site", "how"),
    [
        (fl.resid_pre(0), STARTED),
        (fl.resid_post(0), STARTED),
        (fl.mlp_out(0), STARTED),
        (fl.embed(), STARTED),
        (fl.pos_embed(), STARTED),
        (fl.resid_post(1), {"stop_at_layer": 1}),
        (fl.ln_final_normalized(), {"stop_at_layer": 2}),
        (fl.logits(), {"stop_at_layer": 2}),
    ],
    ids=str,
)
def test_what_a_run_does_not_pass_is_neither_edited_nor_kept(
    site: fl.Site, how: Any
) -> None:
    """Before the start and behind the stop, also where a skipped block's hooks fire."""
    with pytest.raises(errors.NeverActedError, match="never acted"):
        run(fl.Zero(site), **how)
    with pytest.raises(errors.NeverActedError, match="capture"):
        fl.run_with_cache(spec_of("gpt2"), tokens_of(), capture=[site], **how)


def test_every_site_means_every_site_that_is_passed() -> None:
    """From layer 1 to the end, or from the beginning to layer 1."""
    spec = spec_of("gpt2")
    whole = {*fl.run_with_cache(spec, tokens_of()).cache}
    late = {*fl.run_with_cache(spec, tokens_of(), **STARTED).cache}
    early = {*fl.run_with_cache(spec, tokens_of(), stop_at_layer=1).cache}
    assert {site for site in whole if site.layer in {1, None}} - {
        fl.embed(),
        fl.pos_embed(),
    } == late
    assert {site for site in whole if site.layer == 0} | {
        fl.embed(),
        fl.pos_embed(),
        fl.resid_pre(1),
    } == early


def test_logits_at_a_position_of_each_row() -> None:
    """Padding on either side: the last real one, and one from the first real one."""
    tokens = tokens_of()
    for mask, last, second in (
        (torch.tensor([[1] * 7, [0, 0] + [1] * 5]), [6, 6], [1, 3]),
        (torch.tensor([[1] * 7, [1] * 5 + [0, 0]]), [6, 4], [1, 1]),
    ):
        whole = fl.run(spec_of("gpt2"), tokens, attention_mask=mask)
        rows = torch.arange(2)
        for chosen, columns in (
            (-1, last),
            (1, second),
            (torch.tensor([1, 1]), second),
        ):
            got = fl.run(spec_of("gpt2"), tokens, attention_mask=mask, logits_at=chosen)
            expected = whole[rows, columns][:, None]
            torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=0)


def test_logits_at_leaves_no_site_of_logits() -> None:
    """Its positions would mean others: neither kept nor edited, nor kept by default."""
    spec = spec_of("gpt2")
    kept = fl.run_with_cache(spec, tokens_of(), logits_at=-1).cache
    assert fl.logits() not in kept
    with pytest.raises(errors.OptionError, match="no such site"):
        run(fl.Zero(fl.logits(pos=-1)), logits_at=-1)
    with pytest.raises(errors.OptionError, match="no such site"):
        fl.run_with_cache(spec, tokens_of(), capture=[fl.logits()], logits_at=-1)


# grad, finite, offload


def test_no_graph_is_recorded_unasked() -> None:
    """Neither for logits nor for what is kept, although weights require gradients."""
    logits, kept = fl.run_with_cache(spec_of("gpt2"), tokens_of())
    assert any(p.requires_grad for p in spec_of("gpt2").module.parameters())
    assert not logits.requires_grad
    assert not any(held.requires_grad for held in kept.values())


@pytest.mark.parametrize("edits", [[], [fl.Scale(fl.resid_pre(1), 2.0)]])
def test_graph_is_recorded_where_asked_for(edits: Any) -> None:
    """Through it a weight's gradient equals an untouched module's."""
    model: Any = tiny_hf_model("gpt2")
    logits = run(*edits, grad=True)
    weight = spec_of("gpt2").module.get_parameter("transformer.h.1.ln_1.weight")
    (got,) = torch.autograd.grad(logits.logsumexp(-1).sum(), weight)
    if edits:

        def enter(module: Any, args: Any, kwargs: Any) -> Any:
            return (2 * args[0], *args[1:]), kwargs

        model.transformer.h[1].register_forward_pre_hook(enter, with_kwargs=True)
    theirs = model(tokens_of()).logits.logsumexp(-1).sum()
    own = model.get_parameter("transformer.h.1.ln_1.weight")
    (expected,) = torch.autograd.grad(theirs, own)
    torch.testing.assert_close(expected, got, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda v: fl.Add(fl.resid_pre(1), v),
        lambda v: fl.Interchange(fl.resid_pre(1), torch.ones(16), directions=v[None]),
        lambda v: fl.ProjectOut(fl.resid_pre(1), v),
    ],
)
def test_graph_is_recorded_for_every_tensor_of_an_edit(make: Any) -> None:
    """What is added, and directions."""
    vector = torch.linspace(-1, 1, 16).requires_grad_()
    run(make(vector)).logsumexp(-1).sum().backward()
    assert vector.grad is not None
    assert vector.grad.any()


def test_graph_is_recorded_for_the_parameters_of_a_spliced_module() -> None:
    """A module can be trained in its place."""
    linear = torch.nn.Linear(16, 16)
    run(fl.Splice(fl.resid_pre(1), linear)).logsumexp(-1).sum().backward()
    assert linear.weight.grad is not None
    assert linear.weight.grad.any()


def test_finite_lets_finite_values_pass() -> None:
    """The same bits as without looking."""
    edit = fl.Scale(fl.resid_pre(1), 2.0)
    assert torch.equal(run(edit), run(edit, finite=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_finite_names_the_edit_that_made_the_value(value: float) -> None:
    """The second of two edits, by its index and site."""
    edits = [fl.Scale(fl.resid_pre(0), 2.0), fl.Set(fl.resid_pre(1, pos=3), value)]
    with pytest.raises(errors.NonFiniteError) as caught:
        run(*edits, finite=True)
    assert "interventions[1] (Set)" == caught.value.where
    assert "resid_pre.1[pos=3]" == caught.value.site


def test_finite_under_a_transform_is_refused() -> None:
    """No value can be looked at there."""
    spec, inputs = spec_of("gpt2"), tiny_inputs("gpt2")

    def value(vector: Tensor) -> Tensor:
        edits = [fl.Add(fl.resid_pre(1), vector)]
        return fl.run(spec, inputs, edits, finite=True)

    with pytest.raises(errors.OptionError, match="finite"):
        torch.func.vmap(value)(torch.ones(2, 16))


def test_offload_moves_what_is_kept_and_nothing_else() -> None:
    """The logits stay; a tensor that two sites share moves once."""
    logits, kept = fl.run_with_cache(
        spec_of("gpt2"),
        tokens_of(),
        capture=[fl.resid_pre, fl.resid_post],
        offload="meta",
    )
    assert {"meta"} == {held.device.type for held in kept.values()}
    assert torch.equal(run(), logits)
    assert kept[fl.resid_post(0)] is kept[fl.resid_pre(1)]


def test_offload_to_the_same_device_copies_nothing() -> None:
    """What is there already is what the model went on with."""
    held = fl.run_with_cache(
        spec_of("gpt2"),
        tokens_of(),
        capture=[fl.attn_out(0), fl.attn_proj(0)],
        offload="cpu",
    ).cache
    assert held[fl.attn_out(0)].data_ptr() == held[fl.attn_proj(0)].data_ptr()


def test_offload_to_no_device_is_refused() -> None:
    """Before the model runs."""
    with pytest.raises(errors.OptionError, match="offload"):
        fl.run_with_cache(spec_of("gpt2"), tokens_of(), offload="moon")


# instrumented


def test_instrumented_runs_with_the_same_edits_each_time() -> None:
    """As `run_with_cache` would, on other inputs too."""
    edits, capture = [fl.Zero(fl.z(0, head=1))], [fl.resid_post]
    with fl.instrumented(spec_of("gpt2"), edits, capture) as call:
        for seed in (0, 1):
            inputs = tiny_inputs("gpt2", seed=seed)
            logits, kept = call(inputs)
            expected = fl.run_with_cache(
                spec_of("gpt2"), inputs, edits, capture=capture
            )
            assert torch.equal(expected.logits, logits)
            assert [*expected.cache] == [*kept]


def test_instrumented_may_be_entered_again() -> None:
    """The same one within itself, and once more afterwards."""
    calls = fl.instrumented(spec_of("gpt2"), [fl.Zero(fl.z(0))], [fl.z(0)])
    with calls as outer, calls as inner:
        assert torch.equal(outer(tokens_of()).logits, inner(tokens_of()).logits)
    with calls as again:
        assert not again(tokens_of()).cache[fl.z(0)].any()


def test_instrumented_calls_do_not_meet() -> None:
    """Two with other edits, one inside the other, and a plain run between them."""
    spec = spec_of("gpt2")
    one, two = [fl.Zero(fl.z(0))], [fl.Zero(fl.mlp_out(1))]
    kept = [fl.resid_post]
    with (
        fl.instrumented(spec, one, kept) as first,
        fl.instrumented(spec, two, kept) as second,
    ):
        assert torch.equal(run(*one), first(tokens_of()).logits)
        assert torch.equal(run(*two), second(tokens_of()).logits)
        assert torch.equal(run(), fl.run(spec, tokens_of()))
        assert torch.equal(run(*one), first(tokens_of()).logits)


def test_instrumented_is_left_after_an_error() -> None:
    """Nothing is on once the block is left."""
    with pytest.raises(ZeroDivisionError), fl.instrumented(spec_of("gpt2")):
        raise ZeroDivisionError
    with torch.no_grad():
        expected = tiny_hf_model("gpt2")(tokens_of()).logits
    assert torch.equal(expected, run())


def test_instrumented_keeps_its_arguments() -> None:
    """The caller's lists may change afterwards."""
    edits: list[fl.Intervention] = []
    capture: list[Any] = [fl.z(0)]
    with fl.instrumented(spec_of("gpt2"), edits, capture) as call:
        edits.append(fl.Zero(fl.z(0)))
        capture.append(fl.z(1))
        logits, kept = call(tokens_of())
    assert torch.equal(run(), logits)
    assert [fl.z(0)] == [*kept]


@pytest.mark.parametrize("capture", ["resid_post", fl.resid_post, [fl.z(9)], []])
@pytest.mark.usefixtures("unchecked")
def test_instrumented_refuses_what_a_run_would(capture: Any) -> None:
    """Already when it is made."""
    with pytest.raises(errors.FunlensError):
        fl.instrumented(spec_of("gpt2"), [], capture)


# what is no list of interventions


@pytest.mark.parametrize(
    "wrong",
    [None, {}, "", 0, {"a": 1}, fl.Zero(fl.z(0)), iter(()), [3], [fl.z(0)]],
    ids=lambda wrong: type(wrong).__name__,
)
@pytest.mark.parametrize("call", [fl.run, fl.run_with_cache, fl.check])
@pytest.mark.usefixtures("unchecked")
def test_interventions_that_are_no_list_are_refused(call: Any, wrong: Any) -> None:
    """Nothing that looks empty is taken for no interventions."""
    with pytest.raises(errors.OptionError, match="interventions"):
        call(spec_of("gpt2"), tokens_of(), wrong)


@pytest.mark.parametrize("nothing", [[], ()])
def test_no_interventions_are_a_plain_run(nothing: Any) -> None:
    """An empty list or tuple."""
    assert torch.equal(run(), fl.run(spec_of("gpt2"), tokens_of(), nothing))


def test_spec_can_be_copied_shallowly() -> None:
    """`copy.copy` gives a spec that runs."""
    assert torch.equal(run(), fl.run(copy.copy(spec_of("gpt2")), tokens_of()))
