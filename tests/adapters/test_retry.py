"""Retries after HTTP 429."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from huggingface_hub.errors import HfHubHTTPError

from funlens.adapters import load
from funlens.adapters._retry import retrying
from funlens.errors import LoadError
from tests.adapters.hub import answer, refused

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def calls_and_waits(errors: list[Exception]) -> SimpleNamespace:
    """Call something that fails with these errors and then gives 7."""
    pending, waits = list(errors), list[float]()

    def call() -> int:
        if pending:
            raise pending.pop(0)
        return 7

    def now() -> datetime:
        return NOON + timedelta(seconds=sum(waits))

    result = retrying(call, sleep=waits.append, now=now)
    return SimpleNamespace(result=result, waits=waits)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn retries on."""
    monkeypatch.setenv("FUNLENS_HF_RETRY", "1")


@pytest.mark.usefixtures("patient")
def test_waits_double_without_a_hint() -> None:
    """1, 2, 4, 8 seconds."""
    seen = calls_and_waits([refused() for _ in range(4)])
    assert (7, [1, 2, 4, 8]) == (seen.result, seen.waits)


@pytest.mark.usefixtures("patient")
def test_retry_after_is_honored_as_seconds_and_as_a_date() -> None:
    """A date that has passed is no wait; nonsense is no hint."""
    date = format_datetime(NOON + timedelta(seconds=60), usegmt=True)
    hints = ["30", date, date, "soon"]
    seen = calls_and_waits([refused(retry_after=hint) for hint in hints])
    assert [30, 30, 0, 8] == seen.waits


@pytest.mark.usefixtures("patient")
def test_a_wrapped_refusal_is_found() -> None:
    """Transformers raises OSError from the hub's error."""
    wrapped = OSError("wrapped")
    wrapped.__cause__ = refused(retry_after="5")
    assert [5] == calls_and_waits([wrapped]).waits


@pytest.mark.usefixtures("patient")
def test_retries_end() -> None:
    """The sixth refusal is raised unchanged."""
    errors: list[Exception] = [refused() for _ in range(6)]
    with pytest.raises(HfHubHTTPError) as caught:
        calls_and_waits(errors)
    assert caught.value is errors[-1]


@pytest.mark.usefixtures("patient")
def test_other_errors_are_not_retried() -> None:
    """Only HTTP 429 is."""
    with pytest.raises(HfHubHTTPError, match="broken"):
        calls_and_waits([HfHubHTTPError("broken", response=answer(500))])


def test_nothing_is_retried_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the error says how to ask."""
    monkeypatch.delenv("FUNLENS_HF_RETRY", raising=False)
    with pytest.raises(HfHubHTTPError):
        calls_and_waits([refused()])

    def refuse(*args: Any, **options: Any) -> Any:
        raise refused()

    monkeypatch.setattr(transformers.PreTrainedConfig, "get_config_dict", refuse)
    with pytest.raises(LoadError, match="FUNLENS_HF_RETRY=1"):
        load("some/model")
