"""What patching each place would do to a metric, to first order."""

from collections.abc import Sequence

from torch import Tensor

from funlens.data import Attributions, ModelSpec, Site, SiteLike
from funlens.engine import EVERY, Every, Inputs
from funlens.engine._metrics import MetricLike
from funlens.engine._pairs import Source, attributions_of, paired
from funlens.engine._passing import passing


def attribution_patching(
    spec: ModelSpec,
    inputs: Inputs,
    source: Source,
    *,
    metric: MetricLike,
    sites: Sequence[SiteLike] | Every = EVERY,
    attention_mask: Tensor | None = None,
) -> Attributions:
    """Estimate what patching each place with another run would do to a metric.

    The estimate is the first order of what `sweep(spec, inputs, grid(Patch, ...,
    source=source))` measures: `(source - value) * gradient`, summed over each vector,
    with the value and the metric's gradient in the run on `inputs`. As in Nanda,
    "Attribution Patching" (2023) and Syed et al., "Attribution Patching Outperforms
    Automated Circuit Discovery" (2023); `linearity` says how far to trust it.

    Args:
        spec: The model.
        inputs: As for `run`: the run that is patched, often the corrupted prompt.
            Example i is paired with example i of the source.
        source: What is patched in: the other run's cache, which holds every site that
            is asked for, or its inputs. Both have the same real positions.
        metric: As for `sweep`, with a derivative.
        sites: Sites or parts; every site that can be patched by default. Sites are
            covered whole, and a look-up may select. A selection of neurons keeps the
            MLP's neurons apart, which takes the memory of the site itself.
        attention_mask: As for `run`.

    Returns:
        The estimate at each place, in the metric's unit. Scores are estimated before
        the softmax, patterns after.

    Raises:
        FunlensError: Anything asked for that cannot be done, before the model runs.
        ExceptionGroup: Several such faults.
        InputError: The metric has no derivative.
        NonFiniteError: An estimate is NaN or infinite.

    Costs one forward and one backward, and one forward more for a source of inputs.
    Memory: the values of the sites and the graph; gradients are not kept.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> clean, corrupted = "Tom had a ball.", "Ben had a ball."
        >>> metric = fl.log_prob_of(fl.to_single_token(spec, " Tom"))
        >>> fl.attribution_patching(spec, corrupted, clean, metric=metric)
        Attributions(log-probability: 100 sites)
    """
    pair = paired(
        spec,
        inputs,
        source,
        metric=metric,
        sites=sites,
        attention_mask=attention_mask,
    )
    products: dict[Site, Tensor] = {}

    def look(site: Site, value: Tensor, gradient: Tensor) -> None:
        found = pair.product(site, pair.step(site, value), gradient)
        products[site] = products[site] + found if site in products else found

    measured = passing(spec, pair.prepared, pair.metric, pair.asked, look)
    return attributions_of(pair, products, measured[0])
