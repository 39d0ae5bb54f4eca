"""The warm-up that `ofa serve` sends before it says ready, to a client that is made up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from ofa_server import readiness
from ofa_server.errors import ServerError

FULL = "in ensemble 'caption', Exceeds maximum queue size"


class Client:
    """Refuses as often as it has reasons to, then answers."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = list(reasons)

    def infer(self, *_: object, **__: object) -> None:
        if self.reasons:
            raise InferenceServerException(self.reasons.pop(0))


def attempt(client: Any, deadline: float) -> None:
    readiness._try_ensemble(client, "caption", [], deadline)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_POLL_INTERVAL_S", 0)


def test_a_full_queue_is_no_failure() -> None:
    client = Client([FULL, FULL])
    attempt(client, time.monotonic() + 60)
    assert not client.reasons


@pytest.mark.parametrize(("reason", "seconds"), [("broken", 60), (FULL, -1)])
def test_anything_else_is_one_and_so_is_a_queue_that_stays_full(
    reason: str, seconds: float
) -> None:
    with pytest.raises(ServerError, match=f"the warm-up of caption failed: {reason}"):
        attempt(Client([reason, FULL]), time.monotonic() + seconds)
