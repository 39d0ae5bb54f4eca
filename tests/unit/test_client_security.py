"""TLS both ways, tokens and metadata, and that none of these secrets is ever shown."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ofa_client import TLS, AsyncOFAClient, AuthenticationError, OFAClient, OFAClientError
from ofa_client._exchange import Call, Send
from ofa_client._servers import Server
from tests.unit.certificates import Authority, Certificate
from tests.unit.scripted_triton import ScriptedTriton, scripted_server

SECRET = "s3cret-" + "x" * 20


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.certify("localhost")


@pytest.fixture
def tls_triton(certificate: Certificate) -> Iterator[ScriptedTriton]:
    """A server that proves to be localhost."""
    pair = (certificate.key, certificate.chain)
    with scripted_server(grpc.ssl_server_credentials([pair])) as triton:
        yield triton


def port_of(triton: ScriptedTriton) -> str:
    return triton.address.rpartition(":")[2]


def caption_with(client_class: type, *arguments: Any, **settings: Any) -> str:
    """The text that either client gets."""
    if client_class is OFAClient:
        with OFAClient(*arguments, timeout=20, **settings) as client:
            return client.caption(b"picture").text

    async def ask() -> str:
        async with AsyncOFAClient(*arguments, timeout=20, **settings) as client:
            return (await client.caption(b"picture")).text

    return asyncio.run(ask())


both_clients = pytest.mark.parametrize("client_class", [OFAClient, AsyncOFAClient])


@both_clients
@pytest.mark.parametrize("address", ["localhost:{}", "dns:///localhost:{}"])
def test_a_server_that_proves_its_name_is_asked(
    tls_triton: ScriptedTriton, authority: Authority, client_class: type, address: str
) -> None:
    server = address.format(port_of(tls_triton))
    tls = TLS(root_certificates=authority.root)
    assert caption_with(client_class, server, tls=tls) == "a red apple"


def test_certificates_may_be_files(
    tls_triton: ScriptedTriton, authority: Authority, tmp_path: Path
) -> None:
    root = tmp_path / "root.pem"
    root.write_bytes(authority.root)
    for path in (root, str(root)):
        server = f"localhost:{port_of(tls_triton)}"
        assert caption_with(OFAClient, server, tls=TLS(path)) == "a red apple"
    with pytest.raises(FileNotFoundError):
        OFAClient(tls=TLS(tmp_path / "nothing.pem"))


def test_a_server_of_another_name_or_authority_is_not_asked(
    tls_triton: ScriptedTriton, authority: Authority
) -> None:
    another_authority = TLS(Authority().root, server_name="localhost")
    for tls in (TLS(authority.root), another_authority):
        with pytest.raises(AuthenticationError) as caught:
            caption_with(OFAClient, tls_triton.address, tls=tls, token=SECRET)
        assert len(caught.value.attempts) == 1
    assert not tls_triton.requests
    named = TLS(authority.root, server_name="localhost")
    assert caption_with(OFAClient, tls_triton.address, tls=named) == "a red apple"


@both_clients
def test_client_and_server_prove_themselves_to_each_other(
    authority: Authority, certificate: Certificate, client_class: type
) -> None:
    pair = (certificate.key, certificate.chain)
    credentials = grpc.ssl_server_credentials(
        [pair], root_certificates=authority.root, require_client_auth=True
    )
    own = authority.certify("client")
    with scripted_server(credentials) as triton:
        server = f"localhost:{port_of(triton)}"
        tls = TLS(authority.root, certificate_chain=own.chain, private_key=own.key)
        assert caption_with(client_class, server, tls=tls) == "a red apple"
        with pytest.raises(OFAClientError):
            caption_with(client_class, server, tls=TLS(authority.root), retry=None)
    assert len(triton.requests) == 1


def test_a_key_needs_its_certificate(certificate: Certificate) -> None:
    with pytest.raises(ValueError, match="need each other"):
        TLS(private_key=certificate.key)


@both_clients
@pytest.mark.parametrize("token", [SECRET, lambda: SECRET], ids=["text", "function"])
def test_a_token_goes_along(
    tls_triton: ScriptedTriton,
    authority: Authority,
    client_class: type,
    token: str | Callable[[], str],
) -> None:
    server = f"localhost:{port_of(tls_triton)}"
    caption_with(
        client_class, server, tls=TLS(authority.root), token=token, metadata={"X-Team": "vision"}
    )
    [metadata] = tls_triton.metadata
    assert metadata["authorization"] == f"Bearer {SECRET}"
    assert metadata["x-team"] == "vision"


def test_a_token_does_not_travel_in_the_clear() -> None:
    with pytest.raises(ValueError, match="a token needs tls") as caught:
        OFAClient(token=SECRET)
    assert SECRET not in str(caught.value)


def test_a_token_of_two_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="'authorization' must be printable ASCII") as caught:
        OFAClient(token=f"{SECRET}\n", tls=TLS())
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "metadata",
    [
        {"a b": "x"},
        {"": "x"},
        {"é": "x"},
        {"X-Key-Bin": SECRET},
        {"name": f"{SECRET}\n"},
        {"name": 3},
    ],
    ids=str,
)
def test_metadata_that_grpc_does_not_send_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="metadata") as caught:
        OFAClient(metadata=metadata)
    assert SECRET not in str(caught.value)


def test_names_of_metadata_may_have_dots(scripted_triton: ScriptedTriton) -> None:
    caption_with(OFAClient, scripted_triton.address, metadata={"X-Team.Name_1": "vision"})
    assert scripted_triton.metadata[0]["x-team.name_1"] == "vision"


@both_clients
@pytest.mark.parametrize("fault", ["raises", "two lines"])
def test_a_token_that_cannot_be_had_is_an_error_of_the_client(
    client_class: type, fault: str
) -> None:
    def token() -> str:
        if fault == "raises":
            raise OSError("the vault is sealed")
        return f"{SECRET}\n"

    with pytest.raises(AuthenticationError, match=r"^the token cannot be had$") as caught:
        caption_with(client_class, tls=TLS(), token=token)
    assert caught.value.__cause__ is not None
    assert SECRET not in str(caught.value.__cause__)
    assert len(caught.value.request_id) == 32


def test_metadata_is_not_in_the_form_of_a_request() -> None:
    metadata = (("authorization", f"Bearer {SECRET}"),)
    call = Call("id", "caption", 1.0, 1.0, metadata=metadata)
    send = Send(Server("a", "a"), None, metadata, 1.0)
    assert "caption" in repr(call)
    assert SECRET not in repr([call, send])


def test_secrets_are_not_shown(
    tls_triton: ScriptedTriton,
    authority: Authority,
    certificate: Certificate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tls_triton.fail(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
    tls = TLS(authority.root, certificate_chain=certificate.chain, private_key=certificate.key)
    told: list[object] = []
    with (
        caplog.at_level(logging.DEBUG),
        OFAClient(
            f"localhost:{port_of(tls_triton)}",
            tls=tls,
            token=SECRET,
            metadata={"x-key": SECRET},
            on_attempt=told.append,
        ) as client,
    ):
        with pytest.raises(AuthenticationError) as caught:
            client.caption(b"picture")
        error = caught.value
        shown = [repr(client), str(client), repr(tls), str(error), repr(error), repr(vars(error))]
    shown += [repr(error.__cause__), repr(told), caplog.text]
    assert told
    for text in shown:
        assert SECRET not in text
        assert "PRIVATE KEY" not in text
