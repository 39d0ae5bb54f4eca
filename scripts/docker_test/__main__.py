"""Builds the images of docker/, runs docker/compose.yaml and looks whether it does what it says.

With a real engine of its own, which it starts and stops, on local stand-ins for the base images: no
registry is asked. Debian, as root, through `make docker-test`. What is slow to make is kept in
build/docker-test. The exit status is 0 if everything was as it should be.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from check import FAILURES
from engine import running_engine
from images import build_images, check_images, check_wheels, lint_images
from machine import install_packages
from stack import running_stack
from stack_checks import check_stack
from stand_ins import build_stand_ins

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "docker-test"


def main() -> int:
    started = time.monotonic()
    # Like Ctrl-C: on the way out everything that was started is stopped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        test()
    except FAILURES as failure:
        print(f"docker-test: FAILED: {failure}", file=sys.stderr)
        return 1
    print(f"docker-test: passed in {time.monotonic() - started:.0f} s")
    return 0


def test() -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    install_packages()
    lint_images(ROOT, KEPT)
    check_wheels(ROOT, KEPT)
    with running_engine(ROOT, KEPT) as engine:
        build_stand_ins(engine, ROOT, KEPT)
        images = build_images(engine, ROOT)
        check_images(engine, images)
        with running_stack(engine, KEPT) as stack:
            check_stack(stack, ROOT)


if __name__ == "__main__":
    sys.exit(main())
