"""Models whose layers or positions are laid out in a way of their own."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.errors import InputError, OptionError
from funlens.testing import tiny_hf_model, tiny_inputs

# Sums of a few terms of size 1 in float32, in another order.
TOLERANCE = 1e-5
PROMPT = 4  # positions that CPM-Ant puts in front


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def kept(name: str, site: fl.Site, edits: Any = ()) -> Tensor:
    """What passes a site."""
    found = fl.run_with_cache(spec_of(name), tiny_inputs(name), edits, capture=[site])
    return found.cache[site]


def second_half(moved: Tensor) -> Tensor:
    """The output of LongCat's first block, from another stream between its halves."""
    module: Any = tiny_hf_model("longcat_flash")
    block = module.model.layers[0]
    seen: dict[str, Any] = {}

    def keep(_: Any, args: Any, kwargs: Any) -> None:
        seen.update(kwargs)

    def keep_output(_: Any, args: Any, output: Any) -> None:
        seen["experts"] = output

    block.self_attn[1].register_forward_pre_hook(keep, with_kwargs=True)
    block.mlp.register_forward_hook(keep_output)
    with torch.no_grad():
        module(**tiny_inputs("longcat_flash"), use_cache=False)
        experts = seen.pop("experts")
        seen["hidden_states"] = block.input_layernorm[1](moved)
        mid = moved + block.self_attn[1](**seen)[0]
        added = block.mlps[1](block.post_attention_layernorm[1](mid))
    return mid + added + experts


@pytest.mark.parametrize("site", [fl.resid_post(0), fl.resid_pre(1)])
def test_an_edit_between_halves_reaches_the_sums_that_follow(site: fl.Site) -> None:
    """The stream within a block of HuggingFace's is edited as between blocks."""
    moved = kept("longcat_flash", site) + torch.linspace(-1, 1, 16)
    got = kept("longcat_flash", fl.resid_post(1), [fl.Set(site, moved)])
    assert torch.allclose(second_half(moved), got, atol=TOLERANCE)


def test_edits_between_halves_and_in_the_middle_add_up() -> None:
    """A later edit within the block meets what an earlier one made."""
    middle = [fl.Scale(fl.resid_mid(1), 2.0)]
    edits = [fl.Zero(fl.resid_post(0)), *middle]
    mid = kept("longcat_flash", fl.resid_mid(1), edits)
    attn_out = kept("longcat_flash", fl.attn_out(1), edits)
    assert torch.allclose(2 * attn_out, mid, atol=TOLERANCE)
    post = kept("longcat_flash", fl.resid_post(1), edits)
    parts = (fl.mlp_out(1), fl.dense_out(1))
    total = mid + sum(kept("longcat_flash", part, edits) for part in parts)
    assert torch.allclose(total, post, atol=TOLERANCE)


def test_halves_are_left_out_together() -> None:
    """A run may start at a block, and not within one."""
    spec, inputs = spec_of("longcat_flash"), tiny_inputs("longcat_flash")
    logits, cache = fl.run_with_cache(spec, inputs, capture=[fl.resid_pre])
    assert 4 == spec.n_layers
    got = fl.run(spec, inputs, start_at_layer=2, residual=cache[fl.resid_pre(2)])
    assert torch.equal(logits, got)
    stopped = fl.run(spec, inputs, stop_at_layer=1)
    assert torch.equal(cache[fl.resid_pre(1)], stopped)
    with pytest.raises(OptionError, match="within a block"):
        fl.run(spec, inputs, start_at_layer=3, residual=cache[fl.resid_pre(3)])


def test_each_run_of_a_block_is_a_layer() -> None:
    """Blocks that run in rounds have a layer for each time."""
    module: Any = tiny_hf_model("hrm_text")
    seen: list[Tensor] = []

    def keep(_: Any, args: Any, output: Tensor) -> None:
        seen.append(output)

    for block in (*module.model.L_module.layers, *module.model.H_module.layers):
        block.register_forward_hook(keep)
    with torch.no_grad():
        module(**tiny_inputs("hrm_text"))
    spec = spec_of("hrm_text")
    cache = fl.run_with_cache(
        spec, tiny_inputs("hrm_text"), capture=[fl.resid_post]
    ).cache
    assert module.config.num_hidden_layers == spec.n_layers == len(seen)
    assert all(
        torch.equal(out, cache[fl.resid_post(layer)]) for layer, out in enumerate(seen)
    )


