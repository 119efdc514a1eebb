"""Models with another head than one of words, or none; and encoders with decoders."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.errors import InputError, OptionError, UnsupportedConfigError
from funlens.testing import tiny_hf_model, tiny_inputs

TOLERANCE: Final = 1e-4  # float32: softmax over more keys sums in another order
N_PAD: Final = 3
HEADLESS: Final = ("gpt2-base", "bert-base", "t5-base")
ROWS: Final = ("gpt2-sequence-classification", "bert-sequence-classification")
OTHERS: Final = (*HEADLESS, *ROWS, "gpt2-token-classification")


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


@torch.no_grad()
def untouched(name: str, **inputs: Tensor) -> Any:
    """What HuggingFace's model gives that funlens never saw."""
    return tiny_hf_model(name)(**(inputs or tiny_inputs(name)))


@pytest.mark.parametrize("name", HEADLESS)
def test_a_model_without_a_head_gives_its_stream(name: str) -> None:
    """The last hidden state, bit for bit, and no site of logits."""
    expected = untouched(name).last_hidden_state
    assert torch.equal(expected, fl.run(spec_of(name), tiny_inputs(name)))
    parts = {info.site.part for info in fl.sites(spec_of(name))}
    assert set() == parts & {"logits", "label_logits"}


@pytest.mark.parametrize("name", ROWS)
def test_a_classifier_of_rows_has_logits_without_positions(name: str) -> None:
    """They are met, edited and declared as [batch, label]."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    logits, cache = fl.run_with_cache(spec, inputs, capture=[fl.label_logits])
    assert torch.equal(untouched(name).logits, logits)
    assert torch.equal(logits, cache[fl.label_logits()])
    (info,) = (each for each in fl.sites(spec) if each.site.part == "label_logits")
    assert (("batch", "label"), ("batch", 3)) == (info.axes, info.shape)
    zeroed = fl.run(spec, inputs, [fl.Zero(fl.label_logits())])
    assert torch.equal(torch.zeros(2, 3), zeroed)


def test_a_classifier_of_tokens_has_a_logit_for_each_label() -> None:
    """Its vocabulary are the labels."""
    spec = spec_of("bert-token-classification")
    (info,) = (each for each in fl.sites(spec) if each.site.part == "logits")
    assert ("batch", "pos", 3) == info.shape


@pytest.mark.parametrize("name", OTHERS)
def test_no_next_token_is_made_of_another_head(name: str) -> None:
    """`loss`, `generate` and `logits_at` say so before anything runs."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    with pytest.raises(InputError, match="does not predict the next token"):
        fl.loss(spec, inputs)
    with pytest.raises(InputError, match="does not generate"):
        fl.generate(spec, inputs)
    with pytest.raises(OptionError, match="no unembedding"):
        fl.run(spec, inputs, logits_at=-1)


def test_a_classifier_that_reads_the_first_column_refuses_padding_there() -> None:
    """HuggingFace would classify a padding token."""
    tokens = tiny_inputs("bert-sequence-classification")["input_ids"]
    mask = torch.ones_like(tokens)
    mask[0, 0] = 0
    with pytest.raises(InputError, match="reads the first column"):
        fl.run(spec_of("bert-sequence-classification"), tokens, attention_mask=mask)


def test_an_encoder_alone_is_the_main_stack() -> None:
    """T5's classifier of tokens has no decoder: nothing is called `encoder`."""
    spec = spec_of("t5-token-classification")
    assert not spec.is_encoder_decoder
    assert not spec.is_causal
    assert {""} == {info.site.stack for info in fl.sites(spec)}


def test_a_decoder_reads_the_encoders_tokens_where_the_family_does_so() -> None:
    """BART shifts its input, so that both stacks have as many positions."""
    tokens = tiny_inputs("bart-masked")["input_ids"]
    logits, cache = fl.run_with_cache(
        spec_of("bart-masked"), tokens, capture=[fl.resid_pre(0)]
    )
    assert torch.equal(untouched("bart-masked").logits, logits)
    assert tokens.shape == cache[fl.resid_pre(0)].shape[:2]


