"""Triton as a child process: started, watched, stopped."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

#: Seconds for running requests to end and for models to unload; Triton's own default.
EXIT_TIMEOUT_S = 30
#: The model of a dead stub never unloads: Triton would always use up the whole of its timeout.
BROKEN_EXIT_TIMEOUT_S = 5
#: What Triton may take beyond the timeout that it keeps itself.
_KILL_MARGIN_S = 5
#: A stub's name in /proc/PID/stat, which the kernel cuts at 15 characters.
_STUB_COMM = "triton_python_backend_stub"[:15]
#: prctl's code for "signal me when my parent dies" (linux/prctl.h).
_PR_SET_PDEATHSIG = 1


class TritonProcess:
    """A running tritonserver and its Python stubs, in a process group of their own."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], lock_fd: int
    ) -> None:
        """Starts Triton. Its log goes to standard error.

        Args:
            command: program and arguments.
            environment: of the server and, inherited, of its stubs.
            lock_fd: descriptor that they keep open as long as they live.
        """
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            pass_fds=[lock_fd],
            # Ctrl-C in a terminal reaches us alone, so that Triton is stopped once and in order.
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - no thread of ours runs yet
        )

    @property
    def exit_status(self) -> int | None:
        """How Triton has ended, None while it runs."""
        return self._process.poll()

    def stubs(self) -> dict[str, int]:
        """Process ids of the stubs by model instance (`caption_preprocess_0_1`)."""
        stubs = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):
                comm, _, rest = (directory / "stat").read_text().partition("(")[2].rpartition(")")
                if comm == _STUB_COMM and int(rest.split()[1]) == self._process.pid:
                    arguments = (directory / "cmdline").read_text().split("\0")
                    # The instance is the last argument but one; a zombie has no arguments left.
                    name = arguments[-3] if len(arguments) > 2 else f"of process {directory.name}"
                    stubs[name] = int(directory.name)
        return stubs

    def wait_for_death(self, stubs: Mapping[str, int]) -> str | None:
        """Waits until Triton or one of its stubs is gone.

        The kernel tells. Nothing is asked of the server, so a full queue or a slow request cannot
        be taken for a death.

        Returns:
            The model instance whose stub has died, None for Triton itself.
        """
        poll, names = select.poll(), dict[int, str | None]()
        with ExitStack() as stack:
            for name, pid in [(None, self._process.pid), *stubs.items()]:
                try:
                    fd = os.pidfd_open(pid)
                except ProcessLookupError:
                    return name
                stack.callback(os.close, fd)
                poll.register(fd, select.POLLIN)
                names[fd] = name
            return names[poll.poll()[0][0]]

    def stop(self, timeout_s: float = EXIT_TIMEOUT_S + _KILL_MARGIN_S) -> None:
        """Lets running requests end; after `timeout_s` kills the server and all of its stubs."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _die_with(parent: int) -> Callable[[], None]:
    """Makes the child end in order when we are killed, so that no server is left behind."""
    libc = ctypes.CDLL(None, use_errno=True)

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return set_death_signal
