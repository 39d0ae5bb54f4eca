"""Triton as a child process: started, watched, stopped."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from ofa_server.stop_signals import readable_on_signal

_DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
#: Seconds for running requests to end and for models to unload; Triton's own default.
EXIT_TIMEOUT_S = 30
#: The model of a dead stub never unloads: Triton would always use up the whole of its timeout.
BROKEN_EXIT_TIMEOUT_S = 5
#: What Triton may take beyond the timeout that it keeps itself.
_KILL_MARGIN_S = 5
#: A stub's name in /proc/PID/stat, which the kernel cuts at 15 characters.
_STUB_COMM = "triton_python_backend_stub"[:15]


class Death(NamedTuple):
    """A process of the server that is gone.

    Attributes:
        pid: its id.
        instance: the model instance whose stub it was, None for Triton itself.
    """

    pid: int
    instance: str | None


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
            # Triton ends in order when we are killed.
            [sys.executable, "-I", str(_DIE_WITH_PARENT), str(os.getpid()), *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            pass_fds=[lock_fd],
            # Ctrl-C in a terminal reaches us alone, so that Triton is stopped once and in order.
            start_new_session=True,
        )

    @property
    def exit_status(self) -> int | None:
        """How Triton has ended, None while it runs."""
        return self._process.poll()

    def stubs(self) -> dict[int, str]:
        """Model instances (`caption_preprocess_0_1`) by the process ids of their stubs.

        The versions of a model have instances of the same names.
        """
        stubs = {}
        for directory in Path("/proc").glob("[0-9]*"):
            # Ended meanwhile, or another user's where /proc hides those.
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                # A name that was cut in the midst of a character is no text.
                stat = (directory / "stat").read_text(errors="replace")
                comm, _, rest = stat.partition("(")[2].rpartition(")")
                if comm == _STUB_COMM and int(rest.split()[1]) == self._process.pid:
                    arguments = (directory / "cmdline").read_text().split("\0")
                    # The instance is the last argument but one; a zombie has no arguments left.
                    name = arguments[-3] if len(arguments) > 2 else f"of process {directory.name}"
                    stubs[int(directory.name)] = name
        return stubs

    def wait_for_death(
        self, stubs: Mapping[int, str], timeout_s: float | None = None
    ) -> Death | None:
        """Waits until Triton or one of its stubs is gone.

        The kernel tells. Nothing is asked of the server, so a full queue or a slow request cannot
        be taken for a death. A signal's handler runs at once, and may raise.

        Args:
            stubs: model instances by process ids.
            timeout_s: seconds to wait, None for ever.

        Returns:
            Which one is gone, None if all live when the time is over or a signal has come.
        """
        poll, deaths = select.poll(), dict[int, Death]()
        with ExitStack() as stack:
            poll.register(stack.enter_context(readable_on_signal()), select.POLLIN)
            for death in (Death(self._process.pid, None), *map(Death._make, stubs.items())):
                try:
                    fd = os.pidfd_open(death.pid)
                except ProcessLookupError:
                    return death
                stack.callback(os.close, fd)
                poll.register(fd, select.POLLIN)
                deaths[fd] = death
            readable = poll.poll(None if timeout_s is None else 1000 * timeout_s)
            return next((deaths[fd] for fd, _ in readable if fd in deaths), None)

    def stop(self, timeout_s: float = EXIT_TIMEOUT_S + _KILL_MARGIN_S) -> None:
        """Lets running requests end; after `timeout_s` kills the server and all of its stubs."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
