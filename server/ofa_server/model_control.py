"""Versions that come and go while the server runs.

With `--model-control poll` Triton looks at the repository every few seconds, loads versions that
have come and unloads those that have gone. docs/versions.md says what was seen of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from ofa_server.model_configs import ModelConfig
from ofa_server.triton_process import Death, TritonProcess
from ofa_server.versions import version_folders

NONE, POLL = "none", "poll"
_POLL_INTERVAL_S = 5
_LOOK_INTERVAL_S = 1.0
#: Within which Triton asks for the end of a stub that it has ended itself; it takes milliseconds.
_REAP_S = 2.0


def model_control_arguments(model_control: str) -> list[str]:
    """What Triton is to be started with."""
    if model_control == NONE:
        return []
    return [
        "--model-control-mode=poll",
        f"--repository-poll-secs={_POLL_INTERVAL_S}",
        # Else it would not be ready while a version loads, nor after one that has failed to.
        "--strict-readiness=false",
    ]


def versions_at_once(
    repository: Path, configs: Mapping[str, ModelConfig], model_control: str
) -> dict[str, int]:
    """How many versions of each model are loaded at once, one that comes included.

    Args:
        repository: folder of the models.
        configs: their configurations by name.
        model_control: whether versions can come.
    """
    to_come = 1 if model_control == POLL else 0
    return {
        # Triton loads one unless a model asks for all.
        name: len(version_folders(repository / name)) + to_come
        if config.version_policy.HasField("all")
        else 1
        for name, config in configs.items()
    }


def triton_process(model_control: str) -> type[TritonProcess]:
    """How Triton is watched."""
    return TritonProcess if model_control == NONE else PollingTriton


class PollingTriton(TritonProcess):
    """A Triton whose stubs come and go with the versions of its models."""

    def wait_for_death(
        self, stubs: Mapping[int, str], timeout_s: float | None = None
    ) -> Death | None:
        """As its base, but for stubs that Triton has ended, and for those that have come since."""
        watched = dict(stubs)
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = _LOOK_INTERVAL_S if end is None else end - time.monotonic()
            death = super().wait_for_death(watched, max(0.0, min(left, _LOOK_INTERVAL_S)))
            if death is None and left <= 0:
                return None
            if death is not None:
                if death.instance is None or not _was_reaped(death.pid):
                    return death
                del watched[death.pid]
            # One that is dead when it is first seen has never been loaded, so nothing needs it.
            watched |= {
                pid: name for pid, name in self.stubs().items() if _state(pid) not in (None, "Z")
            }


def _was_reaped(pid: int) -> bool:
    """Whether Triton has asked how a dead stub has ended: it does for those that it ends itself.

    A stub that dies otherwise stays what it is, a zombie.
    """
    deadline = time.monotonic() + _REAP_S
    while _state(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _state(pid: int) -> str | None:
    """The kernel's letter for what a process does, None if there is none of that id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None
