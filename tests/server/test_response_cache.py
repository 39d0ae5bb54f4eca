"""`ofa serve --response-cache-bytes`: an answer is given again, and to the same request only."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient

from tests.server.processes import ServeProcess, serving
from tests.server.requests import caption, encoded, picture, refusal, request_inputs


@pytest.fixture(scope="module")
def caching_server(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServeProcess]:
    log = tmp_path_factory.mktemp("cache_logs") / "cache.log"
    with serving(repository, log, ["--response-cache-bytes", "1048576"]) as server:
        yield server


@pytest.fixture
def caching_client(caching_server: ServeProcess) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(caching_server.grpc_address) as client:
        yield client


def num_generated(client: grpcclient.InferenceServerClient) -> int:
    statistics = client.get_inference_statistics("caption_generator").model_stats[0]
    return int(statistics.inference_count)


def num_hits(server: ServeProcess) -> int:
    """Of the ensemble, by the server's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports[2]}/metrics", timeout=60) as page:
        [value] = re.findall(
            r'^nv_cache_num_hits_per_model\{model="caption",.*\} (\d+)',
            page.read().decode(),
            re.MULTILINE,
        )
    return int(value)


def test_the_same_request_is_answered_from_the_cache(
    caching_server: ServeProcess, caching_client: grpcclient.InferenceServerClient
) -> None:
    image = encoded(picture(1))
    first = caption(caching_client, image, num_captions=3)
    generated, hits = num_generated(caching_client), num_hits(caching_server)
    assert caption(caching_client, image, num_captions=3) == first
    assert num_generated(caching_client) == generated
    assert num_hits(caching_server) == hits + 1


def test_another_option_or_picture_is_another_request(
    caching_server: ServeProcess, caching_client: grpcclient.InferenceServerClient
) -> None:
    image = encoded(picture(2))
    assert len(caption(caching_client, image, num_captions=2).captions) == 2
    generated, hits = num_generated(caching_client), num_hits(caching_server)
    assert len(caption(caching_client, image, num_captions=3).captions) == 3
    assert len(caption(caching_client, image).captions) == 1
    caption(caching_client, encoded(picture(3)), num_captions=2)
    assert num_generated(caching_client) == generated + 3
    assert num_hits(caching_server) == hits


def test_a_refusal_is_not_kept(
    caching_server: ServeProcess, caching_client: grpcclient.InferenceServerClient
) -> None:
    hits = num_hits(caching_server)
    broken = request_inputs(image=b"no picture")
    assert refusal(caching_client, "caption", broken) == refusal(caching_client, "caption", broken)
    assert num_hits(caching_server) == hits


def test_without_the_option_every_request_is_computed(
    client: grpcclient.InferenceServerClient,
) -> None:
    image = encoded(picture(4))
    before = num_generated(client)
    assert caption(client, image) == caption(client, image)
    assert num_generated(client) == before + 2
