"""Envoy's configuration in front of a Triton: who is let in, with what, and to which calls."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx2
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ofa_client import (
    MAX_IMAGE_BYTES,
    TLS,
    AsyncOFAClient,
    AuthenticationError,
    InvalidRequestError,
    OFAClient,
    OFAClientError,
    OverloadedError,
    UnavailableError,
)
from tests.server.envoy_process import (
    ENVOY,
    SECOND_TOKEN,
    TOKEN,
    EnvoyProcess,
    envoy_in_front_of,
)
from tests.server.gateway_process import gateway_serving
from tests.server.processes import OFA_CLIENT, ServeProcess, serving, wait_until
from tests.server.requests import TIMEOUT_S, caption, encoded, picture
from tests.unit.certificates import Authority
from tests.unit.scripted_triton import CAPTIONS, Tensors, scripted_server

pytestmark = pytest.mark.skipif(
    not ENVOY.exists(), reason=f"{ENVOY} is missing: run `make ops-tools`"
)

PICTURE = encoded(picture(1))
BEARER = (("authorization", f"Bearer {TOKEN}"),)
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
#: That Envoy lets be under way.
MAX_REQUESTS = 512
#: What whoever has no credential is told.
UNKNOWN = "a client certificate or a bearer token is needed"
OFFERED = {
    "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer",
    "ModelStatistics",
}  # fmt: skip
MEMBERS = ("caption_preprocess", "caption_generator", "caption_postprocess")


@pytest.fixture(scope="module")
def envoy(server: ServeProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvoyProcess]:
    with envoy_in_front_of(server.ports[0], tmp_path_factory.mktemp("envoy")) as envoy:
        yield envoy


@pytest.fixture
def stranger(envoy: EnvoyProcess) -> Iterator[grpc.Channel]:
    """A channel that has no credential unless a call brings one."""
    with envoy.channel() as channel:
        yield channel


def connect(envoy: EnvoyProcess, token: str | None = None) -> OFAClient:
    return OFAClient(
        envoy.address, tls=TLS(envoy.servers.root), token=token, retry=None, timeout=TIMEOUT_S
    )


def mutual_tls(envoy: EnvoyProcess, authority: Authority, hours: int = 1) -> TLS:
    own = authority.certify("client", hours)
    return TLS(envoy.servers.root, certificate_chain=own.chain, private_key=own.key)


def refused(
    channel: grpc.Channel,
    method: str,
    message: bytes = b"",
    metadata: Sequence[tuple[str, str]] = BEARER,
    compression: grpc.Compression | None = None,
) -> tuple[str, str]:
    """The status and the words that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(
            message, timeout=TIMEOUT_S, metadata=metadata, compression=compression
        )
    return caught.value.code().name, caught.value.details()


def inference(model: str, num_bytes: int = 0) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=model, id="1")
    request.raw_input_contents.append(bytes(num_bytes))
    return request.SerializeToString()


@pytest.mark.parametrize("token", [TOKEN, SECOND_TOKEN], ids=["first", "second"])
def test_a_token_lets_in(
    envoy: EnvoyProcess, client: grpcclient.InferenceServerClient, token: str
) -> None:
    with connect(envoy, token) as asking:
        result = asking.caption(PICTURE)
    direct = caption(client, PICTURE)
    assert [each.text for each in result.captions] == direct.captions
    assert [each.score for each in result.captions] == direct.scores


def test_a_client_certificate_lets_in_without_a_token(
    envoy: EnvoyProcess, client: grpcclient.InferenceServerClient
) -> None:
    tls = mutual_tls(envoy, envoy.clients)

    async def ask() -> str:
        async with AsyncOFAClient(envoy.address, tls=tls, timeout=TIMEOUT_S) as asking:
            return (await asking.caption(PICTURE)).text

    assert asyncio.run(ask()) == caption(client, PICTURE).captions[0]


