"""Answers of the hub."""

import httpx2
from huggingface_hub.errors import HfHubHTTPError


def answer(status: int, **headers: str) -> httpx2.Response:
    """Make an answer of the hub."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = httpx2.Request("GET", "https://huggingface.co/some/model")
    return httpx2.Response(status, headers=named, request=request)


def refused(**headers: str) -> HfHubHTTPError:
    """Make the error of an HTTP 429."""
    return HfHubHTTPError("too many", response=answer(429, **headers))
