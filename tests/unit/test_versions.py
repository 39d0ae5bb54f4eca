"""`ofa switch` and `ofa remove` on a repository, without a server."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from ofa_server import remove, switch
from ofa_server.errors import ServerError
from ofa_server.model_configs import read_config, read_configs
from ofa_server.preflight import foreign_adapters
from ofa_server.versions import served_version, with_served_version
from tests.unit.test_repository import contents, export


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Versions 1 and 2 of an export; 1 answers."""
    folder = tmp_path / "models"
    export(folder, "caption", "one")
    export(folder, "caption", "two", version=2)
    return folder


def run_switch(repository: Path, version: int, server: str | None = None) -> None:
    parser = argparse.ArgumentParser()
    switch.add_arguments(parser)
    where = ["--offline"] if server is None else ["--server", server, "--timeout", "0.3"]
    words = ["caption", str(version), "--repository", str(repository), *where]
    switch.run(parser.parse_args(words))


def run_remove(repository: Path, version: int) -> None:
    remove.run(argparse.Namespace(name="caption", version=version, repository=repository))


def test_a_switch_changes_three_steps_and_a_policy_and_can_be_undone(repository: Path) -> None:
    before = contents(repository)
    run_switch(repository, 2)
    config = read_config(repository / "caption")
    assert [step.model_version for step in config.ensemble_scheduling.step] == [2, 2, 2]
    assert [*config.version_policy.specific.versions] == [2]
    changed = {name for name, text in contents(repository).items() if text != before.get(name)}
    assert changed == {"caption/config.pbtxt"}
    run_switch(repository, 1)
    assert contents(repository) == before


def test_what_is_not_there_is_not_switched_to(repository: Path, tmp_path: Path) -> None:
    before = contents(repository)
    with pytest.raises(ServerError, match=r"^caption has no version 3, but 1, 2$"):
        run_switch(repository, 3)
    with pytest.raises(ServerError, match=r"holds no export named caption$"):
        run_switch(tmp_path, 1)
    # As an export leaves it that is killed at the wrong moment.
    (repository / "caption_postprocess" / "2").rename(tmp_path / "2")
    with pytest.raises(ServerError, match=r"^caption has no version 2, but 1$"):
        run_switch(repository, 2)
    assert {*contents(repository)} < {*before}
    assert served_version(read_config(repository / "caption")) == 1


def test_a_server_that_is_away_has_not_loaded_the_version(repository: Path) -> None:
    before = contents(repository)
    reason = (
        "^127.0.0.1:1 has not loaded version 2 of caption_preprocess within 0.3 s; nothing was "
        "changed$"
    )
    with pytest.raises(ServerError, match=reason):
        run_switch(repository, 2, "127.0.0.1:1")
    assert contents(repository) == before


@pytest.mark.parametrize("server", ["localhost", ":8001", "localhost:http", "no.such.invalid:1"])
def test_an_address_that_is_none_is_refused(server: str) -> None:
    with pytest.raises(ServerError, match=f"^the server '?{server}"):
        switch.addresses([server])


def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: object) -> list[object]:
        hosts = {"pods": ["10.0.0.1", "10.0.0.2", "10.0.0.1"], "one": ["10.0.0.2"]}
        return [(switch.socket.AF_INET, 1, 6, "", (each, port)) for each in hosts[host]]

    monkeypatch.setattr(switch.socket, "getaddrinfo", resolve)
    assert switch.addresses(["pods:8001", "one:8001"]) == ["10.0.0.1:8001", "10.0.0.2:8001"]


def test_a_configuration_of_somebody_else_is_not_rewritten(repository: Path) -> None:
    text = (repository / "caption" / "config.pbtxt").read_text()
    for other in (
        text.replace("model_version: 1", "model_version: -1", 1),
        text.replace("versions: [ 1 ]", "versions: [ 1, 2 ]"),
    ):
        with pytest.raises(ServerError, match="not as `ofa export` lays it out"):
            with_served_version(other, 2)


def test_a_damaged_file_is_named(repository: Path) -> None:
    config = repository / "caption" / "config.pbtxt"
    whole = config.read_text()
    config.write_text(whole[: len(whole) // 2])
    with pytest.raises(ServerError, match=r"caption/config.pbtxt cannot be parsed: "):
        run_switch(repository, 2)
    config.write_text(whole)
    for content in ("", "[]", '{"task": "image-captioning"}'):
        (repository / "caption" / "2" / "manifest.json").write_text(content)
        with pytest.raises(ServerError, match=r"caption/2/manifest.json is damaged; export that"):
            export(repository, "caption", "three", version=3)


def test_adapters_of_another_release_are_told(repository: Path) -> None:
    assert foreign_adapters(repository, ["caption"]) == []
    (repository / "caption_preprocess" / "2" / "model.py").write_text("import ofa_server.yore\n")
    assert foreign_adapters(repository, ["caption", "of_somebody_else"]) == ["caption_preprocess"]


def test_whoever_could_read_a_configuration_still_can(repository: Path) -> None:
    config = repository / "caption" / "config.pbtxt"
    config.chmod(0o644)
    before = os.umask(0o077)
    try:
        run_switch(repository, 2)
    finally:
        os.umask(before)
    assert config.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("timeout", ["nan", "-1", "inf", "soon"])
def test_a_time_out_that_never_comes_is_refused(
    timeout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    switch.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["caption", "2", "--repository", "r", "--offline", "--timeout", timeout])
    assert f"{timeout!r} is no number of seconds" in capsys.readouterr().err


def test_a_version_is_removed_from_all_models_unless_it_answers(repository: Path) -> None:
    before = contents(repository)
    with pytest.raises(ServerError, match=r"^version 1 is the one that caption answers with"):
        run_remove(repository, 1)
    with pytest.raises(ServerError, match=r"^caption has no version 3$"):
        run_remove(repository, 3)
    assert contents(repository) == before
    run_remove(repository, 2)
    assert contents(repository) == {
        name: text for name, text in before.items() if Path(name).parts[1] != "2"
    }
    assert not list(repository.glob("**/.*"))


def test_an_ensemble_without_its_members_version_is_not_served(repository: Path) -> None:
    run_switch(repository, 2)
    (repository / "caption_generator" / "1" / "model.pt").rename(repository / "model.pt")
    (repository / "caption_generator" / "2" / "model.pt").unlink()
    (repository / "caption_generator" / "2").rmdir()
    (repository / "model.pt").rename(repository / "caption_generator" / "1" / "model.pt")
    with pytest.raises(ServerError, match=r"^caption needs version 2 of caption_generator"):
        read_configs(repository)
