"""Runs a program that gets SIGTERM when its parent is killed, so that no server is left behind.

    python die_with_parent.py PARENT PROGRAM [ARGUMENT ...]

The program takes this process over. (`subprocess` could do it between fork and exec, which is not
safe once a thread runs.)
"""

import ctypes
import os
import signal
import sys

#: prctl's code for "signal me when my parent dies" (linux/prctl.h).
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Takes the parent's process id and the command from the command line."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
