"""TLS both ways, tokens and metadata, and that none of these secrets is ever shown."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ofa_client import TLS, AsyncOFAClient, AuthenticationError, OFAClient, OFAClientError
from ofa_client._cli import main
from ofa_client._exchange import Call, Send
from ofa_client._security_arguments import TOKEN_VARIABLE
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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority) -> Path:
    """The working directory, with a picture, the authority's root and no token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    (tmp_path / "apple.jpg").write_bytes(b"picture")
    (tmp_path / "root.pem").write_bytes(authority.root)
    return tmp_path


def ask_by_command(triton: ScriptedTriton, *security: str) -> int:
    """Run the command against a server called localhost, and return its exit code."""
    server = ["--server", f"localhost:{port_of(triton)}"]
    return main(["caption", "apple.jpg", *security, *server, "--root-certificates", "root.pem"])


def usage_error(capsys: pytest.CaptureFixture[str], *security: str) -> str:
    """What the command says of arguments that it refuses."""
    with pytest.raises(SystemExit) as caught:
        main(["caption", "apple.jpg", *security])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_the_command_trusts_whom_it_is_told_to(
    folder: Path, tls_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask_by_command(tls_triton) == 0
    assert "a red apple" in capsys.readouterr().out
    assert ask_by_command(tls_triton, "--server-name", "elsewhere") == 1
    server = ["--server", f"localhost:{port_of(tls_triton)}"]
    assert main(["caption", "apple.jpg", *server, "--tls"]) == 1
    by_address = ["--server", tls_triton.address, "--root-certificates", "root.pem"]
    assert main(["caption", "apple.jpg", *by_address]) == 1
    assert main(["caption", "apple.jpg", *by_address, "--server-name", "localhost"]) == 0
    assert len(tls_triton.requests) == 2


def test_the_command_has_a_certificate_of_its_own(
    folder: Path, authority: Authority, certificate: Certificate
) -> None:
    credentials = grpc.ssl_server_credentials(
        [(certificate.key, certificate.chain)],
        root_certificates=authority.root,
        require_client_auth=True,
    )
    own = authority.certify("client")
    (folder / "own.pem").write_bytes(own.chain)
    (folder / "own.key").write_bytes(own.key)
    own_files = ["--certificate-chain", "own.pem", "--private-key", "own.key"]
    with scripted_server(credentials) as triton:
        assert ask_by_command(triton, *own_files) == 0
        assert ask_by_command(triton, "--timeout", "2") == 1
    assert len(triton.requests) == 1


def test_the_commands_token_is_read_from_its_file_for_each_request(
    folder: Path, tls_triton: ScriptedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "another")  # the file comes first
    file = folder / "token"
    file.write_text(f"{SECRET}\n")
    answer = tls_triton.answer

    def change_the_token(*asked: Any) -> Any:
        file.write_text("the next")
        return answer(*asked)

    tls_triton.answer = change_the_token
    assert ask_by_command(tls_triton, "apple.jpg", "--token-file", "token") == 0
    sent = [metadata["authorization"] for metadata in tls_triton.metadata]
    assert sent == [f"Bearer {SECRET}", "Bearer the next"]


def test_a_token_file_that_goes_away_is_an_error_of_the_request(
    folder: Path, tls_triton: ScriptedTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "token"
    file.write_text(SECRET)
    answer = tls_triton.answer

    def remove_the_token(*asked: Any) -> Any:
        file.unlink()
        return answer(*asked)

    tls_triton.answer = remove_the_token
    assert ask_by_command(tls_triton, "apple.jpg", "--token-file", "token") == 1
    assert "token cannot be read: No such file or directory" in capsys.readouterr().err
    assert len(tls_triton.requests) == 1


def test_the_commands_token_may_be_in_the_environment(
    folder: Path, tls_triton: ScriptedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, SECRET)
    assert ask_by_command(tls_triton) == 0
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    assert ask_by_command(tls_triton) == 0
    first, second = tls_triton.metadata
    assert first["authorization"] == f"Bearer {SECRET}"
    assert "authorization" not in second


def test_the_command_sends_metadata(folder: Path, scripted_triton: ScriptedTriton) -> None:
    (folder / "key").write_text(f"{SECRET}\n")
    given = ["--metadata", "X-Team=vision=1", "--metadata", "x-key=@key"]
    assert main(["caption", "apple.jpg", "--server", scripted_triton.address, *given]) == 0
    [metadata] = scripted_triton.metadata
    assert metadata["x-team"] == "vision=1"
    assert metadata["x-key"] == SECRET


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--token-file", "token"], "the token of token needs --tls"),
        (["--tls", "--token-file", "missing"], "missing cannot be read: No such file"),
        (["--tls", "--token-file", "empty"], "empty is empty"),
        (["--tls", "--token-file", "lines"], "lines must hold a token and nothing else"),
        (["--tls", "--token-file", "letters"], "letters must hold a token and nothing else"),
        (["--private-key", "token"], "need each other"),
        (["--root-certificates", "missing"], "No such file or directory: 'missing'"),
        (["--metadata", SECRET], "must be NAME=VALUE or NAME=@FILE"),
        (["--metadata", "x-key=@lines"], "'x-key' must be printable ASCII"),
        (["--metadata", "x-key=@missing"], "No such file or directory: 'missing'"),
        (["--metadata", "x key=1"], "metadata cannot be called 'x key'"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    folder: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    contents = {"token": SECRET, "empty": "\n", "lines": f"{SECRET}\n2", "letters": f"é{SECRET}"}
    for name, content in contents.items():
        (folder / name).write_text(content)
    error = usage_error(capsys, *given)
    assert message in error
    assert SECRET not in error


def test_a_token_in_the_environment_needs_tls_too(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, SECRET)
    error = usage_error(capsys)
    assert f"the token of {TOKEN_VARIABLE} needs --tls" in error
    assert SECRET not in error