def test_an_edit_acts_in_its_own_round() -> None:
    """An edit of one round leaves the rounds before it, and acts once."""
    edits = [fl.Scale(fl.resid_post(8), 0.5)]  # fast again, after a slow round
    spec, inputs = spec_of("hrm_text"), tiny_inputs("hrm_text")
    before = fl.run_with_cache(spec, inputs, capture=[fl.resid_post]).cache
    after = fl.run_with_cache(spec, inputs, edits, capture=[fl.resid_post]).cache
    assert 1 == after.receipts[0].count
    same = [
        torch.equal(before[fl.resid_post(at)], after[fl.resid_post(at)])
        for at in range(16)
    ]
    assert [True] * 8 + [False] * 8 == same


def test_positions_in_front_are_left_out() -> None:
    """Position 0 is the first token, where learned prompts stand before it."""
    module: Any = tiny_hf_model("cpmant")
    seen: list[Tensor] = []

    def keep(_: Any, args: Any, output: Any) -> None:
        seen.append(output[0])

    module.cpmant.encoder.layers[0].register_forward_hook(keep)
    with torch.no_grad():
        module(**tiny_inputs("cpmant"))
    got = kept("cpmant", fl.resid_post(0))
    assert torch.equal(seen[0][:, PROMPT:], got)
    assert torch.equal(seen[0][:, PROMPT], kept("cpmant", fl.resid_post(0, pos=0)))


def test_an_edit_leaves_what_stands_in_front() -> None:
    """An edit of a position is that of HuggingFace's column behind the prompts."""
    module: Any = tiny_hf_model("cpmant")

    def change(_: Any, args: Any, output: Any) -> Any:
        changed = output[0].clone()
        changed[:, PROMPT + 2] *= 3.0
        return (changed, *output[1:])

    module.cpmant.encoder.layers[0].register_forward_hook(change)
    with torch.no_grad():
        expected = module(**tiny_inputs("cpmant")).logits
    edits = [fl.Scale(fl.resid_post(0, pos=2), 3.0)]
    got = fl.run(spec_of("cpmant"), tiny_inputs("cpmant"), edits)
    assert torch.equal(expected, got)


@pytest.mark.parametrize("part", [fl.pattern, fl.z, fl.ln1_scale, fl.mlp_post])
def test_every_kind_of_site_leaves_out_what_stands_in_front(part: fl.Part) -> None:
    """Queries, keys and positions are as many as the tokens."""
    shape = kept("cpmant", part(0)).shape
    axes = dict(zip(part(0).axes, shape, strict=True))
    assert {7} == {axes[axis] for axis in axes.keys() & {"pos", "query", "key"}}


def test_what_stands_in_front_may_depend_on_an_input() -> None:
    """With a picture in front, a text position is still the text's."""
    inputs = tiny_inputs("git-image")
    spec = spec_of("git-image")
    site = fl.resid_post(0)
    with_picture = fl.run_with_cache(spec, inputs, capture=[site])
    n_pos = inputs["input_ids"].shape[1]
    assert n_pos == with_picture.cache[site].shape[1]
    assert n_pos < with_picture.logits.shape[1]
    residual = with_picture.cache[fl.resid_post(0)]
    with pytest.raises(OptionError, match="picture"):
        fl.run(spec, inputs, start_at_layer=1, residual=residual)


@pytest.mark.parametrize(
    ("name", "reason"), [("cpmant", "takes no mask"), ("prophetnet", "depend on the")]
)
def test_padding_is_refused_where_it_would_be_read(name: str, reason: str) -> None:
    """A model that cannot be told of padding is not given any."""
    inputs = tiny_inputs(name)["input_ids"]
    mask = torch.ones_like(inputs)
    mask[0, -2:] = 0
    with pytest.raises(InputError, match=reason):
        fl.run(spec_of(name), inputs, attention_mask=mask)


