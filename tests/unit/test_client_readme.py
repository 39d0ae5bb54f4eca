"""The package page: its programs and commands run, and it names every verb of the command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ofa_client._arguments import make_parser
from tests.unit.certificates import Authority
from tests.unit.scripted_triton import EVERY_ANSWER, ScriptedTriton

README = (Path(__file__).parents[2] / "client" / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The page's blocks of code in a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert found
    return found


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted_triton: ScriptedTriton) -> str:
    """Address of a server that answers everything; the files of the page are at hand."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number, name in enumerate(("apple.jpg", "a.jpg", "b.jpg", "photos/c.jpg", "photos/d.jpg")):
        Image.new("RGB", (60, 60), (number, 0, 0)).save(name)
    Path("list.txt").write_text("apple.jpg\n")
    authority = Authority()
    own = authority.certify("client")
    for name, content in (
        ("ca.pem", authority.root),
        ("client.pem", own.chain),
        ("client.key", own.key),
    ):
        Path(name).write_bytes(content)
    scripted_triton.answer = lambda *_: EVERY_ANSWER
    return scripted_triton.address


@pytest.mark.parametrize("code", blocks("python"), ids=range(len(blocks("python"))))
def test_a_program_runs(code: str, server: str) -> None:
    program = compile(code.replace("localhost:8001", server), "client/README.md", "exec")
    exec(program, {"__name__": "__main__"})  # noqa: S102 - our own page


def test_the_first_program_says_what_it_finds(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    test_a_program_runs(blocks("python")[0], server)
    assert capsys.readouterr().out.splitlines()[:2] == ["-0.5 a red apple", "two"]
    assert Path("found.png").is_file()


@pytest.mark.parametrize("commands", blocks("sh"), ids=range(len(blocks("sh"))))
def test_commands_run(commands: str, server: str) -> None:
    installed = Path(sys.executable).with_name("ofa-client")
    to_server = f'ofa-client() {{ "{installed}" "$@" --server {server}; }}\n'
    script = ["bash", "-euo", "pipefail", "-c", to_server + commands]
    subprocess.run(script, check=True, capture_output=True, text=True, timeout=120)


def test_every_verb_of_the_command_is_shown() -> None:
    [verbs] = [action for action in make_parser()._actions if action.dest == "verb"]
    assert verbs.choices
    assert re.findall(r"^ofa-client ([a-z-]+) +[A-Z]", README, re.MULTILINE) == list(verbs.choices)
