"""What checkov, a scanner of policies, finds in the chart. `make helm-test` installs it."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.contract.chart import CASES, NAMESPACE, RELEASE, ROOT, render

CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"

#: Policies that the chart does not follow, and why.
WAIVED = {
    "CKV_K8S_15": "always pull the image: tags are versions, which do not move",
    "CKV_K8S_35": "no secret in the environment: S3 clients know credentials by these variables",
    "CKV_K8S_40": "a user above 10000: the image's user is 1000",
    "CKV_K8S_43": "images by digest: the registry is not ours",
}

pytestmark = pytest.mark.skipif(
    not CHECKOV.exists(), reason=f"{CHECKOV} is missing: run `make helm-test`"
)


def failed(folder: Path) -> set[tuple[str, str]]:
    """Policy and resource of what checkov finds."""
    options = ["--framework", "kubernetes", "--skip-download", "--quiet", "--output", "json"]
    scanned = subprocess.run(
        [CHECKOV, *options, "--directory", folder],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    report = json.loads(scanned.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 50 * len(CASES)
    return {(check["check_id"], check["resource"]) for check in report["results"]["failed_checks"]}


def write(folder: Path) -> None:
    for case in CASES:
        # A pod of a test lasts seconds and answers nobody: probes and policies are not for it.
        manifests = [manifest for manifest in render(case) if manifest["kind"] != "Pod"]
        (folder / f"{case}.yaml").write_text(yaml.safe_dump_all(manifests))


def test_checkov_finds_what_is_waived_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path)
    assert {policy for policy, _ in failed(tmp_path)} == set(WAIVED)


def test_checkov_would_find_a_privilege(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "default.yaml"
    text = file.read_text()
    assert "allowPrivilegeEscalation: false" in text
    file.write_text(
        text.replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true")
    )
    found = ("CKV_K8S_20", f"Deployment.{NAMESPACE}.{RELEASE}")
    assert found in failed(tmp_path)
