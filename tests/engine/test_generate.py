"""Generation with edits, against HuggingFace's own."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Final

import attrs
import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

import funlens as fl
from funlens.adapters import described
from funlens.testing import CAUSAL, tiny_hf_model, tiny_inputs

NAMES: Final = ("gpt2", "llama", "gemma2", "mixtral", "gptj", "mamba")
TOLERANCE: Final = 1e-4  # float32: one token at a time sums in another order
N_NEW: Final = 5
UNSEEN: Final = -1e9  # what any score below means


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def prompt(name: str) -> Tensor:
    """Two rows of tokens."""
    return tiny_inputs(name)["input_ids"]


def made(name: str, edits: Any = (), **options: Any) -> Tensor:
    """Greedy tokens."""
    given: dict[str, Any] = {"max_new_tokens": N_NEW, "do_sample": False, **options}
    return fl.generate(spec_of(name), prompt(name), edits, **given)


def steer(name: str, **where: Any) -> list[fl.Intervention]:
    """A strong push of the stream."""
    vector = torch.linspace(-9, 9, 16)
    return [fl.Add(fl.resid_pre(1, **where), vector)]


@pytest.mark.parametrize("name", NAMES)
def test_greedy_equals_huggingface(name: str) -> None:
    """Without edits, and with an edit of nothing."""
    model: Any = tiny_hf_model(name)
    mask = torch.ones_like(prompt(name))
    expected = model.generate(
        prompt(name),
        attention_mask=mask,
        max_new_tokens=N_NEW,
        do_sample=False,
        pad_token_id=0,
    )
    assert torch.equal(expected, made(name))
    assert torch.equal(expected, made(name, [fl.Scale(fl.resid_pre(1), 1.0)]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("where", "expected"),
    [({"pos": 1}, 1), ({"pos": fl.generated}, N_NEW - 1), ({}, N_NEW)],
)
def test_edit_acts_as_often_as_its_positions_pass(
    name: str, where: dict[str, Any], expected: int
) -> None:
    """One position once, generated ones at each step but the unread last."""
    held = fl.generate_with_cache(
        spec_of(name),
        prompt(name),
        steer(name, **where),
        capture=[fl.resid_pre(1)],
        max_new_tokens=N_NEW,
        min_new_tokens=N_NEW,
        do_sample=False,
    )
    assert expected == held.cache.receipts[0].count


@pytest.mark.parametrize("name", [n for n in NAMES if n != "mamba"])
@pytest.mark.parametrize("where", [{"pos": 1}, {"pos": fl.generated}, {}])
def test_without_key_value_cache_agrees(name: str, where: dict[str, Any]) -> None:
    """Steering is the same with and without HuggingFace's cache."""
    edits = steer(name, **where)
    assert torch.equal(made(name, edits), made(name, edits, use_cache=False))


STEADY: Final[dict[str, Any]] = {
    "max_new_tokens": N_NEW,
    "min_new_tokens": N_NEW,
    "do_sample": False,
}


def kept(
    name: str,
    edits: Any,
    sites: Any,
    *,
    spec: fl.ModelSpec | None = None,
    **options: Any,
) -> tuple[fl.Generation, fl.Run]:
    """A generation that keeps some sites, and one forward over all that it read."""
    spec, given = spec or spec_of(name), tiny_inputs(name)
    if spec.is_encoder_decoder:
        options["decoder_start_token_id"] = 0
    held = fl.generate_with_cache(
        spec, given, edits, capture=sites, **{**STEADY, **options}
    )
    main = "decoder_input_ids" if spec.is_encoder_decoder else "input_ids"
    read = {**given, main: held.tokens[:, :-1]}
    return held, fl.run_with_cache(spec, read, edits, capture=sites)


