#!/usr/bin/env bash
# Makes .venv-oracle, the environment of the reference. Run through `make oracle`.
set -euo pipefail
cd "$(dirname "$0")/.."

printf '\033[1moracle:\033[0m ModelScope 1.40.2 and what it needs, in .venv-oracle (1.9 GB)\n'
[ -x .venv-oracle/bin/python ] || "${PYTHON:-python3.11}" -m venv .venv-oracle
scripts/install_torch.sh .venv-oracle/bin/python
.venv-oracle/bin/python -m pip install --disable-pip-version-check --no-deps \
  --requirement scripts/oracle_requirements.txt
touch .venv-oracle/.setup-stamp