def test_the_command_is_let_in_with_a_token_file(
    envoy: EnvoyProcess, client: grpcclient.InferenceServerClient, tmp_path: Path
) -> None:
    (tmp_path / "root.pem").write_bytes(envoy.servers.root)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "picture.png").write_bytes(PICTURE)
    security = ["--root-certificates", "root.pem", "--token-file", "token"]
    ended = subprocess.run(
        [OFA_CLIENT, "caption", "picture.png", "--server", envoy.address, *security],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert caption(client, PICTURE).captions[0] in ended.stdout


@pytest.mark.parametrize("credential", ["token", "certificate", "wrong token"])
def test_a_gateway_behind_it_proves_itself(
    envoy: EnvoyProcess,
    client: grpcclient.InferenceServerClient,
    tmp_path: Path,
    credential: str,
) -> None:
    own = envoy.clients.certify("gateway")
    for name, content in {
        "root.pem": envoy.servers.root,
        "own.pem": own.chain,
        "own.key": own.key,
        "token": TOKEN.encode(),
        "wrong": b"another",
        "callers": b"for-callers",
    }.items():
        (tmp_path / name).write_bytes(content)
    file = {name: str(tmp_path / name) for name in ("own.pem", "own.key", "token", "wrong")}
    arguments = {
        "token": ["--token-file", file["token"]],
        "certificate": ["--certificate-chain", file["own.pem"], "--private-key", file["own.key"]],
        "wrong token": ["--token-file", file["wrong"]],
    }[credential]
    arguments += ["--root-certificates", str(tmp_path / "root.pem")]
    arguments += ["--callers-token-file", str(tmp_path / "callers")]
    bearer = {"Authorization": "Bearer for-callers"}
    files = {"image": PICTURE}
    with gateway_serving(envoy.address, tmp_path / "gateway.log", arguments) as gateway:
        captions = f"{gateway.url}/v1/captions"
        answer = httpx2.post(captions, files=files, headers=bearer, timeout=TIMEOUT_S)
        if credential == "wrong token":
            assert answer.status_code == 503
            assert "refuses the gateway" in gateway.output
            assert httpx2.get(f"{gateway.url}/readyz", timeout=TIMEOUT_S).status_code == 503
        else:
            texts = [caption["text"] for caption in answer.json()["captions"]]
            assert texts == caption(client, PICTURE).captions
            assert httpx2.get(f"{gateway.url}/readyz", timeout=TIMEOUT_S).status_code == 200
        assert httpx2.post(captions, files=files, timeout=TIMEOUT_S).status_code == 401
        assert TOKEN not in gateway.output


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN} {TOKEN}",
        f"Basic {TOKEN}",
        TOKEN,
    ],
)
def test_nobody_gets_in_without_the_token(
    stranger: grpc.Channel, authorization: str | None
) -> None:
    metadata = [] if authorization is None else [("authorization", authorization)]
    for method in (MODEL_INFER, "/inference.GRPCInferenceService/ServerLive", "/any/thing"):
        assert refused(stranger, method, metadata=metadata) == ("UNAUTHENTICATED", UNKNOWN)


def test_two_tokens_in_one_call_are_none(stranger: grpc.Channel) -> None:
    assert refused(stranger, MODEL_INFER, metadata=BEARER * 2) == ("UNAUTHENTICATED", UNKNOWN)


def test_our_client_says_who_refuses(envoy: EnvoyProcess) -> None:
    for token in (None, "another"):
        with connect(envoy, token) as asking, pytest.raises(AuthenticationError, match=UNKNOWN):
            asking.caption(PICTURE)


@pytest.mark.parametrize("reason", ["another authority", "the server's authority", "expired"])
def test_a_bad_client_certificate_is_refused_even_with_a_token(
    envoy: EnvoyProcess, reason: str
) -> None:
    tls = {
        "another authority": mutual_tls(envoy, Authority()),
        "the server's authority": mutual_tls(envoy, envoy.servers),
        "expired": mutual_tls(envoy, envoy.clients, hours=-1),
    }[reason]
    with (
        OFAClient(envoy.address, tls=tls, token=TOKEN, retry=None, timeout=20) as asking,
        pytest.raises(OFAClientError) as caught,
    ):
        asking.caption(PICTURE)
    assert caught.value.code == "UNAVAILABLE"  # gRPC's word for a handshake that has failed


def test_nothing_is_said_in_the_clear(envoy: EnvoyProcess) -> None:
    with grpc.insecure_channel(envoy.address) as channel:
        status, _ = refused(channel, MODEL_INFER)
    assert status == "UNAVAILABLE"


def test_tokens_come_and_go_without_a_restart(envoy: EnvoyProcess) -> None:
    before = envoy.tokens.read_text()
    try:
        envoy.tokens.write_text("a-new-one\n")
        with connect(envoy, TOKEN) as withdrawn, pytest.raises(AuthenticationError):
            withdrawn.caption(PICTURE)
        with connect(envoy, "a-new-one") as added:
            assert added.caption(PICTURE).text
        # A file that is not there, or is none, lets nobody in.
        envoy.tokens.unlink()
        with connect(envoy, TOKEN) as asking, pytest.raises(AuthenticationError):
            asking.caption(PICTURE)
        envoy.tokens.mkdir()
        with connect(envoy, TOKEN) as asking, pytest.raises(AuthenticationError):
            asking.caption(PICTURE)
        envoy.tokens.rmdir()
    finally:
        envoy.tokens.write_text(before)