def check_against_one_forward(
    name: str, edits: Any, sites: Any, **options: Any
) -> None:
    """What was kept on the way is what one forward over all tokens gives."""
    held, run = kept(name, edits, sites, **options)
    assert [*run.cache] == [*held.cache]
    for site in run.cache:
        expected, got = run.cache[site], held.cache[site]
        if site.part.endswith("scores"):  # families write other numbers for "unseen"
            expected, got = expected.clamp(min=UNSEEN), got.clamp(min=UNSEEN)
        torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=TOLERANCE)
    steps = run.logits[:, -N_NEW:]
    torch.testing.assert_close(steps, held.logits, atol=TOLERANCE, rtol=TOLERANCE)


# A family without and one with a rotation, one without SDPA, one whose cache holds the
# last few keys only, two stacks, a recurrence, one that unembeds the last position
# whatever is asked for, one that attends twice in a layer, and one whose own attention
# cannot do without a mask.
KEPT: Final = (
    "gpt2",
    "llama",
    "gptj",
    "gpt_oss",
    "t5-gated",
    "mamba",
    "falcon_h1",
    "diffllama",
    "modernbert-decoder",
)
EXPERTS: Final = "which experts a token gets depends on the tokens beside it"
WINDOW: Final = "HuggingFace's own cache keeps other keys than its mask shows"
PREDICTS: Final = "HuggingFace puts a token to be predicted behind the text"
RESCALED: Final = "its first run divides its weights; funlens wants it run before"
COUNTED: Final = "HuggingFace counts positions otherwise while generating"
SPARSE: Final = "HuggingFace's own indexer chooses other keys while generating"
BOUNDED: Final = "HuggingFace bounds a recurrence's steps, but not of a token by itself"
# Where HuggingFace's own generation differs from its own forward, or has no table.
APART: Final = {
    "axk2": SPARSE,
    "blt": "HuggingFace's own cache asks its config for what that does not have",
    "camembert": COUNTED,
    "cpmant": "funlens refuses: its prompt sees both ways",
    "data2vec-text": COUNTED,
    "deepseek_v4": "its compressed keys depend on the length of the text",
    "deepseek_v32": SPARSE,
    "doge-moe": EXPERTS,
    "glm_moe_dsa": SPARSE,
    "moshi": WINDOW,
    "mpt": "its scores are shifted by a constant that its pattern does not see",
    "nemotron_h": BOUNDED,
    "prophetnet": "its predicting streams depend on the length of the input",
    "reformer": "funlens refuses it",
    "roberta": COUNTED,
    "roberta-prelayernorm": COUNTED,
    "rwkv": RESCALED,
    "rwkv-rescaled": RESCALED,
    "xlm": PREDICTS,
    "xlm-roberta": COUNTED,
    "xlm-roberta-xl": COUNTED,
    "xlnet": PREDICTS,
    "xmod": COUNTED,
    "zamba2": BOUNDED,
}
OTHERS: Final = [
    recipe.name
    for recipe in CAUSAL
    if recipe.name not in {*KEPT, *APART} and recipe.model_type in described()
]


def every_site(name: str) -> list[fl.Site]:
    """Every site that the inputs of a recipe let the model pass."""
    given = tiny_inputs(name)
    sites = spec_of(name).sites
    return [info.site for info in sites if not info.given or info.given in given]


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("use_cache", [True, False])
def test_every_site_agrees_with_one_forward(name: str, *, use_cache: bool) -> None:
    """Kept on the way, with the keys of steps before and without them."""
    check_against_one_forward(name, [], every_site(name), use_cache=use_cache)


@pytest.mark.architectures
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_every_causal_family_agrees_with_one_forward(
    name: str, *, use_cache: bool
) -> None:
    """The same over the rest of the table."""
    check_against_one_forward(name, [], every_site(name), use_cache=use_cache)


def unbounded(module: Any) -> Any:
    """Let the steps of a module's recurrences be of any length."""
    for inner in module.modules():
        if hasattr(inner, "time_step_limit"):
            inner.time_step_limit = (0.0, float("inf"))
    return module


