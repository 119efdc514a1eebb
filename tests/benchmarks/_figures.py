"""The figures: each has a name, a function that measures it, and a bound.

Another figure is another row of `FIGURES`.
"""

from collections.abc import Callable
from itertools import product
from typing import Any, Final

import attrs
import torch

import funlens as fl
from tests.benchmarks._memory import peak
from tests.benchmarks._models import subject
from tests.benchmarks._timing import programs, ratio, times


@attrs.frozen(kw_only=True)
class Figure:
    """One figure.

    Attributes:
        name: What is measured, in one line.
        measure: Gives the number.
        bound: What it must reach.
        is_least: Whether the bound is the least value; else it is the most.
    """

    name: str
    measure: Callable[[], float]
    bound: float
    is_least: bool = False

    def holds(self, value: float) -> bool:
        """Tell whether a value reaches the bound."""
        return value >= self.bound if self.is_least else value <= self.bound


def plain() -> float:
    """Time a run with no interventions against the bare forward."""
    small = subject()
    return ratio(lambda: fl.run(small.spec, small.tokens), small.forward())


def constant() -> float:
    """Give what a plain run adds to the forward of a tiny model, in ms."""
    tiny = subject(n_layer=2, n_embd=64, n_head=2)
    ours, theirs = times(
        lambda: fl.run(tiny.spec, tiny.tokens), tiny.forward(), repeats=200
    )
    return (ours - theirs) * 1e3


def residuals() -> float:
    """Time a run that keeps the stream against HuggingFace's hidden states."""
    small, sites = subject(), [fl.resid_pre, fl.resid_post]

    def ours() -> Any:
        return fl.run_with_cache(small.spec, small.tokens, capture=sites)

    return ratio(ours, small.forward(output_hidden_states=True))


def every_site() -> float:
    """Time a run that keeps every site against all that HuggingFace can give."""
    small, eager = subject(), subject(attention="eager")
    theirs = eager.forward(output_hidden_states=True, output_attentions=True)
    return ratio(lambda: fl.run_with_cache(small.spec, small.tokens), theirs)


def steered() -> float:
    """Time a steered generation against HuggingFace's."""
    small = subject()
    edits = [fl.Add(fl.resid_post(6), 0.01 * torch.ones(small.spec.d_model))]
    mask = torch.ones_like(small.tokens)
    options = {
        "max_new_tokens": 20,
        "min_new_tokens": 20,
        "do_sample": False,
        "pad_token_id": 0,
    }

    def ours() -> Any:
        return fl.generate(small.spec, small.tokens, edits, **options)

    def theirs() -> Any:
        return small.module.generate(small.tokens, attention_mask=mask, **options)

    return ratio(ours, theirs, repeats=5)


def looped(part: Any, kind: Any, **words: Any) -> float:
    """Time a loop of full forwards over the cells of a grid against the sweep.

    Args:
        part: The part.
        kind: Makes one cell's edit of its site.
        words: The axis beside layers, and its places.
    """
    small = subject()
    tokens = small.tokens[:, :16]
    ((word, places),) = words.items()
    cells = [
        [kind(part(layer, **{word: place}))]
        for layer, place in product(range(small.spec.n_layers), places)
    ]
    metric = fl.logit_diff(3, 5)

    def loop() -> None:
        for cell in cells:
            metric(fl.run(small.spec, tokens, cell))

    def swept() -> Any:
        return fl.sweep(small.spec, tokens, cells, metric=metric)

    return ratio(loop, swept, repeats=1)


def residual_sweep() -> float:
    """Time a loop over layers and positions of the stream against the sweep."""
    small = subject()
    tokens = small.tokens[:, :16]
    source = fl.run_with_cache(small.spec, tokens.flip(1), capture=[fl.resid_pre]).cache
    return looped(fl.resid_pre, lambda at: fl.Patch(at, source), pos=range(16))


def head_sweep() -> float:
    """Time a loop over all heads against the sweep."""
    return looped(fl.z, fl.Zero, head=range(12))


def pattern_sweep() -> float:
    """Time a loop over layers and destinations of attention against the sweep."""
    return looped(fl.pattern, fl.Zero, query=range(16))


def attribution() -> float:
    """Time estimates at every site against one forward and one backward.

    Both attentions are eager, as patterns need; neither has gradients of weights, and
    the other run, whose cache is patched in, is not counted.
    """
    small, eager = subject(), subject(attention="eager")
    source = fl.run_with_cache(small.spec, small.tokens.flip(1)).cache
    metric = fl.logit_diff(3, 5)

    def ours() -> Any:
        return fl.attribution_patching(small.spec, small.tokens, source, metric=metric)

    def theirs() -> Any:
        embeds = eager.module.get_input_embeddings()(eager.tokens)
        embeds = embeds.detach().requires_grad_()
        logits = eager.module(inputs_embeds=embeds, use_cache=False).logits
        return torch.autograd.grad(metric(logits).sum(), embeds)

    return ratio(ours, theirs)