def test_the_health_check_needs_no_credential(envoy: EnvoyProcess, stranger: grpc.Channel) -> None:
    assert envoy.is_serving()
    status, _ = refused(stranger, "/grpc.health.v1.Health/Watch", metadata=[])
    assert status == "UNAUTHENTICATED"


def test_only_what_clients_need_is_offered(stranger: grpc.Channel) -> None:
    [service] = [service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]]
    stub = service_pb2_grpc.GRPCInferenceServiceStub(stranger)
    withheld = [method.name for method in service.methods if method.name not in OFFERED]
    assert {
        "RepositoryIndex",
        "RepositoryModelLoad",
        "SystemSharedMemoryRegister",
        "TraceSetting",
    } <= {*withheld}
    for name in withheld:
        answer = ("PERMISSION_DENIED", "this call is not offered")
        assert refused(stranger, f"/{service.full_name}/{name}") == answer
    assert {method.name for method in service.methods} >= OFFERED
    assert stub.ServerLive(service_pb2.ServerLiveRequest(), metadata=BEARER).live
    assert stub.ServerReady(service_pb2.ServerReadyRequest(), metadata=BEARER).ready
    named = service_pb2.ModelMetadataRequest(name="caption")
    assert stub.ModelMetadata(named, metadata=BEARER).platform == "ensemble"
    assert stub.ModelStatistics(service_pb2.ModelStatisticsRequest(), metadata=BEARER).model_stats


def test_the_largest_picture_passes(
    envoy: EnvoyProcess, client: grpcclient.InferenceServerClient
) -> None:
    # What follows a PNG's end is not read.
    largest = PICTURE + bytes(MAX_IMAGE_BYTES - len(PICTURE))
    with connect(envoy, TOKEN) as asking:
        assert asking.caption(largest).text == caption(client, PICTURE).captions[0]


def test_a_larger_message_is_refused_and_harms_nobody(
    envoy: EnvoyProcess, client: grpcclient.InferenceServerClient, stranger: grpc.Channel
) -> None:
    expected = caption(client, PICTURE)
    too_large = inference("caption", 11_534_336)
    with connect(envoy, TOKEN) as asking, ThreadPoolExecutor(4) as threads:
        refusals = [threads.submit(refused, stranger, MODEL_INFER, too_large) for _ in range(8)]
        neighbours = [asking.caption(PICTURE) for _ in range(8)]
    for refusal in refusals:
        assert refusal.result() == (
            "RESOURCE_EXHAUSTED",
            "the message is larger than max (11534336 bytes)",
        )
    assert [each.text for each in neighbours] == expected.captions * 8
    # Triton itself takes it, and refuses no more than what is in it.
    with grpc.insecure_channel(client_address(envoy)) as direct:
        assert refused(direct, MODEL_INFER, too_large)[0] == "INVALID_ARGUMENT"


def client_address(envoy: EnvoyProcess) -> str:
    return f"127.0.0.1:{envoy.upstream_port}"


def test_our_client_knows_that_such_a_request_is_not_to_be_sent_again(envoy: EnvoyProcess) -> None:
    with connect(envoy, TOKEN) as asking, pytest.raises(InvalidRequestError, match="larger than"):
        asking.summarize("a" * 60_000, model="x" * 11_600_000)


def test_a_compressed_message_is_refused(envoy: EnvoyProcess, stranger: grpc.Channel) -> None:
    # Of a few kilobytes, Triton would make these ten megabytes.
    message = inference("caption", 10_000_000)
    answer = ("UNIMPLEMENTED", "compressed messages are not taken")
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        assert refused(stranger, MODEL_INFER, message, compression=compression) == answer
    # Triton itself unpacks it, and refuses no more than what is in it.
    with grpc.insecure_channel(client_address(envoy)) as direct:
        status, _ = refused(direct, MODEL_INFER, message, compression=grpc.Compression.Gzip)
    assert status == "INVALID_ARGUMENT"


