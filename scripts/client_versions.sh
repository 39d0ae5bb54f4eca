#!/usr/bin/env bash
# Runs the client's unit tests, its examples and the programs of its README, installed in a clean
# environment, with every combination of versions that it promises and that exists.
#   client_versions.sh [PYTHON…]   by default python3.10 to python3.13, those of them that are there
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH  # nothing but what is installed here is to be found

[ $# -gt 0 ] || set -- python3.10 python3.11 python3.12 python3.13
shopt -s extglob
# All but modelscope's, which needs torch, and package's, which needs mypy.
tests=(tests/unit/test_client_!(modelscope|package).py)
# The oldest tritonclient with the oldest that work with it and with what it picks by itself; the
# newest with the oldest that work with it and with either numpy. Python 3.13 has no numpy 1, and
# says of protobuf 4 that a later Python will not have it, as 3.12 does.
combinations=(
  "tritonclient==2.51.0 grpcio==1.67.0 protobuf==4.25.0 numpy==1.26.*"
  "tritonclient==2.51.0"
  "tritonclient==2.73.0 grpcio==1.81.1 protobuf==6.33.5"
  "tritonclient>=2.73 numpy==1.26.*"
  "tritonclient>=2.73 numpy>=2"
)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r client "$scratch/source"
failed=0
num_tested=0
for python in "$@"; do
  if ! "$python" --version >"$scratch/version" 2>/dev/null; then
    echo "$python: not there"
    continue
  fi
  for combination in "${combinations[@]}"; do
    name="$(cat "$scratch/version"), $combination"
    rm -rf "$scratch/venv"
    "$python" -m venv "$scratch/venv"
    read -ra packages <<<"$combination"
    if ! "$scratch/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
      "${packages[@]}" "$scratch/source[pillow,progress]" cryptography hypothesis opentelemetry-api pytest \
      >"$scratch/log" 2>&1; then
      echo "$name: does not exist: $(grep ERROR "$scratch/log" | head -1)"
      continue
    fi
    num_tested=$((num_tested + 1))
    if "$scratch/venv/bin/python" -m pytest -q -p no:cacheprovider \
      --noconftest -p tests.unit.scripted_triton -W "ignore:Type google:DeprecationWarning" \
      "${tests[@]}" >"$scratch/log" 2>&1; then
      echo "$name: $(tail -1 "$scratch/log")"
    else
      echo "$name: FAILED"
      cat "$scratch/log"
      failed=1
    fi
  done
done
# Without a network, say, nothing can be installed.
[ $num_tested -gt 0 ] || { echo "nothing was tested" >&2; failed=1; }
exit $failed
