"""The same work in TransformerLens and in funlens, in one process.

Run by `nox -s peers`, where TransformerLens is installed beside funlens. Both have the
same random weights of GPT-2 small's sizes, one thread, and process CPU time.
"""

import argparse
import copy
import json
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor

import funlens as fl
from tests.benchmarks._models import subject

N_POS: Final = 16
N_EDGES: Final = 1000


def seconds(work: Callable[[], Any], *, warm: bool = True) -> float:
    """Give the process time of some work, once, after a first time that is not told."""
    if warm:
        work()
    start = time.process_time()
    work()
    return time.process_time() - start


def bridge() -> Any:
    """Boot TransformerLens on a copy of the module that funlens looks at."""
    from transformer_lens.model_bridge import TransformerBridge

    module = copy.deepcopy(subject(attention="eager").module)
    with TemporaryDirectory() as folder:  # it reads the config again, by name
        module.config.save_pretrained(folder)
        return TransformerBridge.boot_transformers(
            folder, hf_model=module, device="cpu"
        )


def texts() -> tuple[Tensor, Tensor]:
    """Give two rows of tokens."""
    tokens = subject(attention="eager").tokens[:, :N_POS]
    return tokens, tokens.flip(1)


def differ(logits: Tensor) -> Tensor:
    """Give the difference of two logits at the last position."""
    return (logits[:, -1, 3] - logits[:, -1, 5]).sum()


def residual_sweep(theirs: Any) -> tuple[float, float]:
    """Patch the stream at every layer and position."""
    from transformer_lens import patching

    spec, (corrupted, clean) = subject(attention="eager").spec, texts()
    _, cache = theirs.run_with_cache(clean)
    source = fl.run_with_cache(spec, clean, capture=[fl.resid_pre]).cache
    metric = fl.logit_diff(3, 5)

    def peer() -> Tensor:
        with torch.no_grad():
            found: Tensor = patching.get_act_patch_resid_pre(
                theirs, corrupted, cache, differ
            )
        return found

    def ours() -> Tensor:
        return fl.patch_resid_pre(spec, corrupted, source, metric=metric).values

    check(ours(), peer())
    return seconds(peer, warm=False), seconds(ours)


def edge_scores(theirs: Any) -> tuple[float, float]:
    """Estimate what every edge does, from gradients.

    TransformerLens tells positions apart, whose sum is the edge's score.
    """
    from transformer_lens.tools.analysis import attribution_patching as tools

    spec, (here, there) = subject(attention="eager").spec, texts()
    config = tools.EdgeAttributionConfig(granularity="edge")
    metric = fl.logit_diff(3, 5)

    def peer() -> Any:
        return tools.attribution_patch(theirs, there, here, differ, config)

    def ours() -> fl.EdgeScores:
        return fl.edge_attribution(spec, here, there, metric=metric)

    summed: defaultdict[tuple[int, int], float] = defaultdict(float)
    scores = ours()
    for (sender, receiver), score in peer().edge_scores.items():
        summed[place(scores.graph, sender, receiver)] += score
    found = torch.zeros(scores.graph.mask.shape)
    for at, score in summed.items():
        found[at] = score
    check(scores.values, found)
    return seconds(peer, warm=False), seconds(ours)


def kept_edges(theirs: Any) -> tuple[float, float]:
    """Measure what is left of a metric in a circuit: each edge at all positions."""
    from transformer_lens.tools.analysis import attribution_patching as tools

    spec, (clean, corrupted) = subject(attention="eager").spec, texts()
    config = tools.EdgeAttributionConfig(granularity="edge")
    every = tools.attribution_patch(theirs, clean, corrupted, differ, config)
    metric = fl.logit_diff(3, 5)
    scores = fl.edge_attribution(spec, clean, corrupted, metric=metric)
    circuit = scores.top(N_EDGES // N_POS)
    kept = [
        edge
        for edge in every.edge_scores
        if bool(circuit.mask[place(circuit.graph, *edge)])
    ]

    def peer() -> float:
        found = tools.faithfulness(theirs, clean, corrupted, differ, kept)
        return float(found.recovered)

    def ours() -> float:
        found = fl.faithfulness(spec, circuit, clean, corrupted, metric=metric)
        return float(found.faithfulness)

    check(torch.tensor(ours()), torch.tensor(peer()))
    return seconds(peer, warm=False), seconds(ours)


def place(graph: fl.Graph, sender: Any, receiver: Any) -> tuple[int, int]:
    """Find the edge that TransformerLens means, whatever the position."""
    senders = {
        "embed": lambda: fl.resid_pre(0),
        "pos_embed": lambda: fl.resid_pre(0),
        "attn_head_out": lambda: fl.z(sender.layer, head=sender.head),
        "mlp_out": lambda: fl.mlp_out(sender.layer),
    }
    receivers = {
        "q_input": lambda: fl.q(receiver.layer, head=receiver.head),
        "k_input": lambda: fl.k(receiver.layer, head=receiver.head),
        "v_input": lambda: fl.v(receiver.layer, head=receiver.head),
        "mlp_in": lambda: fl.mlp_in(receiver.layer),
        "logits": lambda: fl.resid_post(receiver.layer),
    }
    edge = fl.Edge(senders[sender.kind](), receivers[receiver.kind]())
    return graph.place(edge)


def check(ours: Tensor, theirs: Tensor) -> None:
    """Refuse to compare the times of different results."""
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-2, atol=1e-3)


ROWS: Final = (
    ("resid_pre, 12 x 16 cells", residual_sweep, 12),
    ("edge attribution", edge_scores, 5),
    ("faithfulness of 62 edges x 16 positions", kept_edges, 20),
)
"""What is done, the function that times both, and how many times faster it must be."""


def main() -> None:
    """Print the table, and write it as JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=Path)
    path: Path | None = parser.parse_args().json
    torch.set_num_threads(1)
    theirs = bridge()
    found: list[dict[str, Any]] = []
    for name, measure, bound in ROWS:
        peer, ours = measure(theirs)
        ratio = peer / ours
        holds = "holds" if ratio >= bound else "MISSED"
        print(f"{name:40} {peer:8.2f} s {ours:8.3f} s {ratio:7.1f} >= {bound} {holds}")
        found.append({"name": name, "peer": peer, "ours": ours, "bound": bound})
    if path is not None:
        versions = {"transformer-lens": version("transformer-lens")}
        path.write_text(json.dumps({"rows": found, "versions": versions}, indent=2))
    if any(row["peer"] / row["ours"] < row["bound"] for row in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
