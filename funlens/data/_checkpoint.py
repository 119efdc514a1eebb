"""`Checkpoint`: one point of a training run."""

import attrs


@attrs.frozen(kw_only=True)
class Checkpoint:
    """One point of a training run.

    Attributes:
        name: Repository on the hub.
        revision: What `funlens.load` takes as `revision`.
        step: Updates of the weights until then.
        tokens: Tokens read until then; None where nobody says.
        stage: Part of the training, where it has several that each count from 0.
    """

    name: str
    revision: str
    step: int = attrs.field(validator=attrs.validators.ge(0))
    tokens: int | None = None
    stage: str = ""
