"""Circuits as sets, what is left of a metric in them, and how they are found."""

from collections.abc import Sequence
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.engine._circuit_runs import CircuitRuns
from funlens.testing import tiny_hf_model

CLEAN: Final = ["Tom had a ball. Ben gave Tom", "Sam had a cup. Tim saw Sam"]
OTHER: Final = ["Ben had a ball. Ben gave Tom", "Tom had a cup. Tim saw Sam"]


def subject() -> tuple[fl.ModelSpec, Tensor, Tensor, fl.Metric]:
    """The builtin model, two texts, and the log-probability of its own answers."""
    spec = fl.load("builtin:tiny")
    clean, other = fl.to_tokens(spec, CLEAN), fl.to_tokens(spec, OTHER)
    answers = fl.run(spec, clean, logits_at=-1)[:, 0].argmax(-1)
    return spec, clean, other, fl.log_prob_of(answers)


def last(spec: fl.ModelSpec, tokens: Tensor, edits: Any, metric: fl.Metric) -> Tensor:
    """Measure a run at each row's last token."""
    return metric.function(fl.run(spec, tokens, edits, logits_at=-1)[:, 0])


def test_faithfulness_is_what_edited_runs_give() -> None:
    """Stacked circuits give what each gives by itself, as interventions."""
    spec, clean, other, metric = subject()
    scores = fl.edge_attribution(spec, clean, other, metric=metric)
    circuits = [scores.top(size) for size in (10, 60, 200)]
    found = fl.faithfulness(spec, circuits, clean, other, metric=metric)
    for circuit, row in zip(circuits, found.rows, strict=True):
        edits = fl.circuit_edits(spec, circuit, clean, other)
        expected = last(spec, clean, edits, metric)
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.whole, last(spec, clean, (), metric))
    expected = last(spec, other, (), metric)
    torch.testing.assert_close(found.empty, expected, rtol=1e-4, atol=1e-4)


