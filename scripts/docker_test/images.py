"""Our images: linted, built with the FROM lines as they are, and looked into."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

from check import CheckError, begin, passed, run
from engine import Engine

#: The scanner has hundreds of dependencies with pins of their own, hence its own environment.
_CHECKOV = "checkov==3.3.30"
#: Python of NVIDIA's image, which the stand-in has not.
_NVIDIA_PYTHON = "3.12"
_BUILD_TOOLS = "cc gcc g++ make cmake ninja cargo rustc git"


def lint_images(root: Path, kept: Path) -> None:
    """Asks hadolint and checkov about the Dockerfiles.

    Raises:
        CheckError: one of them complains.
    """
    begin("linters")
    dockerfiles = sorted((root / "docker").glob("Dockerfile.*"))
    run([root / ".venv-ops/bin/hadolint", *dockerfiles])
    passed(f"hadolint has no complaint about {len(dockerfiles)} Dockerfiles")
    checkov = kept / _CHECKOV / "bin" / "checkov"
    if not checkov.exists():
        run([sys.executable, "-m", "venv", "--clear", kept / _CHECKOV])
        run([checkov.with_name("pip"), "install", "--disable-pip-version-check", _CHECKOV])
    files = [word for file in dockerfiles for word in ("--file", file)]
    options = ["--framework", "dockerfile", "--skip-download", "--output", "json"]
    summary = json.loads(run([checkov, *options, *files]))["summary"]
    passed(f"checkov passes {summary['passed']} checks and skips {summary['skipped']}, explained")


def build_images(engine: Engine, root: Path) -> dict[str, str]:
    """Builds what the compose file says is built.

    Returns:
        The Dockerfile of each image, by the image's name.

    Raises:
        CheckError: one cannot be built.
    """
    begin("images")
    services = json.loads(engine.compose("--profile", "*", "config", "--format", "json"))[
        "services"
    ]
    images = {
        service["image"]: service["build"]["dockerfile"]
        for service in services.values()
        if "build" in service
    }
    for image, dockerfile in images.items():
        engine.docker(
            *("build", "--network", "host", "--file", dockerfile, "--tag", image, "."),
            directory=root,
        )
        base = _base(root / dockerfile)
        own, below = _size(engine, image), _size(engine, base)
        passed(f"{image}: {own - below:.0f} MB on {below:.0f} MB of {base}'s stand-in")
    return images


def check_wheels(root: Path, kept: Path) -> None:
    """Asks pip whether all that the server's image installs exists for NVIDIA's Python too.

    Raises:
        CheckError: a wheel is missing.
    """
    begin("wheels")
    server = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    client = tomllib.loads((root / "client" / "pyproject.toml").read_text("utf-8"))["project"]
    dockerfile = (root / "docker" / "Dockerfile.server").read_text("utf-8")
    [extras] = re.findall(r"ofa-triton\[(.*)\]", dockerfile)
    optional = server["optional-dependencies"]
    wanted = {
        *server["dependencies"],
        *client["dependencies"],
        *(name for extra in extras.split(",") for name in optional[extra]),
    } - {client["name"]}
    run(
        [
            *(sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--dry-run"),
            *("--ignore-installed", "--target", kept / "nowhere", "--only-binary", ":all:"),
            *("--python-version", _NVIDIA_PYTHON, "--constraint", root / "constraints.txt"),
            *sorted(wanted),
        ]
    )
    passed(f"everything in the server's image has a wheel for Python {_NVIDIA_PYTHON}")


def check_images(engine: Engine, images: dict[str, str]) -> None:
    """Looks for a user without rights, for build tools and for sources.

    Raises:
        CheckError: not as it should be.
    """
    for image in images:
        user = engine.docker("image", "inspect", "--format", "{{.Config.User}}", image).strip()
        seen = engine.docker(
            *("run", "--rm", "--network", "none", "--read-only", "--entrypoint", "sh", image, "-c"),
            f"id -u; for tool in {_BUILD_TOOLS}; do command -v $tool; done; "
            "find / -xdev -name pyproject.toml -path '*/o*'; :",
        ).split()
        if (user, seen) != ("1000:1000", ["1000"]):
            raise CheckError(f"{image} has the user {user} and, as that one, {' '.join(seen)}")
        passed(f"{image}: user 1000, no build tools, no sources")


def _base(dockerfile: Path) -> str:
    """The image that the last FROM names."""
    text = dockerfile.read_text("utf-8")
    name = re.findall(r"^FROM (\S+)", text, re.MULTILINE)[-1]
    if name == "${TRITON_IMAGE}":
        [name] = re.findall(r"^ARG TRITON_IMAGE=(\S+)$", text, re.MULTILINE)
    if "$" in name:
        raise CheckError(f"{dockerfile.name} is from {name}, which is no name of an image")
    return str(name)


def _size(engine: Engine, image: str) -> float:
    """In MB of a million bytes, as Docker has them."""
    return int(engine.docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e6