def edge_scores() -> float:
    """Time the scores of all edges against one forward and one backward.

    The other side has gradients of weights, as a plain `backward` has them; the run of
    the other text is counted on ours.
    """
    eager = subject(attention="eager")
    tokens = eager.tokens[:, :16]
    metric = fl.logit_diff(3, 5)

    def ours() -> Any:
        return fl.edge_attribution(eager.spec, tokens, tokens.flip(1), metric=metric)

    def theirs() -> None:
        metric(eager.module(tokens, use_cache=False).logits).sum().backward()
        eager.module.zero_grad()

    return ratio(ours, theirs, repeats=5)


def kept_edges() -> float:
    """Time eight circuits' faithfulness, per circuit, against one bare forward."""
    eager = subject(attention="eager")
    tokens, other = eager.tokens[:, :16], eager.tokens[:, :16].flip(1)
    metric = fl.logit_diff(3, 5)
    scores = fl.edge_attribution(eager.spec, tokens, other, metric=metric)
    circuits = [scores.top(1000 * size) for size in range(1, 9)]

    def ours() -> Any:
        return fl.faithfulness(eager.spec, circuits, tokens, other, metric=metric)

    def theirs() -> None:
        with torch.no_grad():
            eager.module(tokens, use_cache=False)

    return ratio(ours, theirs, repeats=5) / len(circuits)


def direct_paths() -> float:
    """Time direct paths from every head to the logits: a loop of frozen forwards."""
    small = subject()
    tokens, other = small.tokens[:, :16], small.tokens[:, :16].flip(1)
    metric = fl.logit_diff(3, 5)
    own = fl.run_with_cache(small.spec, tokens, capture=[fl.z, fl.mlp_out]).cache
    there = fl.run_with_cache(small.spec, other, capture=[fl.z]).cache
    sites = [site for site, _ in own.entries]

    def patched(layer: int, head: int) -> Any:
        """Freeze all but one head, which is patched."""
        z = own[fl.z(layer)].clone()
        z[:, :, head] = there[fl.z(layer)][:, :, head]
        edits = [
            fl.Set(site, z if site == fl.z(layer) else own[site]) for site in sites
        ]
        return metric(fl.run(small.spec, tokens, edits))

    def loop() -> None:
        for layer, head in product(range(small.spec.n_layers), range(12)):
            patched(layer, head)

    def ours() -> Any:
        return fl.path_patching(small.spec, tokens, other, metric=metric)

    return ratio(loop, ours, repeats=1)


def imports() -> float:
    """Time `import funlens` against `import torch`."""
    return programs("import funlens", "import torch")


def extra_memory(n_layer: int) -> float:
    """Give the peak that one kept residual adds, over that tensor's own bytes.

    The vocabulary is small, so that the peak lies in the blocks.
    """
    sized = subject(n_layer=n_layer, n_embd=64, n_head=2, vocab_size=64)
    site = fl.resid_post(0)

    def keep() -> fl.Run:
        return fl.run_with_cache(sized.spec, sized.tokens, capture=[site])

    own = keep().cache[site].nbytes
    return (peak(keep) - peak(sized.forward())) / own


def memory() -> float:
    """Give the most of 2 and of 8 layers: one, whatever the depth."""
    return max(extra_memory(2), extra_memory(8))


FIGURES: Final = (
    Figure(name="run / bare HuggingFace forward", measure=plain, bound=1.02),
    Figure(name="run - bare HuggingFace forward, ms", measure=constant, bound=0.3),
    Figure(name="residuals / output_hidden_states", measure=residuals, bound=1.02),
    Figure(
        name="every site / eager, hidden states, attentions",
        measure=every_site,
        bound=1.25,
    ),
    Figure(name="steered generate / HuggingFace generate", measure=steered, bound=1.05),
    Figure(
        name="resid_pre, 12 x 16: loop of forwards / sweep",
        measure=residual_sweep,
        bound=12,
        is_least=True,
    ),
    Figure(
        name="z, 144 heads: loop of forwards / sweep",
        measure=head_sweep,
        bound=4,
        is_least=True,
    ),
    Figure(
        name="pattern, 12 x 16 destinations: loop / sweep",
        measure=pattern_sweep,
        bound=4,
        is_least=True,
    ),
    Figure(
        name="attribution of every site / forward and backward",
        measure=attribution,
        bound=1.3,
    ),
    Figure(
        name="scores of all edges / forward and backward",
        measure=edge_scores,
        bound=2.0,
    ),
    Figure(
        name="path patching, 144 heads to the logits: loop / ours",
        measure=direct_paths,
        bound=4,
        is_least=True,
    ),
    Figure(
        name="faithfulness of a circuit, of 8 / bare forward",
        measure=kept_edges,
        bound=3.0,
    ),
    Figure(name="import funlens / import torch", measure=imports, bound=1.2),
    Figure(
        name="extra peak of one residual kept / its own bytes",
        measure=memory,
        bound=1.0,
    ),
)