LIMITED: Final = [name for name, reason in APART.items() if reason == BOUNDED]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LIMITED)
def test_huggingface_alone_bounds_steps_in_one_forward_only(name: str) -> None:
    """Its own generation is off by far more than rounding; without bounds it is not."""

    def off(model: Any) -> float:
        """Tell how far the logits of its generation are from those of one forward."""
        tokens = prompt(name)
        out = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
            **STEADY,
        )
        with torch.no_grad():
            whole = model(out.sequences[:, :-1]).logits[:, -N_NEW:]
        return float((torch.stack(out.logits, 1) - whole).abs().max())

    assert off(tiny_hf_model(name)) > 5 * TOLERANCE
    assert off(unbounded(tiny_hf_model(name))) < TOLERANCE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize("use_cache", [True, False])
def test_every_site_agrees_with_one_forward_without_bounds(
    name: str, *, use_cache: bool
) -> None:
    """What HuggingFace itself does alike, funlens keeps alike."""
    spec = fl.from_module(unbounded(tiny_hf_model(name)))
    sites = every_site(name)
    check_against_one_forward(name, [], sites, spec=spec, use_cache=use_cache)


@pytest.mark.parametrize(
    ("name", "site", "needed"),
    [
        ("mllama", fl.resid_post(1), "cross_attention_states"),
        ("gemma3", fl.vision.resid_pre(0), "pixel_values"),
    ],
)
def test_site_of_an_input_that_is_not_there_is_refused(
    name: str, site: fl.Site, needed: str
) -> None:
    """Before the model runs, as for one forward."""
    with pytest.raises(fl.errors.InputError, match=needed):
        fl.generate_with_cache(spec_of(name), prompt(name), capture=[site])
    with pytest.raises(fl.errors.InputError, match=needed):
        fl.generate(spec_of(name), prompt(name), [fl.Zero(site)])


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_oss"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_selections_agree_with_one_forward(name: str, *, use_cache: bool) -> None:
    """Heads, positions of the prompt, and single keys and queries."""
    sites = [
        fl.z(0, head=1),
        fl.k(0, head=0),
        fl.resid_post(1, pos=2),
        fl.resid_post(1, pos=(1, 4)),
        fl.resid_post(0, pos=torch.tensor([1, 3])),
        fl.pattern(0, head=1),
        fl.pattern(0, key=0),
        fl.pattern(0, key=(0, 1)),
        fl.pattern(0, query=2),
        fl.pattern(1, head=2, query=3, key=1),
        fl.attn_scores(0, key=slice(0, 3)),
        fl.logits(pos=3),
    ]
    if name != "gpt2":
        sites += [fl.rot_k(0, pos=2), fl.rot_k(0, head=1), fl.rot_q(1, pos=(0, 5))]
    check_against_one_forward(name, [], sites, use_cache=use_cache)


@pytest.mark.parametrize("name", KEPT)
def test_edited_generation_agrees_with_one_edited_forward(name: str) -> None:
    """An edit of one position of the prompt."""
    sites = [fl.resid_post(1), fl.logits()]
    check_against_one_forward(name, steer(name, pos=1), sites)


@pytest.mark.parametrize(
    "edit",
    [
        fl.Zero(fl.pattern(0, key=0)),
        fl.Zero(fl.pattern(0, head=1, key=(1, 2))),
        fl.Scale(fl.rot_k(0, pos=1), 3.0),
        fl.Add(fl.logits(pos=-1), torch.linspace(-9, 9, 32)),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["llama", "gptj"])
def test_edit_of_keys_acts_at_every_step(name: str, edit: fl.Intervention) -> None:
    """A key of the prompt is looked at again by every token that follows."""
    check_against_one_forward_at(name, edit)


def check_against_one_forward_at(name: str, edit: fl.Intervention) -> None:
    """Compare the stream of the last step; positions are the prompt's."""
    spec, tokens = spec_of(name), prompt(name)
    site = fl.resid_post(1)
    held = fl.generate_with_cache(spec, tokens, [edit], capture=[site], **STEADY)
    pos = dict(edit.site.selections).get("pos")
    moved = edit
    if pos == -1:  # in one forward the prompt's last position is no longer the last
        moved = attrs.evolve(edit, site=attrs.evolve(edit.site, pos=6))
    run = fl.run_with_cache(spec, held.tokens[:, :-1], [moved], capture=[site])
    expected, got = run.cache[site], held.cache[site]
    torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=TOLERANCE)


