"""The laws on everything that hears, and on what writes down what it hears."""

from collections.abc import Mapping
from typing import Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.adapters import described
from funlens.errors import InputError, SelectionError
from funlens.testing import RECIPES, tiny_hf_model, tiny_inputs
from tests.laws.every_law import check_every_law, marked

# Not described with their sound, and why.
WITHOUT: Final = {
    "dia-speech": "its logits have a row for each of three ids at a position",
    "vibevoice-speech": "it draws noise from the global generator",
    "vibevoice_asr-speech": "it draws noise from the global generator",
}
KNOWN: Final = frozenset(described())
EARS: Final = {"input_features", "input_values"}
HEARING: Final = [
    row
    for row in RECIPES
    if row.task in {"audio-classifier", "ctc", "speech"}
    or (row.task == "base" and EARS & dict(row.inputs).keys())
]
DESCRIBED: Final = [row for row in HEARING if row.name not in WITHOUT]
A_FEW: Final = frozenset(
    {
        "granite_speech-speech",
        "kyutai_speech_to_text-speech",
        "voxtral_realtime-speech",
        "wav2vec2-ctc",
        "wavlm-ctc",
        "whisper-speech",
    }
)


@pytest.mark.parametrize("name", marked(DESCRIBED, A_FEW))
def test_every_law_holds(name: str, unchecked: None) -> None:
    """Each law holds that applies, against a model that funlens never saw."""
    check_every_law(name)


def test_all_else_has_a_table() -> None:
    """What is left out is there, and all that is not left out has a table."""
    assert set() == set(WITHOUT) - {row.name for row in HEARING}
    assert set() == {row.model_type for row in DESCRIBED} - KNOWN
    assert 18 == sum(row.task == "speech" for row in DESCRIBED)


@pytest.mark.parametrize("name", ["vibevoice-speech", "vibevoice_asr-speech"])
def test_noise_of_the_model_is_refused(name: str) -> None:
    """A model that draws from the global generator does so beside its sound only."""
    spec = fl.from_module(tiny_hf_model(name))
    inputs = tiny_inputs(name)
    with pytest.raises(InputError, match="global generator"):
        fl.run(spec, inputs)
    untouched = tiny_hf_model(name)
    tokens = inputs["input_ids"]
    assert fl.run(spec, tokens).equal(untouched(input_ids=tokens).logits)


@pytest.fixture(name="hearer")
def _hearer() -> fl.ModelSpec:
    return fl.from_module(tiny_hf_model("wav2vec2-ctc"))


@pytest.fixture(name="padded")
def _padded() -> Mapping[str, Tensor]:
    """Two waves, of which the second is shorter."""
    wave = tiny_inputs("wav2vec2-ctc")["input_values"].clone()
    mask = torch.ones_like(wave, dtype=torch.long)
    wave[1, 60:], mask[1, 60:] = 0.0, 0
    return {"input_values": wave, "attention_mask": mask}


def test_padded_sound_gives_the_same_logits(
    hearer: fl.ModelSpec, padded: Mapping[str, Tensor]
) -> None:
    """The mask over samples goes to HuggingFace's model as it is."""
    untouched = tiny_hf_model("wav2vec2-ctc")
    expected = untouched(**padded).logits
    assert fl.run(hearer, padded).equal(expected)
    run = fl.run_with_cache(hearer, padded)
    assert (run.logits - expected).abs().max() < 1e-5


@pytest.mark.filterwarnings("ignore:Support for mismatched")  # HuggingFace's own
def test_wavlm_leaves_padding_out_as_torch_does() -> None:
    """Its attention, step by step, hides the frames of padding, bit for bit."""
    spec = fl.from_module(tiny_hf_model("wavlm-ctc"))
    wave = tiny_inputs("wavlm-ctc")["input_values"].clone()
    mask = torch.ones_like(wave, dtype=torch.long)
    mask[1, 60:] = 0
    given = {"input_values": wave, "attention_mask": mask}
    assert fl.run(spec, given).equal(tiny_hf_model("wavlm-ctc")(**given).logits)