@pytest.mark.parametrize("member", [*MEMBERS, "generator"])
@pytest.mark.parametrize("form", ["plain", "last of two names", "long key"])
def test_the_members_of_an_ensemble_are_not_offered(
    stranger: grpc.Channel, member: str, form: str
) -> None:
    message = {
        "plain": inference(member),
        "last of two names": inference("caption", 100) + inference(member),
        "long key": inference("caption") + b"\x8a\x00" + bytes([len(member)]) + member.encode(),
    }[form]
    parsed = service_pb2.ModelInferRequest.FromString(message)
    assert parsed.model_name == member
    answer = ("PERMISSION_DENIED", "the members of an ensemble are not offered")
    assert refused(stranger, MODEL_INFER, message) == answer


@pytest.mark.parametrize(
    "message",
    [b"\xff" * 50, b"\x0a", b"\x0a\x07caption\x08\x01", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b\x0c"],
    ids=["no protobuf", "cut", "number", "length", "group"],
)
def test_what_is_no_request_is_refused(stranger: grpc.Channel, message: bytes) -> None:
    answer = ("INVALID_ARGUMENT", "the message is no ModelInferRequest")
    assert refused(stranger, MODEL_INFER, message) == answer


def test_large_heads_are_refused(envoy: EnvoyProcess, stranger: grpc.Channel) -> None:
    for added in ([("x-large", "x" * 20_000)], [(f"x-{i}", "x") for i in range(70)]):
        status, words = refused(stranger, MODEL_INFER, metadata=[*BEARER, *added])
        assert status in ("INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED")
        assert str(envoy.folder) not in words
    with connect(envoy, TOKEN) as asking:
        assert asking.caption(PICTURE).text


def test_triton_sees_neither_the_token_nor_what_is_refused(tmp_path: Path) -> None:
    """Told by a server that keeps what it gets."""
    with scripted_server() as triton:
        port = int(triton.address.rpartition(":")[2])
        with envoy_in_front_of(port, tmp_path) as envoy, envoy.channel() as stranger:
            for message in (inference("caption", 11_534_336), inference("caption_generator")):
                refused(stranger, MODEL_INFER, message)
            refused(stranger, MODEL_INFER, inference("caption"), metadata=[])
            with connect(envoy, TOKEN) as asking:
                asking.caption(PICTURE)
    assert triton.models == ["caption"]
    assert "authorization" not in triton.metadata[0]


def test_one_request_too_many_is_refused_at_once(tmp_path: Path) -> None:
    may_answer = threading.Event()

    def answer_late(*_: object) -> Tensors:
        assert may_answer.wait(TIMEOUT_S)
        return CAPTIONS

    with scripted_server() as triton, ExitStack() as stack:
        stack.callback(may_answer.set)
        triton.answer = answer_late
        port = int(triton.address.rpartition(":")[2])
        envoy = stack.enter_context(envoy_in_front_of(port, tmp_path))
        empty = service_pb2.ModelInferRequest(model_name="caption").SerializeToString()
        # At most 128 requests go over one connection.
        channels = [stack.enter_context(envoy.channel(alone=True)) for _ in range(5)]
        calls = [
            channels[number % 5]
            .unary_unary(MODEL_INFER)
            .future(empty, timeout=TIMEOUT_S, metadata=BEARER)
            for number in range(MAX_REQUESTS + 20)
        ]
        wait_until(lambda: sum(call.done() for call in calls) >= 20, "refusals", 60)
        for call in [call for call in calls if call.done()]:
            assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert call.details() == "too many requests are under way"
        with connect(envoy, TOKEN) as asking, pytest.raises(OverloadedError):
            asking.caption(PICTURE)
        may_answer.set()
        assert sum(call.exception() is None for call in calls) == MAX_REQUESTS


def test_envoy_opens_no_other_port(envoy: EnvoyProcess) -> None:
    process = Path(f"/proc/{envoy.process.pid}")
    own = {str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in (process / "net" / table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in own:
                listening.add(int(local.rpartition(":")[2], 16))
    assert listening == {envoy.port}


def test_a_triton_that_is_away_is_unavailable(repository: Path, tmp_path: Path) -> None:
    with (
        serving(repository, tmp_path / "server.log") as own,
        envoy_in_front_of(own.ports[0], tmp_path / "envoy") as envoy,
        connect(envoy, TOKEN) as asking,
    ):
        assert asking.caption(PICTURE).text
        own.stop()
        with pytest.raises(UnavailableError) as caught:
            asking.caption(PICTURE)
    assert str(own.ports[0]) not in caught.value.message
