"""The checkpoint that ships, served: the demo's pictures get the captions that are true of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofa_client import OFAClient
from tests.server.processes import OFA, serving

ROOT = Path(__file__).parents[2]
# A sample's file name says what it shows.
SAMPLES = sorted((ROOT / "samples").iterdir())


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OFAClient]:
    scratch = tmp_path_factory.mktemp("bundled")
    checkpoint = ROOT / "checkpoints" / "ofa-emoji-tiny_en"
    command = [OFA, "export", checkpoint, "--repository", scratch / "models"]
    subprocess.run(command, check=True, timeout=180)
    with (
        serving(scratch / "models", scratch / "server.log") as server,
        OFAClient(server.grpc_address, timeout=60) as connected,
    ):
        yield connected


@pytest.mark.parametrize("picture", SAMPLES, ids=lambda picture: picture.stem)
def test_sample_gets_its_true_caption(client: OFAClient, picture: Path) -> None:
    assert client.caption(picture).text == picture.stem.replace("_", " ")
