"""The laws find what is wrong, and say where."""

import io
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import attrs
import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.engine import _progress
from funlens.interfaces._demo import demonstration
from funlens.testing import Certificate, LawResult, tiny_hf_model, tiny_inputs

LAYER: Final = 1


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def with_tap(site: fl.Site, name: str = "gpt2", **changes: Any) -> fl.ModelSpec:
    """A tiny model whose table is wrong about one site."""
    spec = spec_of(name)
    taps: dict[fl.Site, Any] = dict(spec.engine.taps)
    taps[site] = attrs.evolve(taps[site], **changes)
    engine = attrs.evolve(spec.engine, taps=taps, plans={}, made={}, spare={})
    return attrs.evolve(spec, engine=engine)


def failing(certificate: Certificate) -> dict[str, str]:
    """The laws that fail, each with its note."""
    return {row.law: row.note for row in certificate.rows if not row.holds}


@attrs.frozen
class Deaf:
    """A view that does not hear what is written."""

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Read the tensor itself."""
        return raw

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Keep what was there."""
        return raw


@attrs.frozen
class Rounding:
    """A view that loses the last bits of what is written."""

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Read the tensor itself."""
        return raw

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Round."""
        return value.bfloat16().float()


@attrs.frozen
class Doubled:
    """A view that reads and writes twice the value."""

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """Double."""
        return 2 * raw

    def write(self, raw: Tensor, value: Tensor) -> Tensor:
        """Halve."""
        return value / 2


RECURS: Final = "ssm_y == effective attention @ ssm_v"
KEYS: Final = spec_of("gpt2").engine.taps[fl.k(LAYER)].view
BLOCK: Final = f"transformer.h.{LAYER}"
WRONG: Final[dict[str, tuple[fl.Site, dict[str, Any], str]]] = {
    "the block before": (
        fl.resid_pre(LAYER),
        {"path": "transformer.h.0"},
        "what leaves a block enters the next",
    ),
    "the MLP's output": (
        fl.attn_out(LAYER),
        {"path": f"{BLOCK}.mlp"},
        "what a block adds is resid_post - resid_pre",
    ),
    "scores": (
        fl.pattern(LAYER),
        {"side": "scores"},
        "pattern rows sum to 1, and see nothing later",
    ),
    "keys": (fl.v(LAYER), {"view": KEYS}, "z == pattern @ v"),
    "twice what is there": (
        fl.attn_proj(LAYER),
        {"view": Doubled()},
        "heads' results and the bias sum to attn_proj",
    ),
    "what is never read": (
        fl.mlp_post(LAYER),
        {"view": Deaf()},
        "every declared site fires, has its shape, and moves the logits",
    ),
    "a rounded copy": (
        fl.mlp_out(LAYER),
        {"view": Rounding()},
        "patching a site with its own value changes no bit",
    ),
    "a rounded stream": (
        fl.resid_pre(LAYER),
        {"view": Rounding()},
        "edits that mean nothing change no bit, and edits commute",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", WRONG)
def test_table_that_is_wrong_about_a_site_breaks_a_law(what: str) -> None:
    """The law that fails is the one about that site, and names it."""
    site, changes, law = WRONG[what]
    certificate = fl.verify(with_tap(site, **changes), tiny_inputs("gpt2"))
    assert not certificate.holds
    assert law in failing(certificate)
    assert failing(certificate)[law].startswith("at ")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "site", "changes", "law"),
    [
        ("mamba2", fl.ssm_y(0), {"view": Doubled()}, RECURS),
        (
            "bert",
            fl.attn_out(LAYER),
            {"path": f"bert.encoder.layer.{LAYER}.attention.output"},
            "what a block adds is resid_post - resid_pre",
        ),
    ],
)
def test_table_that_is_wrong_elsewhere_breaks_a_law(
    name: str, site: fl.Site, changes: Any, law: str
) -> None:
    """A recurrence that reads something else, and what a norm gives for its input."""
    certificate = fl.verify(with_tap(site, name, **changes), tiny_inputs(name))
    assert law in failing(certificate)


@pytest.mark.usefixtures("unchecked")
def test_other_weights_break_the_first_law() -> None:
    """Logits are compared with the module that is handed over."""
    other = tiny_hf_model("gpt2", seed=1)
    certificate = fl.verify(spec_of("gpt2"), tiny_inputs("gpt2"), untouched=other)
    assert ["the output is HuggingFace's, bit for bit"] == [*failing(certificate)]
    (row, *_) = certificate.rows
    assert row.value > row.tolerance == 0.0


