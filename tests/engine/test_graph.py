"""The graph of a model's components, and runs with edges cut."""

from functools import cache
from typing import Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.engine._rewired import edits_of, wiring_of
from funlens.testing import CAUSAL, tiny_hf_model

# A table without a rotation, grouped keys, parallel blocks, norms and multipliers after
# components, a mixture, sinks, and recurrences beside attention.
HEADS: Final = (
    "gpt2",
    "llama",
    "gptj",
    "falcon",
    "gemma2",
    "granite",
    "olmo2",
    "mixtral",
    "gpt_oss",
    "jamba",
)
WHOLE: Final = ("deepseek_v3", "mamba")
REFUSED: Final = {
    "bert": "a norm stands on its stream",
    "t5": "its decoder reads another stream",
    "granitemoeshared": "dense_out",
    "falcon_h1": "no norm of",
}
CLOSE: Final = 1e-4
MOST: Final = 5e-3  # logits of models with long sums, in float32
LEAST: Final = 100  # of the causal recipes


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def texts(spec: fl.ModelSpec) -> tuple[Tensor, Tensor]:
    """Draw two texts of two rows."""
    generator = torch.Generator().manual_seed(1)
    n_tokens = min(spec.d_vocab, 30)
    both = torch.randint(2, n_tokens, (2, 2, 6), generator=generator)
    return both[0], both[1]


@pytest.mark.parametrize("name", [*HEADS, *WHOLE])
def test_what_is_written_sums_to_the_stream(name: str) -> None:
    """Two texts' last streams differ by what their components wrote."""
    spec = spec_of(name)
    pair = texts(spec)
    last = fl.resid_post(spec.n_layers - 1)
    streams = [fl.run_with_cache(spec, t, capture=[last]).cache[last] for t in pair]
    wrote = [sum(v.sum(0) for v in fl.writes(spec, t).values) for t in pair]
    expected = streams[0] - streams[1]
    torch.testing.assert_close(wrote[0] - wrote[1], expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("name", [*HEADS, *WHOLE])
def test_cutting_nothing_changes_no_bit(name: str) -> None:
    """The whole graph as a circuit makes no edits at all."""
    spec = spec_of(name)
    clean, other = texts(spec)
    every = fl.Circuit.whole(fl.graph(spec))
    assert fl.circuit_edits(spec, every, clean, other) == ()


@pytest.mark.parametrize("name", [*HEADS, *WHOLE])
def test_cutting_everything_gives_the_other_text(name: str) -> None:
    """Every edge carries what the other text wrote: its logits come out."""
    spec = spec_of(name)
    clean, other = texts(spec)
    edits = fl.circuit_edits(spec, fl.Circuit.empty(fl.graph(spec)), clean, other)
    found, expected = fl.run(spec, clean, edits), fl.run(spec, other)
    torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj", "granite", "mixtral"])
def test_cutting_a_head_is_patching_it(name: str) -> None:
    """All edges of one sender carry another text: as if its `z` had been patched."""
    spec = spec_of(name)
    clean, other = texts(spec)
    source = fl.run_with_cache(spec, other, capture=[fl.z, fl.mlp_out]).cache
    graph = fl.graph(spec)
    for sender in graph.senders[1:]:
        others = [site for site in graph.senders if site != sender]
        circuit = fl.Circuit.from_nodes(graph, others)
        found = fl.run(spec, clean, fl.circuit_edits(spec, circuit, clean, other))
        expected = fl.run(spec, clean, [fl.Patch(sender, source)])
        torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE)


def test_zeros_are_zero_ablation() -> None:
    """Nothing on a head's edges is its `z` zeroed."""
    spec = spec_of("gpt2")
    clean, _ = texts(spec)
    graph = fl.graph(spec)
    head = fl.z(0, head=2)
    circuit = fl.Circuit.from_nodes(graph, [s for s in graph.senders if s != head])
    found = fl.run(spec, clean, fl.circuit_edits(spec, circuit, clean))
    expected = fl.run(spec, clean, [fl.Zero(head)])
    torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma2", "mamba"])
def test_an_edge_s_score_is_the_gradient_of_cutting_it(name: str) -> None:
    """In float64, by how much of each edge is cut, for each example by itself."""
    spec = fl.from_module(tiny_hf_model(name).double())
    clean, other = texts(spec)
    wiring = wiring_of(spec)
    source = fl.writes(spec, other).values
    metric = fl.logit_diff(3, 5)
    mask = wiring.graph.mask
    cuts = torch.zeros(2, *mask.shape, dtype=spec.dtype, requires_grad=True)
    logits = fl.run(spec, clean, edits_of(wiring, cuts, source), grad=True)
    (slope,) = torch.autograd.grad(metric(logits).sum(), cuts)
    scores = fl.edge_attribution(spec, clean, other, metric=metric)
    tolerance = 1e-12 if name != "gemma2" else 1e-5  # its norms compute in float32
    torch.testing.assert_close(scores.rows, slope * mask, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_without_a_graph_says_why(name: str) -> None:
    """Its components do not sum to one stream, or cannot be told apart."""
    with pytest.raises(errors.UnsupportedConfigError) as caught:
        fl.graph(spec_of(name))
    assert REFUSED[name] in str(caught.value)
    assert "patch sites instead" in str(caught.value)


def test_latent_attention_is_one_component() -> None:
    """Where keys come from a latent, heads are not told apart."""
    senders = {site.part for site in fl.graph(spec_of("deepseek_v3")).senders}
    assert senders == {"resid_pre", "attn_out", "mlp_out"}


def test_shared_keys_feed_each_of_their_heads() -> None:
    """On grouped queries, a key's receiver belongs to several heads."""
    graph = fl.graph(spec_of("llama"))
    spec = spec_of("llama")
    fed = graph.feeds[graph.receiver(fl.k(1, head=0))]
    each = spec.n_heads // spec.n_kv_heads
    expected = [fl.z(1, head=head) for head in range(each)]
    assert expected == [graph.senders[at] for at in fed]


def test_parallel_blocks_read_before_their_own_attention() -> None:
    """No head of a layer is an edge's sender to that layer's MLP."""
    graph = fl.graph(spec_of("gptj"))
    edge = fl.Edge(fl.z(1, head=0), fl.mlp_in(1))
    with pytest.raises(errors.InputError, match="writes after"):
        graph.place(edge)


@pytest.mark.architectures
def test_most_causal_models_have_a_graph_that_exchanges_texts() -> None:
    """Those that have none say why; all others pass the law."""
    n_graphs = 0
    off: dict[str, float] = {}
    for recipe in CAUSAL:
        try:
            graph = fl.graph(spec_of(recipe.name))
        except (errors.UnsupportedConfigError, errors.InputError):
            continue
        spec = spec_of(recipe.name)
        clean, other = texts(spec)
        edits = fl.circuit_edits(spec, fl.Circuit.empty(graph), clean, other)
        apart = fl.run(spec, clean, edits) - fl.run(spec, other)
        off[recipe.name] = float(apart.detach().abs().max())
        n_graphs += 1
    assert {} == {name: value for name, value in off.items() if not value < MOST}
    assert n_graphs >= LEAST