def test_generated_positions_can_be_kept_alone() -> None:
    """The part of the whole that comes after the prompt."""
    site = fl.resid_post(1, pos=fl.generated)
    held, _ = kept("llama", [], [site.whole])
    alone = fl.generate_with_cache(
        spec_of("llama"), prompt("llama"), capture=[site], **STEADY
    )
    assert torch.equal(held.cache[site.whole][:, 7:], alone.cache[site])


def test_prompt_read_in_pieces_agrees_with_one_forward() -> None:
    """HuggingFace's `prefill_chunk_size`; a selection may lie across two pieces."""
    sites = [fl.resid_post(1), fl.resid_post(0, pos=(1, 5)), fl.pattern(0)]
    check_against_one_forward("gpt2", [], sites, prefill_chunk_size=3)
    check_against_one_forward(
        "gpt2", [fl.Zero(fl.mlp_out(0, pos=(1, 5)))], sites, prefill_chunk_size=3
    )


def test_cache_of_fixed_size_agrees_with_one_forward() -> None:
    """HuggingFace's static cache, whose last keys are not written yet."""
    sites = [fl.resid_post(1), fl.pattern(0), fl.rot_k(0), fl.rot_k(1, pos=2)]
    check_against_one_forward("llama", [], sites, cache_implementation="static")


def test_nothing_else_is_kept() -> None:
    """What is not captured is not there."""
    held, _ = kept("gpt2", [], [fl.resid_post(1)])
    assert [fl.resid_post(1)] == [*held.cache]


# padding


def mask_of(n_pad: int = 2) -> Tensor:
    """A mask under which the first row is shorter."""
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0, :n_pad] = 0
    return mask


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom", "gpt_oss", "mamba"])
@pytest.mark.parametrize(
    "where", [None, {"pos": 1}, {"pos": -1}, {"pos": fl.generated}, {}]
)
def test_padded_row_goes_on_as_it_would_alone(name: str, where: Any) -> None:
    """With edits that count positions from the row's own tokens."""
    edits = [] if where is None else steer(name, **where)
    given = {"input_ids": prompt(name), "attention_mask": mask_of()}
    both = fl.generate(spec_of(name), given, edits, **STEADY)
    alone = fl.generate(spec_of(name), prompt(name)[:1, 2:], edits, **STEADY)
    assert torch.equal(alone[0], both[0, 2:])


def test_cache_counts_from_the_last_token_that_was_read() -> None:
    """Whether the prompt was padded or not, and 0 is the row's first token."""
    site = fl.resid_post(1)
    given = {"input_ids": prompt("gpt2"), "attention_mask": mask_of()}
    held = fl.generate_with_cache(spec_of("gpt2"), given, capture=[site], **STEADY)
    whole = held.cache[site]
    assert torch.equal(whole[:, -1], held.cache[fl.resid_post(1, pos=-1)])
    first = torch.stack([whole[0, 2], whole[1, 0]])
    assert torch.equal(first, held.cache[fl.resid_post(1, pos=0)])


def test_row_that_ends_early_ends_with_its_last_token() -> None:
    """What HuggingFace writes after an end-of-sequence token is padding."""
    site = fl.resid_post(1)
    free = made("llama", min_new_tokens=N_NEW)
    end = int(free[0, 8])
    assert end not in free[1, 7:]
    held = fl.generate_with_cache(
        spec_of("llama"),
        prompt("llama"),
        capture=[site],
        max_new_tokens=N_NEW,
        do_sample=False,
        eos_token_id=end,
    )
    assert ((0, 0), (9, 11)) == (held.cache.starts, held.cache.stops)
    whole = held.cache[site]
    expected = torch.stack([whole[0, 8], whole[1, 10]])
    assert torch.equal(expected, held.cache[fl.resid_post(1, pos=-1)])


