"""When a call is attempted again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """How a call goes on when a server is busy, away or broken.

    Every call is attempted again, because none changes anything on a server, and always within its
    timeout. The next attempt goes to another server at once, as long as there is one that this
    call has not asked. Then the call waits before it asks them again: a random time between 0 and
    a bound that starts at `initial_backoff` and doubles each time ("full jitter"). A request that
    is itself at fault is never sent again.

    Attributes:
        max_attempts: requests that a call may send in all; 1 for no retries.
        initial_backoff: bound of the first wait, in seconds.
        max_backoff: what the bound grows to, in seconds.

    Raises:
        ValueError: a value is negative, or `max_attempts` is below 1.
    """

    max_attempts: int = 5
    initial_backoff: float = 0.1
    max_backoff: float = 5.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts is {self.max_attempts}; it must be at least 1")
        if not (self.initial_backoff >= 0 and self.max_backoff >= 0):
            raise ValueError("initial_backoff and max_backoff must be at least 0")

    def backoff(self, number: int) -> float:
        """Return the bound of the wait of this number, counted from 1, in seconds."""
        return min(self.max_backoff, self.initial_backoff * 2.0 ** min(number - 1, 60))


NO_RETRIES = RetryPolicy(max_attempts=1)
