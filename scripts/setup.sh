#!/usr/bin/env bash
# Makes .venv with the pinned versions of constraints.txt and installs this checkout into it.
# Run through `make setup`, which calls it only when a file that it reads has changed.
#   PYTHON       the Python 3.11 to build on (default: python3.11)
#   TORCH_BUILD  the build of torch: cpu (default), or a CUDA one, see install_torch.sh
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3.11}

say() { printf '\033[1msetup:\033[0m %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

[ "$(uname -sm)" = "Linux x86_64" ] ||
  stop "Triton comes from PyPI for Linux on x86_64 only; this machine is $(uname -sm)."
command -v "$python" >/dev/null ||
  stop "$python is not on PATH; on Debian: apt-get install python3.11 python3.11-venv."
[ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "3.11" ] ||
  stop "$python is $("$python" --version); the pinned versions are for Python 3.11."
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  stop "$python cannot make virtual environments; on Debian: apt-get install python3.11-venv."
# Triton's Python stub links libpython at run time; without it the server hangs instead of starting.
libpython=$("$python" -c 'import sysconfig as s; print(s.get_config_var("LIBDIR") + "/libpython3.11.so.1.0")')
[ -e "$libpython" ] ||
  stop "$libpython is missing; on Debian: apt-get install libpython3.11 (pyenv: build with --enable-shared)."

[ -x .venv/bin/python ] || { say "making .venv with $("$python" --version)"; "$python" -m venv .venv; }
pip_install() { .venv/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt "$@"; }

say "build tools"
pip_install pip setuptools

say "torch (about 200 MB)"
scripts/install_torch.sh .venv/bin/python

say "Triton server (nvidia-pytriton, 50 MB; only its binary is used, so without its dependencies)"
pip_install --no-deps nvidia-pytriton

say "this checkout and everything else"
pip_install --no-build-isolation --editable ".[export,server,s3,gateway,evaluate,training,dev]" --editable ./client

touch .venv/.setup-stamp
say "done: .venv/bin/ofa and .venv/bin/ofa-client"
