"""Where a repository lies on S3, by its URL."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ofa_server import serve
from ofa_server.errors import ServerError
from ofa_server.s3_repository import Location, local_repository, parse_url


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("s3://models", Location("s3.amazonaws.com", True, "models", "")),
        ("s3://models/ofa/v1/", Location("s3.amazonaws.com", True, "models", "ofa/v1/")),
        ("s3://http://h:9000/models/ofa", Location("h:9000", False, "models", "ofa/")),
        ("s3://https://s3.example.org/models", Location("s3.example.org", True, "models", "")),
        ("s3://h:9000/models/ofa", Location("h:9000", False, "models", "ofa/")),
    ],
)
def test_a_url_says_server_bucket_and_prefix(url: str, location: Location) -> None:
    assert parse_url(url) == location


@pytest.mark.parametrize(
    "url", ["s3://", "s3://http://h:9000", "s3://http://h:9000/", "s3://A_b/c"]
)
def test_a_url_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(ServerError, match="is no repository on S3"), local_repository(url):
        pass


@pytest.mark.parametrize("url", ["s3://ab/models", "s3://a..b/models", "s3://http://me@h:9/models"])
def test_what_minio_takes_for_no_name_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "somebodys")
    with pytest.raises(ServerError, match="is no repository on S3: "), local_repository(url):
        pass


def test_a_folder_is_itself(tmp_path: Path) -> None:
    with local_repository(str(tmp_path / "missing")) as folder:
        assert folder == tmp_path / "missing"


def test_s3_is_not_polled() -> None:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    words = ["--repository", "s3://models", "--model-control", "poll"]
    with pytest.raises(ServerError, match="what lies on S3 is copied once"):
        serve.run(parser.parse_args(words))
