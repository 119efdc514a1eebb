"""Circuits that were planted are found: a model whose weights were set by hand.

Its stream has a place for the token, for the position, for the token before, and for
the answer. Head 0 of layer 0 writes the token before; head 0 of layer 1 looks for it
with its own token, and writes what it finds: induction. The other heads write noise to
where nobody reads.
"""

from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl

N_TOKENS: Final = 9
N_POS: Final = 12
WIDTH: Final = 12  # of a head: as many as there are positions
SURE: Final = 30.0  # scores at which a softmax is all but saturated
TOKEN: Final = slice(0, N_TOKENS)
POSITION: Final = slice(N_TOKENS, N_TOKENS + N_POS)
BEFORE: Final = slice(POSITION.stop, POSITION.stop + N_TOKENS)
ANSWER: Final = slice(BEFORE.stop, BEFORE.stop + N_TOKENS)
NOISE: Final = slice(ANSWER.stop, ANSWER.stop + 4)

READ_TOKENS: Final = frozenset(
    {
        "resid_pre.0 -> v.0[head=0]",
        "z.0[head=0] -> k.1[head=0]",
        "resid_pre.0 -> q.1[head=0]",
        "resid_pre.0 -> v.1[head=0]",
        "z.1[head=0] -> resid_post.1",
    }
)
READ_POSITIONS: Final = frozenset(
    {"resid_pre.0 -> q.0[head=0]", "resid_pre.0 -> k.0[head=0]"}
)


@torch.no_grad()
def planted(sureness: float = SURE) -> fl.ModelSpec:
    """Build the model."""
    config = fl.ToyConfig(
        n_layers=2,
        n_heads=3,
        d_model=NOISE.stop,
        d_head=WIDTH,
        d_mlp=0,
        d_vocab=N_TOKENS,
        n_ctx=N_POS,
        norm="none",
        has_bias=False,
    )
    module: Any = fl.toy_module(config)
    module.embed.weight.zero_()[:, TOKEN] = torch.eye(N_TOKENS)
    module.pos_embed.weight.zero_()[:, POSITION] = torch.eye(N_POS)
    module.unembed.weight.zero_()[:, ANSWER] = 4.0 * torch.eye(N_TOKENS)
    generator = torch.Generator().manual_seed(0)
    for block in module.blocks:
        weight = block.attn.o.weight
        noise = torch.randn(4, 2 * WIDTH, generator=generator)
        weight.zero_()[NOISE, WIDTH:] = noise
    first, second = (block.attn for block in module.blocks)
    scale = sureness * WIDTH**0.5
    for part in (first.q, first.k, first.v, second.q, second.k, second.v):
        part.weight[:WIDTH] = 0.0
    first.q.weight[:N_POS, POSITION] = scale * torch.eye(N_POS)
    first.k.weight[1:N_POS, POSITION] = torch.eye(N_POS)[:-1]
    first.v.weight[:N_TOKENS, TOKEN] = torch.eye(N_TOKENS)
    first.o.weight[BEFORE, :N_TOKENS] = torch.eye(N_TOKENS)
    second.q.weight[:N_TOKENS, TOKEN] = scale * torch.eye(N_TOKENS)
    second.k.weight[:N_TOKENS, BEFORE] = torch.eye(N_TOKENS)
    second.v.weight[:N_TOKENS, TOKEN] = torch.eye(N_TOKENS)
    second.o.weight[ANSWER, :N_TOKENS] = torch.eye(N_TOKENS)
    return fl.from_module(module)


def pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Give texts that end in a token that was there before, others, and answers."""
    clean = torch.tensor(
        [
            [0, 1, 2, 3, 4, 5, 6, 2],
            [8, 7, 6, 5, 4, 3, 2, 6],
            [3, 0, 5, 8, 1, 7, 4, 0],
            [1, 4, 7, 2, 8, 0, 3, 8],
        ]
    )
    other = torch.tensor(
        [
            [5, 6, 0, 8, 7, 1, 3, 0],
            [4, 2, 1, 0, 7, 8, 5, 1],
            [7, 6, 2, 4, 5, 8, 0, 5],
            [6, 5, 3, 1, 2, 4, 0, 4],
        ]
    )
    answers = torch.tensor([3, 5, 5, 0])
    return clean, other, answers


def names(circuit: fl.Circuit) -> frozenset[str]:
    """Name the edges of a circuit."""
    return frozenset(map(str, circuit.edges))


def test_the_model_does_induction() -> None:
    """It answers with what followed the token before."""
    clean, _, answers = pairs()
    assert torch.equal(answers, fl.run(planted(), clean)[:, -1].argmax(-1))


def test_acdc_finds_what_reads_tokens() -> None:
    """With another text on the edges, those that carry tokens are found, no others."""
    clean, other, answers = pairs()
    metric = fl.log_prob_of(answers)
    found = fl.acdc(planted(), clean, other, metric=metric, threshold=0.05)
    assert names(found) == READ_TOKENS


def test_acdc_finds_what_reads_positions_where_edges_carry_nothing() -> None:
    """Every text has the same positions; with nothing on the edges they are found."""
    clean, _, answers = pairs()
    metric = fl.log_prob_of(answers)
    found = fl.acdc(planted(), clean, None, metric=metric, threshold=0.05)
    assert names(found) == READ_TOKENS | READ_POSITIONS


def test_the_planted_circuit_is_faithful_complete_and_minimal() -> None:
    """It does all that the model does, nothing is left beside it, each edge counts."""
    spec = planted()
    clean, other, answers = pairs()
    metric = fl.log_prob_of(answers)
    circuit = fl.Circuit.from_edges(fl.graph(spec), READ_TOKENS)
    kept = fl.faithfulness(spec, circuit, clean, other, metric=metric)
    torch.testing.assert_close(kept.faithfulness, torch.ones(1), atol=1e-3, rtol=0)
    _, beside = fl.completeness(spec, circuit, clean, other, metric=metric)
    torch.testing.assert_close(beside.faithfulness, torch.zeros(1), atol=0.1, rtol=0)
    parts = fl.minimality(spec, circuit, clean, other, metric=metric)
    assert float(parts.change.abs().min()) > 1.0


@pytest.mark.parametrize("steps", [None, 20])
def test_gradients_find_all_edges_of_an_unsure_model(steps: int | None) -> None:
    """Where no softmax is saturated, the planted edges have the largest scores."""
    clean, other, answers = pairs()
    spec, metric = planted(sureness=3.0), fl.log_prob_of(answers)
    scores = fl.edge_attribution(spec, clean, other, metric=metric, steps=steps)
    assert names(scores.top(len(READ_TOKENS))) == READ_TOKENS


def test_gradients_miss_a_saturated_softmax() -> None:
    """A gradient does not pass it: what decides where a head looks scores 0."""
    clean, other, answers = pairs()
    spec, metric = planted(), fl.log_prob_of(answers)
    scores = fl.edge_attribution(spec, clean, other, metric=metric)
    looked = fl.Edge.parse("z.0[head=0] -> k.1[head=0]")
    assert abs(float(scores[looked])) < 1e-3
    circuit = fl.Circuit.whole(scores.graph)
    without = circuit - fl.Circuit.from_edges(scores.graph, [looked])
    left = fl.faithfulness(spec, without, clean, other, metric=metric)
    assert float(left.faithfulness[0]) < 0.5


def structural(spec: fl.ModelSpec, tokens: dict[str, Tensor]) -> fl.Circuit:
    """Keep the edges whose sender writes to an axis that the receiver reads.

    Each axis of a compiled program's stream holds one variable, so this is what the
    compiler wired.
    """
    graph, writes = fl.graph(spec), fl.writes(spec, tokens)
    written = torch.cat(writes.values).abs().amax((1, 2)) > 1e-5
    heads = {"q": fl.W_Q, "k": fl.W_K, "v": fl.W_V}

    def weight(site: fl.Site) -> Tensor:
        if site.part in heads:
            return heads[site.part](spec, site.layer)[site.head]
        return fl.W_U(spec) if site.part == "resid_post" else fl.W_in(spec, site.layer)

    read = torch.stack([weight(site).abs().amax(1) > 0 for site in graph.receivers])
    meets = (read.float() @ written.float().mT) > 0
    return fl.Circuit(graph=graph, mask=meets & graph.mask)


@pytest.mark.parametrize("program", ["reverse", "hist", "frac_prevs", "pair_balance"])
def test_compiled_programs_are_found_in_their_wires(
    program: str, fixtures_folder: Path
) -> None:
    """What the compiler wired does all; what ACDC finds lies in it."""
    at = fixtures_folder / "tracr" / program
    spec = fl.from_tracr(at.with_suffix(".npz"), at.with_suffix(".json"))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, spec.d_vocab, (6, 5), generator=generator)
    tokens = {"input_ids": ids}  # as a mapping, so that none counts as padding
    wired = structural(spec, tokens)
    assert 0 < len(wired) < 0.6 * wired.graph.n_edges
    metric = fl.reads(fl.logits(), lambda logits: logits.square().sum((1, 2)))
    kept = fl.faithfulness(spec, wired, tokens, None, metric=metric)
    torch.testing.assert_close(kept.rows[0], kept.whole, rtol=1e-4, atol=1e-4)
    found = fl.acdc(spec, tokens, None, metric=metric, threshold=1e-3)
    compared = fl.compare_circuits(found, wired)
    assert compared.edge_precision == 1.0
    assert compared.edge_recall > 0.3