@pytest.mark.parametrize("name", ["bart-seq2seq", "marian-seq2seq", "m2m_100"])
def test_padding_before_the_encoders_tokens_changes_nothing(name: str) -> None:
    """Positions are counted from the first token, by the model or for it."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    tokens = inputs["input_ids"]
    pad: Any = spec.engine.config.pad_token_id
    blank = torch.full((2, N_PAD), pad)
    padded = {
        **inputs,
        "input_ids": torch.cat([blank, tokens], dim=1),
        "attention_mask": torch.cat(
            [torch.zeros_like(blank), torch.ones_like(tokens)], 1
        ),
    }
    expected, got = fl.run(spec, inputs), fl.run(spec, padded)
    assert (expected - got).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["pegasus-seq2seq", "marian-seq2seq", "mvp-seq2seq"])
def test_the_embedding_is_what_enters_the_sum(name: str) -> None:
    """These scale it outside of its module, if the config says so."""
    plain = tiny_hf_model(name)
    config: Any = plain.config
    config.scale_embedding = True
    spec = fl.from_module(type(plain)(config).eval())
    norm = getattr(spec.engine.module.base_model.decoder, "layernorm_embedding", None)
    parts = [fl.embed, fl.pos_embed, fl.resid_pre(0)]
    cache = fl.run_with_cache(spec, tiny_inputs(name), capture=parts).cache
    total = cache[fl.embed()] + cache[fl.pos_embed()]
    expected = total if norm is None else norm(total)
    assert (expected - cache[fl.resid_pre(0)]).abs().max() < TOLERANCE


def test_layers_that_share_a_module_are_edited_apart() -> None:
    """ALBERT runs one layer twice: an edit of the second leaves the first."""
    spec, inputs = spec_of("albert"), tiny_inputs("albert")
    clean = fl.run_with_cache(spec, inputs, capture=[fl.mlp_out]).cache
    edited = fl.run_with_cache(
        spec, inputs, [fl.Zero(fl.mlp_out(1))], capture=[fl.mlp_out]
    ).cache
    assert torch.equal(clean[fl.mlp_out(0)], edited[fl.mlp_out(0)])
    assert not edited[fl.mlp_out(1)].any()
    assert clean[fl.mlp_out(1)].any()


def test_shared_weights_are_replaced_in_every_layer() -> None:
    """`params` goes by HuggingFace's names, whichever copy runs."""
    model = tiny_hf_model("albert-groups")
    spec, inputs = fl.from_module(model), tiny_inputs("albert-groups")
    name = "albert.encoder.albert_layer_groups.1.albert_layers.0.ffn.weight"
    doubled = {name: 2 * dict(model.named_parameters())[name].detach()}
    changed = tiny_hf_model("albert-groups")
    with torch.no_grad():
        changed.get_parameter(name).copy_(doubled[name])
        expected: Tensor = changed(**inputs).logits
    assert torch.equal(expected, fl.run(spec, inputs, params=doubled))


@pytest.mark.parametrize("name", ["longformer", "fsmt", "squeezebert"])
def test_a_run_stops_and_starts_in_the_usual_order_of_axes(name: str) -> None:
    """Whatever the family passes on, a residual is [batch, pos, d_model]."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    n_pos = inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]
    last = spec.n_layers - 1
    residual = fl.run(spec, inputs, stop_at_layer=last)
    assert (2, n_pos, 16) == tuple(residual.shape)
    if spec.engine.can_skip:
        again = fl.run(spec, inputs, start_at_layer=last, residual=residual)
        assert (again - fl.run(spec, inputs)).abs().max() < TOLERANCE


def test_sparse_attention_is_refused() -> None:
    """BigBird swaps its own modules in the first run."""
    model: Any = tiny_hf_model("big_bird-masked")
    model.config.attention_type = "block_sparse"
    with pytest.raises(UnsupportedConfigError, match="original_full"):
        fl.from_module(model)


def test_routers_that_would_cast_your_weights_are_refused() -> None:
    """A switch transformer in half precision casts them in its first run."""
    model: Any = tiny_hf_model("switch_transformers").to(torch.bfloat16)
    with pytest.raises(UnsupportedConfigError, match="they are yours"):
        fl.from_module(model)


def test_padding_is_refused_where_no_mask_is_taken() -> None:
    """FNet mixes every column."""
    tokens = tiny_inputs("fnet")["input_ids"]
    mask = torch.ones_like(tokens)
    mask[0, -1] = 0
    with pytest.raises(InputError, match="takes no mask"):
        fl.run(spec_of("fnet"), tokens, attention_mask=mask)
