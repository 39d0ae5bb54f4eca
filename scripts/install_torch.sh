#!/usr/bin/env bash
# Installs torch, in the version of constraints.txt, for the Python given: install_torch.sh PYTHON
#   TORCH_BUILD  cpu (default), or a CUDA build as PyTorch names it, e.g. cu126
set -euo pipefail
cd "$(dirname "$0")/.."

torch_build=${TORCH_BUILD:-cpu}
torch=$(sed -n 's/^torch==/&/p' constraints.txt)+$torch_build
pip_install() { "$1" -m pip install --disable-pip-version-check --no-deps "${@:2}"; }

# pip is first asked where it is configured to look. PyPI itself has CUDA builds only (several GB),
# so where no such build is found the one index that has it, PyTorch's own, is asked.
pip_install "$1" "$torch" 2>/dev/null ||
  pip_install "$1" --index-url "https://download.pytorch.org/whl/$torch_build" "$torch"