# two stacks


def test_two_stacks_equal_huggingface() -> None:
    """T5, greedy: with a decoder's prompt, without one, and from its start token."""
    model: Any = tiny_hf_model("t5-gated")
    given = tiny_inputs("t5-gated")
    given["attention_mask"] = mask_of()
    options: dict[str, Any] = {**STEADY, "decoder_start_token_id": 0}
    for inputs in (
        given,
        {name: held for name, held in given.items() if name != "decoder_input_ids"},
    ):
        expected = model.generate(**inputs, pad_token_id=0, **options)
        got = fl.generate(spec_of("t5-gated"), inputs, **options)
        assert torch.equal(expected, got)


def test_start_token_comes_before_the_decoder_s_prompt() -> None:
    """Positions count it, as HuggingFace does; its mask grows with it."""
    given = tiny_inputs("t5-gated")
    given["decoder_attention_mask"] = torch.ones(2, 5, dtype=torch.long)
    site = fl.resid_pre(0, pos=fl.generated)
    options: dict[str, Any] = {**STEADY, "decoder_start_token_id": 0}
    held = fl.generate_with_cache(
        spec_of("t5-gated"), given, [fl.Scale(site, 1.0)], capture=[site], **options
    )
    assert (2, 6 + N_NEW) == held.tokens.shape
    assert N_NEW - 1 == held.cache[site].shape[1] == held.cache.receipts[0].count


def test_decoder_s_own_first_token_stands_where_no_start_is_named() -> None:
    """HuggingFace would refuse it."""
    module: Any = tiny_hf_model("t5-gated")
    module.config.decoder_start_token_id = None
    module.generation_config.decoder_start_token_id = None
    spec = fl.from_module(module)
    given = tiny_inputs("t5-gated")
    given["decoder_input_ids"][:, 0] = 5
    options: dict[str, Any] = {**STEADY, "decoder_start_token_id": 5}
    expected = fl.generate(spec, given, **options)
    assert torch.equal(expected, fl.generate(spec, given, **STEADY))


@pytest.mark.parametrize("where", [{}, {"pos": 1}, {"pos": fl.generated}])
def test_steered_decoder_agrees_without_key_value_cache(where: Any) -> None:
    """As for one stack."""
    edits = steer("t5-gated", **where)
    given, spec = tiny_inputs("t5-gated"), spec_of("t5-gated")
    options: dict[str, Any] = {**STEADY, "decoder_start_token_id": 0}
    with_cache = fl.generate(spec, given, edits, **options)
    assert torch.equal(
        with_cache, fl.generate(spec, given, edits, use_cache=False, **options)
    )
    assert not torch.equal(with_cache, fl.generate(spec, given, **options))


# HuggingFace's own parts


def test_edits_go_with_huggingface_s_processors_and_criteria() -> None:
    """Both are called at every step, and act."""
    calls: list[tuple[int, ...]] = []

    def forbid(tokens: Tensor, scores: Tensor) -> Tensor:
        calls.append(tuple(tokens.shape))
        return scores.index_fill(1, torch.tensor([7]), 99.0)

    def stop(tokens: Tensor, scores: Any, **more: Any) -> Tensor:
        return torch.full((2,), tokens.shape[1] >= 9)

    got = fl.generate(
        spec_of("gpt2"),
        prompt("gpt2"),
        steer("gpt2"),
        max_new_tokens=5,
        logits_processor=LogitsProcessorList([forbid]),
        stopping_criteria=StoppingCriteriaList([stop]),
    )
    assert [(2, 7), (2, 8)] == calls
    assert (got[:, 7:] == 7).all()
    assert (2, 9) == got.shape


def test_streamer_is_given_the_prompt_and_each_token() -> None:
    """In order, and told the end."""
    seen: list[Any] = []

    class Streamer:
        """Writes down what it is given."""

        def put(self, value: Tensor) -> None:
            """Take tokens."""
            seen.extend(value.flatten().tolist())

        def end(self) -> None:
            """Take the end."""
            seen.append("end")

    tokens = prompt("gpt2")[:1]
    got = fl.generate(
        spec_of("gpt2"), tokens, steer("gpt2"), streamer=Streamer(), **STEADY
    )
    assert [*got[0].tolist(), "end"] == seen