def test_positions_count_from_the_last_real_frame(
    hearer: fl.ModelSpec, padded: Mapping[str, Tensor]
) -> None:
    """Frames of padding are none of a row's positions."""
    last = fl.resid_post(1, pos=-1)
    _, cache = fl.run_with_cache(hearer, padded)
    whole = cache[fl.resid_post(1)]
    n_real = int(
        tiny_hf_model("wav2vec2-ctc")._get_feat_extract_output_lengths(torch.tensor(60))
    )
    expected = torch.stack([whole[0, -1], whole[1, n_real - 1]])
    assert cache[last].equal(expected)
    _, kept = fl.run_with_cache(hearer, padded, capture=[last])
    assert (kept[last] - expected).abs().max() < 1e-5


def test_a_value_given_for_frames_stays_as_it_is(
    hearer: fl.ModelSpec, padded: Mapping[str, Tensor]
) -> None:
    """The model blanks frames of padding in place: not in the caller's tensor."""
    _, cache = fl.run_with_cache(hearer, padded, capture=[fl.embed])
    mine = torch.ones_like(cache[fl.embed()])
    fl.run(hearer, padded, [fl.Set(fl.embed(), mine)])
    assert mine.equal(torch.ones_like(mine))


def test_ends_that_nobody_knows_are_not_counted_from() -> None:
    """Where a padded row ends, only some models tell: others count from the start."""
    spec = fl.from_module(tiny_hf_model("sew-ctc"))
    wave = tiny_inputs("sew-ctc")["input_values"]
    mask = torch.ones_like(wave, dtype=torch.long)
    mask[1, 60:] = 0
    given = {"input_values": wave, "attention_mask": mask}
    fl.run(spec, given, [fl.Zero(fl.resid_post(0, pos=0))])
    wave_only = {"input_values": wave}
    n_pos = fl.run(spec, wave_only).shape[1]  # more than the frames within
    fl.check(spec, wave_only, [fl.Zero(fl.logits(pos=n_pos - 1))])
    for pos in (-1, slice(1, None), slice(-2, 4)):
        with pytest.raises(SelectionError, match="end of rows"):
            fl.run(spec, given, [fl.Zero(fl.resid_post(0, pos=pos))])


def test_logits_at_frames(hearer: fl.ModelSpec) -> None:
    """Frames are chosen before they are spelled, though only the run counts them."""
    wave = tiny_inputs("wav2vec2-ctc")
    every = fl.run(hearer, wave)
    chosen = fl.run(hearer, wave, logits_at=(0, -1))
    assert (chosen - every[:, [0, -1]]).abs().max() < 1e-6
    with pytest.raises(SelectionError, match="99 of"):
        fl.run(hearer, wave, logits_at=99)


def test_a_conformer_adds_four_times() -> None:
    """Its stream is what entered, and what four parts add, under a norm."""
    name = "wav2vec2-conformer-base"
    module = tiny_hf_model(name)
    spec = fl.from_module(module)
    _, cache = fl.run_with_cache(spec, tiny_inputs(name))
    parts = (fl.macaron_out(0), fl.attn_out(0), fl.ssm_out(0), fl.mlp_out(0))
    total = cache[fl.resid_pre(0)] + sum(cache[part] for part in parts)
    normed = module.encoder.layers[0].final_layer_norm(total)
    assert (normed - cache[fl.resid_post(0)]).abs().max() < 1e-5


def test_an_edit_of_the_sound_moves_the_words() -> None:
    """What a decoder reads of the sound is a stack of its own."""
    name = "voxtral-speech"
    spec, inputs = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)
    base = fl.run(spec, inputs)
    edited = fl.run(spec, inputs, [fl.Zero(fl.audio.resid_post(1))])
    assert not base.equal(edited)
    with pytest.raises(InputError, match="input_features"):
        fl.run(spec, inputs["input_ids"], [fl.Zero(fl.audio.resid_post(1))])