def test_layers_that_need_an_input_are_left_out_without_it() -> None:
    """A part in all layers means those that run; to name another is an error."""
    spec, inputs = spec_of("mllama"), tiny_inputs("mllama")
    cache = fl.run_with_cache(spec, inputs, capture=[fl.resid_post]).cache
    assert [fl.resid_post(0), fl.resid_post(2)] == list(cache)
    (needed,) = {info.given for info in fl.sites(spec) if info.given}
    assert "cross_attention_states" == needed
    for ask in (fl.run, fl.check):
        with pytest.raises(InputError, match=needed):
            ask(spec, inputs, [fl.Zero(fl.resid_post(1))])
    stream = torch.zeros(2, 7, 16)
    for bound in ({"stop_at_layer": 1}, {"start_at_layer": 1, "residual": stream}):
        with pytest.raises(InputError, match=needed):
            fl.run(spec, inputs, **bound)
    given = {**inputs, needed: torch.ones(2, 5, 16)}
    cache = fl.run_with_cache(spec, given).cache
    assert fl.cross_pattern(1) in cache
    assert (2, 4, 7, 5) == tuple(cache[fl.cross_pattern(1)].shape)


def test_rows_of_codes_are_one_row_of_the_stream() -> None:
    """A model of music reads several rows of ids for each row of its stream."""
    spec, inputs = spec_of("musicgen"), tiny_inputs("musicgen")
    logits, cache = fl.run_with_cache(spec, inputs)
    assert inputs["input_ids"].shape[0] == logits.shape[0] == 8
    assert 2 == cache[fl.resid_post(0)].shape[0]
    with pytest.raises(InputError, match="codebook"):
        fl.run(spec, inputs["input_ids"][:3])
    with pytest.raises(InputError, match="codebooks"):
        fl.generate(spec, inputs)


def test_positions_may_come_before_rows() -> None:
    """Sites of XLNet have rows first, as everywhere."""
    spec = spec_of("xlnet")
    alone = {"input_ids": tiny_inputs("xlnet")["input_ids"][:1]}
    cache = fl.run_with_cache(spec, alone, capture=[fl.resid_post(0)]).cache
    assert (1, 7, 16) == tuple(cache[fl.resid_post(0)].shape)
    assert torch.allclose(
        kept("xlnet", fl.resid_post(0))[:1], cache[fl.resid_post(0)], atol=TOLERANCE
    )


def test_stacks_of_bytes_and_patches() -> None:
    """A byte model has what encodes bytes and what runs over patches beside it."""
    spec, inputs = spec_of("blt"), tiny_inputs("blt")
    cache = fl.run_with_cache(spec, inputs).cache
    assert (2, 7, 16) == tuple(cache[fl.local.resid_post(1)].shape)
    assert cache[fl.patches.resid_post(1)].shape[1] != 7
    assert fl.Site.parse("patches.pattern.0") in cache
    edits = [fl.Zero(fl.local.resid_post(0, pos=-1))]
    assert not torch.equal(fl.run(spec, inputs), fl.run(spec, inputs, edits))


@pytest.mark.parametrize("name", ["openai-gpt", "hrm_text", "blt", "qwen4_exp_text"])
def test_generation_keeps_what_a_run_keeps(name: str) -> None:
    """What is kept while generating is what one run over all tokens keeps."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    part = fl.streams_post if spec.n_streams > 1 else fl.resid_post
    site = part(spec.n_layers - 1)
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    made = fl.generate_with_cache(spec, inputs, capture=[site], **options)
    whole = {"input_ids": made.tokens[:, :-1]}
    expected = fl.run_with_cache(spec, whole, capture=[site]).cache[site]
    assert torch.allclose(expected, made.cache[site], atol=TOLERANCE)
