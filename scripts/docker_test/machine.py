"""The Debian packages that the test needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from check import CheckError, begin, passed, run

#: Package by a program that it brings.
PACKAGES = {"dockerd": "docker.io", "iptables": "iptables", "debootstrap": "debootstrap"}
#: Where programs of root lie.
SEARCHED = "/usr/sbin:/usr/bin:/sbin:/bin"
_POLICY = Path("/usr/sbin/policy-rc.d")


def install_packages() -> None:
    """Installs what is missing, and starts none of its services.

    Raises:
        CheckError: not root, not Debian, or a package cannot be installed.
    """
    begin("machine")
    if os.geteuid() != 0:
        raise CheckError("a Docker engine and debootstrap need root")
    missing = [name for tool, name in PACKAGES.items() if not shutil.which(tool, path=SEARCHED)]
    if missing:
        if not shutil.which("apt-get", path=SEARCHED):
            raise CheckError(f"{', '.join(missing)} is missing, and there is no apt-get to ask")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], environment)
        with _no_service_started():
            run(["apt-get", "install", "-y", "--no-install-recommends", *missing], environment)
    passed(f"{', '.join(PACKAGES.values())}: there")


@contextmanager
def _no_service_started() -> Iterator[None]:
    """Debian's own switch against the start of services that a package brings."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
