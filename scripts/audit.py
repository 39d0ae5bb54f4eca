"""Asks OSV, the open database of vulnerabilities, about every version that constraints.txt pins.

Run through `make audit`. It fails on a finding that `audit_findings.toml` does not assess, and on
an assessment that has expired. A service that does not answer is said, and fails nothing. The
Triton binary inside nvidia-pytriton is not looked into: packages are known by name and version.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_OSV = "https://api.osv.dev/v1/query"
#: What pip-audit ends with when the service cannot be reached, or is down.
_AWAY = re.compile("ConnectionError|Timeout|ServiceError|HTTPError")


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 1 if something is to be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requirements", type=Path, default=_ROOT / "constraints.txt")
    parser.add_argument("--findings", type=Path, default=_ROOT / "scripts/audit_findings.toml")
    parser.add_argument("--service", default=_OSV, metavar="URL")
    given = parser.parse_args(arguments)
    today = dt.datetime.now(dt.UTC).date()
    assessed = {
        finding["id"]: finding
        for finding in tomllib.loads(given.findings.read_text()).get("finding", [])
        if finding["expires"] >= today
    }
    report = _ask(given.requirements, given.service)
    if report is None:
        print(f"audit: {given.service} does not answer: NOTHING WAS AUDITED")
        return 0
    num_open = 0
    for package in report["dependencies"]:
        for found in package.get("vulns", []):
            names = {found["id"], *found["aliases"]}
            known = next((assessed[name] for name in names if name in assessed), None)
            num_open += known is None
            verdict = "NOT ASSESSED" if known is None else f"assessed: {known['reason']}"
            mended = ", ".join(found["fix_versions"]) or "no version"
            print(f"{package['name']} {package['version']}: {found['id']}; mended in {mended}")
            print(f"  {verdict}")
    print(f"audit: {len(report['dependencies'])} packages, {num_open} findings to assess")
    return int(num_open > 0)


def _ask(requirements: Path, service: str) -> dict[str, list[dict[str, object]]] | None:
    """Return pip-audit's report, None where the service does not answer."""
    audited = subprocess.run(
        [
            *(_ROOT / ".venv-ops/bin/pip-audit", "--requirement", requirements),
            # The pins are complete, so nothing has to be resolved or installed.
            *("--no-deps", "--disable-pip"),
            *("--vulnerability-service", "osv", "--osv-url", service),
            *("--format", "json", "--aliases", "on", "--progress-spinner", "off"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report: dict[str, list[dict[str, object]]] = json.loads(audited.stdout)
    except json.JSONDecodeError:
        reason = audited.stderr.strip().rpartition("\n")[2]
        if not _AWAY.search(reason):
            sys.exit(f"audit: pip-audit has failed:\n{audited.stderr}")
        print(reason, file=sys.stderr)
        return None
    return report


if __name__ == "__main__":
    sys.exit(main())