def laws_without(certificate: Certificate) -> set[str]:
    """The laws that the model cannot have."""
    return {row.law for row in certificate.rows if not row.applies}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2", {RECURS}),
        ("bert", {RECURS}),
        (
            "mamba",
            {
                "pattern rows sum to 1, and see nothing later",
                "z == pattern @ v",
                "heads' results and the bias sum to attn_proj",
            },
        ),
        (
            "t5",
            {
                "a residual patched whole gives the other prompt's logits",
                "a run that starts at a layer, from its residual, gives the same",
                RECURS,
            },
        ),
    ],
)
def test_law_that_a_model_cannot_have_says_why(name: str, expected: set[str]) -> None:
    """It holds, does not apply, and has a note."""
    certificate = fl.verify(spec_of(name), tiny_inputs(name))
    assert expected == laws_without(certificate)
    assert certificate.holds
    assert all(row.note for row in certificate.rows if not row.applies)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_inputs_that_are_left_out_are_drawn_the_same_each_time(name: str) -> None:
    """The certificate is a value; nothing of the global generator is used."""
    state = torch.get_rng_state()
    first, second = (fl.verify(spec_of(name)) for _ in range(2))
    assert first == second
    assert first.holds
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.usefixtures("unchecked")
def test_inputs_may_be_tokens_or_text() -> None:
    """A tensor, and a string where there is a tokenizer."""
    tokens = tiny_inputs("gpt2")
    expected = fl.verify(spec_of("gpt2"), tokens)
    assert expected == fl.verify(spec_of("gpt2"), tokens["input_ids"])
    with pytest.raises(fl.errors.TokenizerError):
        fl.verify(spec_of("gpt2"), "text")


@pytest.mark.usefixtures("unchecked")
def test_every_law_holds_on_the_trained_model() -> None:
    """The embedded model, on text."""
    certificate = fl.verify(fl.load("builtin:tiny"), "When Mary and John went")
    assert [] == [row for row in certificate.rows if not row.holds]


def test_model_without_a_vocabulary_needs_inputs() -> None:
    """Nothing can be drawn for it."""
    spec = attrs.evolve(spec_of("gpt2"), d_vocab=0)
    with pytest.raises(fl.errors.InputError, match="inputs="):
        fl.verify(spec)


def test_certificate_names_model_and_versions() -> None:
    """What was checked, and with what."""
    row = LawResult(law="a law", holds=True, value=0.0, tolerance=0.0)
    certificate = fl.verify(spec_of("mamba"))
    assert ("MambaForCausalLM", "mamba") == (certificate.model, certificate.model_type)
    assert ["funlens", "torch", "transformers"] == [n for n, _ in certificate.versions]
    assert not attrs.evolve(certificate, rows=[attrs.evolve(row, holds=False)]).holds


class Terminal(io.StringIO):
    """A stream that says it is a terminal, or is not."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        """Say which."""
        return self.is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool
) -> None:
    """Anywhere else not a byte is written; every item comes in either case."""
    stream = Terminal(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(_progress, "_DELAY", 0.0)
    assert [0, 1, 2] == [*_progress.steps(range(3), "counting")]
    assert is_terminal == ("counting" in stream.getvalue())


def test_progress_of_what_is_quick_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within the first seconds nothing is written, not even on a terminal."""
    stream = Terminal(is_terminal=True)
    monkeypatch.setattr(sys, "stderr", stream)
    assert [0, 1, 2] == [*_progress.steps(range(3), "counting")]
    assert "" == stream.getvalue()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "labels"),
    [
        (lambda: fl.verify(spec_of("mamba")), ("laws", "own values", "edits")),
        (lambda: demonstration(fl.load("builtin:tiny")), ("patching",)),
    ],
    ids=["verify", "demonstration"],
)
def test_what_takes_longer_shows_progress(
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[], object],
    labels: tuple[str, ...],
) -> None:
    """On a model of some size, these take more than a few seconds."""
    stream = Terminal(is_terminal=True)
    monkeypatch.setattr(_progress, "_DELAY", 0.0)
    monkeypatch.setattr(sys, "stderr", stream)
    call()
    assert all(label in stream.getvalue() for label in labels)
