"""Trying again when the hub says that it was asked too often."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

RETRY_VARIABLE: Final = "FUNLENS_HF_RETRY"
_TOO_MANY_REQUESTS: Final = 429
_ATTEMPTS: Final = 6
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0

Result = TypeVar("Result")


def is_retrying() -> bool:
    """Tell whether `FUNLENS_HF_RETRY=1` is set."""
    return os.environ.get(RETRY_VARIABLE) == "1"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error to what caused it, the error itself first."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        yield at
        seen.add(id(at))
        at = at.__cause__ or at.__context__


def is_rate_limited(error: BaseException) -> bool:
    """Tell whether an error comes from an HTTP 429."""
    return answer_with(_TOO_MANY_REQUESTS, error) is not None


def answer_with(status: int, error: BaseException) -> Any:
    """Find the hub's answer with a status among what caused an error."""
    answers = (getattr(cause, "response", None) for cause in causes(error))
    return next(
        (one for one in answers if getattr(one, "status_code", None) == status), None
    )


def retrying(
    function: Callable[[], Result],
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] | None = None,
) -> Result:
    """Call the hub, and where `FUNLENS_HF_RETRY=1` again after each HTTP 429.

    The wait is what the answer's `Retry-After` asks for, in seconds or as a date;
    without one it doubles from 1 second to at most 60. The sixth refusal is final.

    Args:
        function: Does one call.
        sleep: Waits that many seconds.
        now: The time that dates are compared with; the clock's if left out.

    Returns:
        What the function returns. Its last error is raised unchanged.
    """
    if not is_retrying():
        return function()
    from tenacity import (
        RetryCallState,
        Retrying,
        retry_if_exception,
        stop_after_attempt,
    )

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = None if error is None else _asked_for(error, now=now or _utc_now)
        return _doubled(state.attempt_number) if asked is None else asked

    attempts = Retrying(
        retry=retry_if_exception(is_rate_limited),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait,
        sleep=sleep,
        reraise=True,
    )
    return attempts(function)


def _doubled(attempt: int) -> float:
    """Say how many seconds to wait where the answer does not."""
    return min(_FIRST_WAIT * 2.0 ** (attempt - 1), _LONGEST_WAIT)


def _asked_for(error: BaseException, *, now: Callable[[], datetime]) -> float | None:
    """Read `Retry-After`, which is a number of seconds or a date."""
    response = answer_with(_TOO_MANY_REQUESTS, error)
    headers: Mapping[str, str] = getattr(response, "headers", None) or {}
    lowered = {name.lower(): value for name, value in headers.items()}
    value = lowered.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None  # absent, or neither of the two forms
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (aware - now()).total_seconds())


def _utc_now() -> datetime:
    return datetime.now(UTC)