def test_all_edges_are_faithful_and_none_are_not() -> None:
    """The scale goes from 0 to 1, with a mean as the source too."""
    spec, clean, other, metric = subject()
    graph = fl.graph(spec)
    ends = [fl.Circuit.whole(graph), fl.Circuit.empty(graph)]
    for source in (other, fl.writes(spec, other).mean(), None):
        found = fl.faithfulness(spec, ends, clean, source, metric=metric)
        torch.testing.assert_close(found.faithfulness, torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("memory", [1, 2**22, 2**30])
def test_memory_changes_no_number(memory: int) -> None:
    """One circuit at once, several, or all."""
    spec, clean, other, metric = subject()
    scores = fl.edge_attribution(spec, clean, other, metric=metric)
    circuits = [scores.top(size) for size in (10, 60, 200)]
    expected = fl.faithfulness(spec, circuits, clean, other, metric=metric)
    found = fl.faithfulness(spec, circuits, clean, other, metric=metric, memory=memory)
    torch.testing.assert_close(found.rows, expected.rows, rtol=1e-4, atol=1e-4)


def test_a_stack_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory ends, half of the circuits are run, and then the others."""
    spec, clean, other, metric = subject()
    scores = fl.edge_attribution(spec, clean, other, metric=metric)
    circuits = [scores.top(size) for size in range(10, 80, 10)]
    expected = fl.faithfulness(spec, circuits, clean, other, metric=metric)
    plain, sizes = CircuitRuns._stack, list[int]()

    def short(runs: CircuitRuns, masks: Sequence[Tensor]) -> list[Tensor]:
        if len(masks) > 2:
            raise MemoryError
        sizes.append(len(masks))
        return plain(runs, masks)

    monkeypatch.setattr(CircuitRuns, "_stack", short)
    found = fl.faithfulness(spec, circuits, clean, other, metric=metric)
    assert max(sizes) == 2
    torch.testing.assert_close(found.rows, expected.rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threshold", [0.03, 0.003])
def test_acdc_is_one_run_after_the_other(threshold: float) -> None:
    """In float64: stacks that are tried ahead change nothing of what is found."""
    spec = fl.from_module(tiny_hf_model("llama").double())
    generator = torch.Generator().manual_seed(0)
    clean, other = torch.randint(2, 30, (2, 2, 6), generator=generator)
    metric = fl.kl_divergence(fl.run(spec, clean)[:, -1])
    found = fl.acdc(
        spec, clean, other, metric=metric, threshold=threshold, better="lower"
    )
    assert found == by_hand(spec, clean, other, metric, threshold)
    assert 0 < len(found) < found.graph.n_edges


def by_hand(
    spec: fl.ModelSpec,
    clean: Tensor,
    other: Tensor,
    metric: fl.Metric,
    threshold: float,
) -> fl.Circuit:
    """Take edges away one run after the other."""
    graph, source = fl.graph(spec), fl.writes(spec, other)
    circuit, value = fl.Circuit.whole(graph), 0.0
    for receiver in reversed(range(len(graph.receivers))):
        feeds = list(graph.feeds[receiver])
        is_read = not feeds or bool(circuit.mask[:, feeds].any())
        for sender in reversed(range(graph.before[receiver])):
            mask = circuit.mask.clone()
            mask[receiver, sender] = False
            tried = fl.Circuit(graph=graph, mask=mask)
            if is_read:
                edits = fl.circuit_edits(spec, tried, clean, source)
                after = float(last(spec, clean, edits, metric).mean())
                if after - value >= threshold:
                    continue
                value = after
            circuit = tried
    return circuit


def test_both_paths_move_what_enters_alike() -> None:
    """The first sender's scores are the same along inputs and along activations.

    Others are not: their own outputs are moved on one path alone. More steps differ.
    """
    spec, clean, other, metric = subject()
    one = fl.edge_attribution(spec, clean, other, metric=metric, steps=1)
    many = fl.edge_attribution(spec, clean, other, metric=metric, steps=4)
    apart = fl.edge_attribution(
        spec, clean, other, metric=metric, steps=1, along="activations"
    )
    shapes = {tuple(each.rows.shape) for each in (one, many, apart)}
    assert shapes == {(2, *fl.graph(spec).mask.shape)}
    assert not torch.allclose(one.rows, many.rows)
    first = slice(0, 1)  # the first sender is moved alike on both paths
    torch.testing.assert_close(
        apart.rows[..., first], one.rows[..., first], rtol=1e-3, atol=1e-4
    )
    assert not torch.allclose(apart.rows[..., 1:], one.rows[..., 1:], atol=1e-3)


def test_rows_do_not_mix() -> None:
    """An example's scores are those that it has alone."""
    spec, clean, other, metric = subject()
    scores = fl.edge_attribution(spec, clean, other, metric=metric)
    answers = fl.run(spec, clean, logits_at=-1)[:, 0].argmax(-1)
    for row in range(2):
        here = slice(row, row + 1)
        alone = fl.edge_attribution(
            spec, clean[here], other[here], metric=fl.log_prob_of(answers[here])
        )
        torch.testing.assert_close(
            scores.rows[row], alone.rows[0], rtol=1e-3, atol=1e-4
        )


def test_minimality_takes_each_part_away() -> None:
    """By edge and by node, against circuits made by hand."""
    spec, clean, other, metric = subject()
    circuit = fl.edge_attribution(spec, clean, other, metric=metric).top(30)
    edges = fl.minimality(spec, circuit, clean, other, metric=metric)
    assert edges.labels["edge"] == tuple(map(str, circuit.edges))
    edge = circuit.edges[7]
    without = circuit - fl.Circuit.from_edges(circuit.graph, [edge])
    expected = fl.faithfulness(spec, without, clean, other, metric=metric).rows[0]
    torch.testing.assert_close(edges.rows[7], expected, rtol=1e-4, atol=1e-4)
    nodes = fl.minimality(spec, circuit, clean, other, metric=metric, by="node")
    assert nodes.labels["node"] == tuple(map(str, circuit.nodes))


def test_completeness_knocks_out_of_both() -> None:
    """What is left of the circuit and of the model, as circuits made by hand."""
    spec, clean, other, metric = subject()
    circuit = fl.edge_attribution(spec, clean, other, metric=metric).top(60)
    gone = fl.Circuit.from_edges(circuit.graph, circuit.edges[:20])
    inside, outside = fl.completeness(
        spec, circuit, clean, other, metric=metric, knockouts=[gone]
    )
    both = [circuit - gone, ~gone]
    expected = fl.faithfulness(spec, both, clean, other, metric=metric)
    found = torch.cat([inside.rows, outside.rows])
    torch.testing.assert_close(found, expected.rows, rtol=1e-4, atol=1e-4)


def test_circuits_are_sets() -> None:
    """Operators mean what they mean of sets of edges."""
    graph = fl.graph(fl.load("builtin:tiny"))
    first, second = graph.edges[:4], graph.edges[2:7]
    one, two = (fl.Circuit.from_edges(graph, edges) for edges in (first, second))
    assert set((one | two).edges) == {*first, *second}
    assert set((one & two).edges) == {*first} & {*second}
    assert set((one - two).edges) == {*first} - {*second}
    assert set((~one).edges) == {*graph.edges} - {*first}
    assert (one & two) <= one
    assert not one <= two
    assert first[0] in one
    assert second[-1] not in one
    assert len(one) == len(first)
    again = fl.Circuit.from_edges(graph, map(str, first))
    assert {one: "same"}[again] == "same"


def test_trimming_leaves_out_what_reaches_nothing() -> None:
    """An edge into a head that nobody reads, and one out of a head that reads none."""
    graph = fl.graph(fl.load("builtin:tiny"))
    path = (
        "resid_pre.0 -> v.0[head=1]",
        "z.0[head=1] -> mlp_in.2",
        "mlp_out.2 -> resid_post.3",
    )
    dead = ("resid_pre.0 -> v.1[head=0]", "z.2[head=3] -> mlp_in.2")
    found = fl.Circuit.from_edges(graph, [*path, *dead]).trimmed()
    assert found == fl.Circuit.from_edges(graph, path)


def test_thresholds_keep_what_is_above() -> None:
    """`above` and `top` choose by size, or by sign where that is asked for."""
    spec, clean, other, metric = subject()
    scores = fl.edge_attribution(spec, clean, other, metric=metric)
    best = scores.top(5)
    bound = min(abs(float(scores[edge])) for edge in best.edges)
    assert scores.above(0.999 * bound) == best
    assert all(float(scores[edge]) > 0 for edge in scores.top(5, signed=True).edges)


def test_mistakes_are_refused() -> None:
    """Each says what was wrong, before anything is pruned."""
    spec, clean, other, metric = subject()
    graph = fl.graph(spec)
    every = fl.Circuit.whole(graph)
    foreign = fl.graph(fl.from_module(tiny_hf_model("gpt2")))
    with pytest.raises(errors.InputError, match="of this model's graph"):
        fl.faithfulness(spec, fl.Circuit.whole(foreign), clean, other, metric=metric)
    with pytest.raises(errors.InputError, match="circuits of one graph"):
        every | fl.Circuit.whole(foreign)
    with pytest.raises(errors.InputError, match="no circuit"):
        fl.faithfulness(spec, [], clean, other, metric=metric)
    with pytest.raises(errors.ShapeError, match="source"):
        fl.faithfulness(spec, every, clean, other[:, :-1], metric=metric)
    with pytest.raises(errors.OptionError, match="threshold"):
        fl.acdc(spec, clean, other, metric=metric, threshold=-1.0)
    with pytest.raises(errors.OptionError, match="steps"):
        fl.edge_attribution(spec, clean, other, metric=metric, steps=0)
    with pytest.raises(errors.UserFunctionError, match="smoothly"):
        fl.edge_attribution(spec, clean, other, metric=fl.rank_of(3))
    with pytest.raises(errors.InputError, match="no edge"):
        fl.Circuit.from_edges(graph, ["resid_pre.0"])
    with pytest.raises(errors.InputError, match="no sender"):
        fl.Circuit.from_nodes(graph, [fl.z(9)])
    with pytest.raises(errors.OptionError, match="n_edges"):
        fl.edge_attribution(spec, clean, other, metric=metric).top(10**6)
    with pytest.raises(errors.ShapeError, match="mask"):
        fl.Circuit(graph=graph, mask=torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(errors.InputError, match="no edges"):
        fl.Circuit(graph=graph, mask=torch.ones_like(graph.mask))
