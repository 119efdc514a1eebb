"""`Support`: what is known of one architecture under one head."""

import attrs


@attrs.frozen(kw_only=True)
class Support:
    """What was found when a tiny model of an architecture was verified.

    Attributes:
        name: The model type, with the variety behind it where there are several.
        model_type: HuggingFace's name of the architecture.
        task: What its head is for, such as `causal-lm`; empty where a table is there
            that nobody has run, as a third party's.
        n_sites: Sites that the tiny model has.
        laws: Laws of `funlens.verify` that hold.
        excused: Laws that do not apply, and why.
        broken: Laws that do not hold, or what stopped their check.
        refused: Why such a model is refused; empty where it is not.
        checked_with: Version of transformers it was run with.
        date: Day of that run.
    """

    name: str
    model_type: str
    task: str = ""
    n_sites: int = 0
    laws: tuple[str, ...] = ()
    excused: tuple[tuple[str, str], ...] = ()
    broken: tuple[str, ...] = ()
    refused: str = ""
    checked_with: str = ""
    date: str = ""

    @property
    def is_verified(self) -> bool:
        """Whether it was run, and every law held that applies."""
        return bool(self.laws) and not self.broken and not self.refused
