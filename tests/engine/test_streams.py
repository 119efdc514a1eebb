"""Models whose blocks pass several streams to each other."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.errors import ShapeError, SiteNotFoundError
from funlens.testing import tiny_hf_model, tiny_inputs

COUNTS: Final = {
    "deepseek_v4": 2,
    "hy_v4": 2,
    "qwen4_exp_text": 4,
    "gemma3n_text": 4,
    "prophetnet": 3,
}


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def theirs(name: str, raw: Tensor) -> Tensor:
    """What HuggingFace's block passes on, with the streams behind the positions."""
    if name == "gemma3n_text":
        return raw.permute(1, 2, 0, 3)
    if name == "qwen4_exp_text":
        return raw.unflatten(-1, (COUNTS[name], -1))
    if name == "prophetnet":
        return torch.stack(raw.chunk(COUNTS[name], dim=1), dim=2)
    return raw


@pytest.mark.parametrize("name", COUNTS)
def test_streams_are_what_the_block_passes(name: str) -> None:
    """`streams_pre` and `streams_post` are the input and output of HuggingFace's."""
    module: Any = tiny_hf_model(name)
    base = module.base_model
    blocks = base.decoder.layers if name == "prophetnet" else base.layers
    seen: list[Tensor] = []

    def keep(_: Any, args: Any, output: Any) -> None:
        out = output if isinstance(output, Tensor) else output[0]
        seen.extend([args[0].clone(), out.clone()])

    blocks[0].register_forward_hook(keep)
    with torch.no_grad():
        module(**tiny_inputs(name))
    spec = spec_of(name)
    parts = [fl.streams_pre, fl.streams_post]
    cache = fl.run_with_cache(spec, tiny_inputs(name), capture=parts).cache
    assert COUNTS[name] == spec.n_streams
    assert (2, 7, COUNTS[name], 16) == tuple(cache[fl.streams_pre(0)].shape)
    assert torch.equal(theirs(name, seen[0]), cache[fl.streams_pre(0)])
    assert torch.equal(theirs(name, seen[1]), cache[fl.streams_post(0)])


@pytest.mark.parametrize("name", COUNTS)
def test_one_stream_is_selected(name: str) -> None:
    """`stream=` takes one, and an edit of it leaves the others."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    site = fl.streams_post(0, stream=1, pos=-1)
    before = fl.run_with_cache(spec, inputs, capture=[fl.streams_post(0)]).cache
    after = fl.run_with_cache(
        spec, inputs, [fl.Zero(site)], capture=[fl.streams_post(0)]
    ).cache
    expected = before[fl.streams_post(0)].clone()
    assert torch.equal(expected[:, -1, 1], before[site])
    expected[:, -1, 1] = 0
    assert torch.equal(expected, after[fl.streams_post(0)])


@pytest.mark.parametrize("name", COUNTS)
def test_stop_gives_the_streams(name: str) -> None:
    """Stopping at a layer gives the streams that enter it."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    expected = fl.run_with_cache(spec, inputs, capture=[fl.streams_pre(1)]).cache
    got = fl.run(spec, inputs, stop_at_layer=1)
    assert torch.equal(expected[fl.streams_pre(1)], got)


@pytest.mark.parametrize("name", ["deepseek_v4", "qwen4_exp_text", "prophetnet"])
def test_start_goes_on_from_the_streams(name: str) -> None:
    """A run from layer 1 gives the logits of the whole run, without block 0."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    logits, cache = fl.run_with_cache(spec, inputs, capture=[fl.streams_pre(1)])
    streams = cache[fl.streams_pre(1)]
    got = fl.run(spec, inputs, start_at_layer=1, residual=streams)
    assert torch.equal(logits, got)
    with pytest.raises(ShapeError, match="stream"):
        fl.run(spec, inputs, start_at_layer=1, residual=streams[:, :, 0])


def test_one_residual_is_not_to_be_had() -> None:
    """The sites of one stream name what there is instead."""
    with pytest.raises(SiteNotFoundError, match="streams_p"):
        fl.run(spec_of("hy_v4"), tiny_inputs("hy_v4"), [fl.Zero(fl.resid_pre(0))])


def test_keys_count_the_positions_where_others_stand_behind() -> None:
    """`key=-1` is the last token, also where compressed keys come after it."""
    spec, inputs = spec_of("deepseek_v4"), tiny_inputs("deepseek_v4")
    cache = fl.run_with_cache(spec, inputs, capture=[fl.pattern(1)]).cache
    whole = cache[fl.pattern(1)]
    assert whole.shape[-1] > whole.shape[-2]
    last = fl.pattern(1, key=-1)
    kept = fl.run_with_cache(spec, inputs, capture=[last]).cache[last]
    assert torch.equal(whole[..., whole.shape[-2] - 1], kept)
