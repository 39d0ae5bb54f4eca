"""Images that stand in for the bases, under the very names that the FROM lines have.

All grow out of a plain Debian that debootstrap makes. What each is made of is in stand_ins/.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from check import begin, passed, run
from engine import Engine

_RECIPES = Path(__file__).parent / "stand_ins"
_DEBIAN = "ofa-stand-in/debian"
#: Where this machine keeps whom it trusts; pip in a container is to trust the same.
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PACKAGES = "python3,python3-pip,python3-venv,libpython3.11,ca-certificates"


def build_stand_ins(engine: Engine, root: Path, kept: Path) -> None:
    """Builds those that are not there yet.

    Raises:
        CheckError: one cannot be built.
    """
    begin("stand-ins for the base images")
    if not engine.has_image(_DEBIAN):
        _import_debian(engine, kept / "debian")
    context = kept / "context"
    (context / "wheels").mkdir(parents=True, exist_ok=True)
    constraints = root / "constraints.txt"
    shutil.copy2(constraints, context)
    _download_torch(constraints, context / "wheels")
    for recipe, names in {
        "python": ["ofa-stand-in/python", _base(root, "gateway", r"^FROM (python:\S+)$")],
        "tritonserver": [_base(root, "server", r"^ARG TRITON_IMAGE=(\S+)$")],
        "prometheus": [_prometheus(engine)],
    }.items():
        tags = [word for name in names for word in ("--tag", name)]
        file = _RECIPES / f"{recipe}.Dockerfile"
        engine.docker("build", "--network", "host", "--file", file, *tags, context)
        passed(f"{names[-1]} is {recipe}'s stand-in")


def _import_debian(engine: Engine, tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    run(
        ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", tree],
        engine.environment,
    )
    shutil.copy2(_CERTIFICATES, tree / "etc/ssl/certs")
    # Python's own images let pip install into their Python.
    (tree / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    archive = tree.with_suffix(".tar")
    for package in (tree / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    run(["tar", "--directory", tree, "-cf", archive, "."])
    engine.docker("import", archive, _DEBIAN)
    shutil.rmtree(tree)
    archive.unlink()


def _download_torch(constraints: Path, folder: Path) -> None:
    """As scripts/install_torch.sh: where pip is configured to look, else PyTorch's own index."""
    [version] = re.findall(r"^torch==(\S+)$", constraints.read_text("utf-8"), re.MULTILINE)
    if any(folder.glob(f"torch-{version}+cpu-*.whl")):
        return
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder)]
    wanted = f"torch=={version}+cpu"
    if subprocess.run([*pip, wanted], capture_output=True, check=False).returncode:
        run([*pip, "--index-url", "https://download.pytorch.org/whl/cpu", wanted])


def _base(root: Path, image: str, pattern: str) -> str:
    dockerfile = (root / "docker" / f"Dockerfile.{image}").read_text("utf-8")
    [name] = re.findall(pattern, dockerfile, re.MULTILINE)
    return str(name)


def _prometheus(engine: Engine) -> str:
    services = json.loads(engine.compose("config", "--format", "json"))["services"]
    return str(services["prometheus"]["image"])