def test_stop_strings_need_no_tokenizer_beside_the_spec() -> None:
    """HuggingFace wants one; the spec has it."""
    spec = fl.load("builtin:tiny")
    whole = fl.generate(spec, "The weather is", max_new_tokens=8)
    stop = whole.split()[-2]
    got = fl.generate(spec, "The weather is", max_new_tokens=8, stop_strings=[stop])
    assert whole.startswith(got)
    assert got.endswith(stop)


def test_texts_of_unequal_length_equal_texts_alone() -> None:
    """Padded on the left; a string gives a string, several give several."""
    spec = fl.load("builtin:tiny")
    texts = ["The weather is", "When Mary and John went to the store, John gave"]
    alone = [fl.generate(spec, text, max_new_tokens=4) for text in texts]
    assert tuple(alone) == fl.generate(spec, texts, max_new_tokens=4)
    held = fl.generate_with_cache(
        spec, texts, capture=[fl.resid_post(0)], max_new_tokens=4
    )
    assert tuple(alone) == held.texts


def test_threads_that_generate_do_not_meet() -> None:
    """Eight steered generations at once give what each gives alone."""

    def steered(strength: int) -> Tensor:
        site = fl.resid_pre(1, pos=fl.generated)
        edit = fl.Add(site, torch.linspace(-9, 9, 16), scale=float(strength))
        tokens = prompt("llama")
        return fl.generate(spec_of("llama"), tokens, [edit], **STEADY)

    expected = [steered(strength) for strength in range(8)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(steered, range(8)))
    assert all(map(torch.equal, expected, got))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_sampling_is_huggingface_s(name: str) -> None:
    """The same draws as its own, from a generator with the same seed."""
    model: Any = tiny_hf_model(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        expected = model.generate(
            prompt(name),
            attention_mask=torch.ones_like(prompt(name)),
            do_sample=True,
            max_new_tokens=N_NEW,
            pad_token_id=0,
        )
    assert torch.equal(expected, made(name, do_sample=True, seed=4))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_seed_fixes_the_draws(name: str) -> None:
    """Same seed, same tokens; the global generator is where it was."""
    state = torch.get_rng_state()

    def drawn(seed: int) -> Tensor:
        return made(name, do_sample=True, seed=seed, max_new_tokens=12)

    assert torch.equal(drawn(1), drawn(1))
    assert any(not torch.equal(drawn(1)[0], drawn(seed)[0]) for seed in (2, 3))
    assert torch.equal(state, torch.get_rng_state())


def test_unknown_option_is_refused() -> None:
    """HuggingFace's `generate` does not know it."""
    with pytest.raises(fl.errors.OptionError, match="temprature"):
        made("gpt2", temprature=0.5)


def test_prompt_padded_on_the_right_is_refused() -> None:
    """It cannot go on."""
    tokens = prompt("gpt2")
    mask = torch.ones_like(tokens)
    mask[0, -2:] = 0
    with pytest.raises(fl.errors.InputError, match="right"):
        fl.generate(spec_of("gpt2"), {"input_ids": tokens, "attention_mask": mask})


def test_sampling_without_a_seed_is_refused() -> None:
    """Nothing is drawn from the global generator."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    tokens = tiny_inputs("gpt2")["input_ids"]
    with pytest.raises(fl.errors.OptionError, match="seed"):
        fl.generate(spec, tokens, do_sample=True, max_new_tokens=2)


SAMPLED: Final = {"do_sample": True, "seed": 0}
ONE_EDIT: Final = (fl.Scale(fl.resid_pre(1), 0.5),)


@pytest.mark.parametrize(
    ("edits", "options", "fragment"),
    [
        (ONE_EDIT, {"num_beams": 2}, "beams"),
        (ONE_EDIT, {"num_return_sequences": 2, **SAMPLED}, "copied"),
        (ONE_EDIT, {"guidance_scale": 2.0}, "second prompt"),
        (ONE_EDIT, {"prompt_lookup_num_tokens": 2}, "taken back"),
        ((), {"max_length": 9}, "max_new_tokens"),
        ((), {"output_logits": True}, "generate_with_cache"),
        ((), {"output_scores": True}, "generate_with_cache"),
        ((), {"output_hidden_states": True}, "resid_post"),
        ((), {"output_attentions": True}, "pattern"),
        ((), {"return_dict_in_generate": True}, "generate_with_cache"),
        ((), {"temperature": 0.5}, "sampling"),
        ((), {"top_p": 0.5}, "sampling"),
        ((), {"max_new_tokens": 0}, "one token or more"),
        ((), {"max_new_tokens": -3}, "one token or more"),
        ((), {"max_new_tokens": 59}, "65 positions"),
    ],
)
def test_option_that_would_not_act_is_refused(
    edits: Any, options: dict[str, Any], fragment: str
) -> None:
    """What HuggingFace would pass over, and what edits cannot go with."""
    with pytest.raises(fl.errors.OptionError, match=fragment):
        fl.generate(spec_of("gpt2"), prompt("gpt2"), edits, **options)


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 2}, {"num_return_sequences": 2, **SAMPLED}, {"guidance_scale": 2.0}],
)
def test_without_edits_every_way_of_generating_is_open(
    options: dict[str, Any],
) -> None:
    """Rows may be reordered where nothing looks at them; captures look."""
    fl.generate(spec_of("gpt2"), prompt("gpt2"), max_new_tokens=2, **options)
    with pytest.raises(fl.errors.OptionError):
        fl.generate_with_cache(
            spec_of("gpt2"), prompt("gpt2"), max_new_tokens=2, **options
        )


def test_beams_of_the_model_s_own_configuration_are_refused() -> None:
    """Also where the caller names none."""
    module: Any = tiny_hf_model("gpt2")
    module.generation_config.num_beams = 2
    with pytest.raises(fl.errors.OptionError, match="beams"):
        fl.generate(fl.from_module(module), prompt("gpt2"), ONE_EDIT)


def test_as_many_positions_as_the_model_has_can_be_read() -> None:
    """The last new token is not read."""
    tokens = prompt("gpt2")
    options = {"max_new_tokens": 58, "min_new_tokens": 58}
    assert (2, 65) == fl.generate(spec_of("gpt2"), tokens, **options).shape


def test_edit_of_generated_positions_that_never_come_is_refused() -> None:
    """One new token is written, and not read."""
    edit = fl.Zero(fl.resid_pre(0, pos=fl.generated))
    with pytest.raises(fl.errors.NeverActedError):
        fl.generate(spec_of("gpt2"), prompt("gpt2"), [edit], max_new_tokens=1)


@pytest.mark.parametrize(
    "edit",
    [
        fl.Patch(fl.resid_pre(1), torch.ones(2, 7, 16)),
        fl.Add(fl.pattern(0), torch.ones(7, 7)),
        fl.Set(fl.z(0, head=1), torch.ones(7, 4)),
    ],
    ids=str,
)
def test_value_for_every_position_is_refused(edit: fl.Intervention) -> None:
    """Their number grows; with positions selected it does not."""
    with pytest.raises(fl.errors.InputError, match="number grows"):
        fl.generate(spec_of("gpt2"), prompt("gpt2"), [edit], max_new_tokens=2)
    site = fl.resid_pre(1, pos=slice(0, 2))
    patch = fl.Patch(site, torch.ones(2, 2, 16))
    fl.generate(spec_of("gpt2"), prompt("gpt2"), [patch], max_new_tokens=2)


def test_model_that_does_not_generate_is_refused() -> None:
    """A masked language model."""
    with pytest.raises(fl.errors.InputError, match="does not generate"):
        fl.generate(spec_of("bert"), prompt("bert"), max_new_tokens=2)
