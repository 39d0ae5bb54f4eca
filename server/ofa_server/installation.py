"""Finds a Triton server and lays out what it needs to start.

In NVIDIA's image `tritonserver` is on PATH with all its backends. On a bare machine the PyPI
package `nvidia-pytriton` brings the same binary with one stub for each version of Python, but with
no backend beside Python's, so ours stands in for PyTorch's.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from ofa_server.errors import ServerError

STAND_INS = Path(__file__).parent / "backends"
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Installation:
    """Where a Triton server lies.

    Attributes:
        binary: `tritonserver`, run from its place because it finds its libraries from there.
        backends: folder with a folder for each backend.
        stub: the program that embeds Python for the Python backend.
        libraries: folders that the loader searches beside the system's.
        from_wheel: it comes from `nvidia-pytriton`, whose stub is built against numpy 1.
    """

    binary: Path
    backends: Path
    stub: Path
    libraries: tuple[Path, ...]
    from_wheel: bool

    @property
    def caches(self) -> Path:
        """Folder with a folder for each kind of response cache."""
        return self.binary.parent.parent / "caches"

    @property
    def has_pytorch(self) -> bool:
        """Whether it carries the C++ PyTorch backend."""
        return (self.backends / "pytorch" / "libtriton_pytorch.so").exists()

    def prepare_backends(self, directory: Path) -> Path:
        """Gives Triton a folder with all backends that the models need.

        Args:
            directory: empty; filled where the installation lacks the PyTorch backend.

        Returns:
            The folder to start Triton with.

        Raises:
            ServerError: programs cannot be run from `directory`, or it has no room for them.
        """
        if self.has_pytorch:
            return self.backends
        if os.statvfs(directory).f_flag & os.ST_NOEXEC:
            raise ServerError(
                f"{directory.parent} is mounted noexec, and Triton's Python stub has to run from "
                "there; set TMPDIR to another folder"
            )
        # Copies: Triton refuses a library that a link leads out of the backends' folder.
        ignore = shutil.ignore_patterns("__pycache__")
        try:
            shutil.copytree(self.backends, directory, ignore=ignore, dirs_exist_ok=True)
            shutil.copytree(STAND_INS, directory, ignore=ignore, dirs_exist_ok=True)
            shutil.copy2(self.stub, directory / "python" / _STUB)
        except OSError as error:
            free = shutil.disk_usage(directory).free // 2**20
            raise ServerError(
                f"Triton's backends cannot be copied to {directory.parent}, which has {free} MiB "
                "free; make room, or set TMPDIR to another folder"
            ) from error
        return directory

    def environment(self) -> dict[str, str]:
        """Environment in which Triton and its stubs run this interpreter's Python.

        The stub finds its packages by the `python3` on PATH, and needs the libpython of just that
        Python: with another one of the same version, half of the standard library fails to load.
        """
        libraries = [sysconfig.get_config_var("LIBDIR"), *map(str, self.libraries)]
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "LD_LIBRARY_PATH": os.pathsep.join(
                [*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
            ),
        }


def find_installation() -> Installation:
    """Finds `tritonserver` on PATH, else in `nvidia-pytriton`.

    Raises:
        ServerError: there is neither, or none with a stub for this version of Python.
    """
    on_path = shutil.which("tritonserver")
    if on_path is not None:
        binary = Path(on_path).resolve()
        backends = binary.parent.parent / "backends"
        return Installation(
            binary=binary,
            backends=backends,
            stub=_existing_stub(backends / "python" / _STUB),
            libraries=(binary.parent.parent / "lib",),
            from_wheel=False,
        )
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise ServerError(
            "no Triton server: there is no tritonserver on PATH and nvidia-pytriton is not "
            "installed (pip install --no-deps nvidia-pytriton)"
        )
    site_packages = Path(spec.origin).parent.parent
    triton = site_packages / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Installation(
        binary=triton / "bin" / "tritonserver",
        backends=triton / "backends",
        stub=_existing_stub(triton / "python_backend_stubs" / version / _STUB),
        libraries=(site_packages / "nvidia_pytriton.libs",),
        from_wheel=True,
    )


def _existing_stub(stub: Path) -> Path:
    if not stub.is_file():
        raise ServerError(f"this Triton has no Python stub for this Python: {stub} is missing")
    return stub
