from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from ofa_server import installation, preflight, shared_memory
from ofa_server.errors import ServerError
from ofa_server.installation import Installation, find_installation
from ofa_server.model_configs import read_configs
from tests.server.echo_repository import write_echo_repository


@pytest.fixture
def echo_repository(tmp_path: Path) -> Path:
    return write_echo_repository(tmp_path / "repository")


# The repository -----------------------------------------------------------------------------------


def test_a_missing_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="there is no model repository"):
        read_configs(tmp_path / "nowhere")


def test_a_repository_without_an_ensemble_is_refused(echo_repository: Path) -> None:
    (echo_repository / "echo" / "config.pbtxt").write_text('backend: "python"')
    (echo_repository / "echo" / "1" / "model.py").touch()
    with pytest.raises(ServerError, match="holds no ensemble to serve"):
        read_configs(echo_repository)


def test_what_a_killed_export_left_is_named(echo_repository: Path) -> None:
    (echo_repository / ".export-caption").mkdir()
    with pytest.raises(ServerError, match=r"\.export-caption has no config\.pbtxt"):
        read_configs(echo_repository)


def test_a_broken_configuration_is_named(echo_repository: Path) -> None:
    (echo_repository / "echo_member" / "config.pbtxt").write_text("max_batch_size: many")
    with pytest.raises(ServerError, match=r"echo_member/config\.pbtxt cannot be parsed"):
        read_configs(echo_repository)


def test_a_missing_file_of_a_version_is_named(echo_repository: Path) -> None:
    (echo_repository / "echo_member" / "1" / "model.py").unlink()
    with pytest.raises(ServerError, match=r"echo_member/1 has no model\.py"):
        read_configs(echo_repository)


def test_a_model_without_a_version_is_named(echo_repository: Path) -> None:
    (echo_repository / "echo" / "1").rmdir()
    with pytest.raises(ServerError, match="echo has no version"):
        read_configs(echo_repository)


def test_a_missing_member_is_named(echo_repository: Path) -> None:
    member = echo_repository / "echo_member"
    member.rename(echo_repository / "other")
    with pytest.raises(ServerError, match="echo needs the model echo_member, which is missing"):
        read_configs(echo_repository)


@pytest.fixture
def network(echo_repository: Path) -> Path:
    """A network as an export writes one, beside a model that names it."""
    model = echo_repository / "network"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text('backend: "pytorch"\n')
    with zipfile.ZipFile(model / "1" / "model.pt", "w") as archive:
        archive.writestr("model/data/0", bytes(range(256)) * 1000)
    return model / "1" / "model.pt"


def check_files(repository: Path) -> None:
    preflight.check_model_files(repository, read_configs(repository))


def test_a_whole_network_passes(echo_repository: Path, network: Path) -> None:
    check_files(echo_repository)


@pytest.mark.parametrize("size", [0, 100, 200_000])
def test_a_network_that_is_cut_off_is_named(
    echo_repository: Path, network: Path, size: int
) -> None:
    os.truncate(network, size)
    with pytest.raises(ServerError, match=r"model\.pt is cut off or no network; run `ofa export`"):
        check_files(echo_repository)


def test_a_network_with_another_byte_is_named(echo_repository: Path, network: Path) -> None:
    with network.open("r+b") as file:
        file.seek(100_000)
        byte = file.read(1)[0]
        file.seek(100_000)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ServerError, match=r"model\.pt is damaged \(at model/data/0\); run `ofa"):
        check_files(echo_repository)


def test_every_version_and_another_file_name_are_looked_at(
    echo_repository: Path, network: Path
) -> None:
    config = network.parents[1] / "config.pbtxt"
    config.write_text('backend: "pytorch"\ndefault_model_filename: "another.pt"\n')
    network.rename(network.with_name("another.pt"))
    (network.parents[1] / "12").mkdir()
    (network.parents[1] / "12" / "another.pt").touch()
    with pytest.raises(ServerError, match=r"network/12/another\.pt is cut off"):
        check_files(echo_repository)


def test_a_configuration_without_a_word_is_named(echo_repository: Path) -> None:
    (echo_repository / "echo_member" / "config.pbtxt").write_text("")
    with pytest.raises(ServerError, match=r"echo_member/config\.pbtxt names no backend"):
        check_files(echo_repository)


def test_a_missing_warm_up_file_is_named(echo_repository: Path) -> None:
    with (echo_repository / "echo_member" / "config.pbtxt").open("a") as config:
        config.write(
            'model_warmup { name: "example"  batch_size: 1  inputs { key: "image"  value {\n'
            '  data_type: TYPE_STRING  dims: [ 1 ]  input_data_file: "image" } } }\n'
        )
    with pytest.raises(ServerError, match="echo_member/warmup/image is missing"):
        check_files(echo_repository)


# The machine --------------------------------------------------------------------------------------


def test_without_any_triton_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServerError, match="pip install --no-deps nvidia-pytriton"):
        find_installation()


def fake_triton(folder: Path, *, with_pytorch: bool) -> Path:
    """The layout of NVIDIA's image."""
    for name in ("bin/tritonserver", "backends/python/triton_python_backend_stub"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch(mode=0o755)
    if with_pytorch:
        (folder / "backends" / "pytorch").mkdir()
        (folder / "backends" / "pytorch" / "libtriton_pytorch.so").touch()
    return folder / "bin"


def test_a_tritonserver_on_path_is_used_with_its_own_backends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake_triton(tmp_path / "opt", with_pytorch=True)))
    found = find_installation()
    assert found.binary == tmp_path / "opt" / "bin" / "tritonserver"
    assert found.prepare_backends(tmp_path) == tmp_path / "opt" / "backends"


def test_the_stand_in_takes_the_place_of_a_missing_pytorch_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake_triton(tmp_path / "opt", with_pytorch=False)))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert find_installation().prepare_backends(scratch) == scratch
    assert (scratch / "pytorch" / "model.py").is_file()
    assert (scratch / "python" / "triton_python_backend_stub").is_file()


def test_numpy_2_is_refused_for_the_server_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "version", lambda name: "2.4.6")
    with pytest.raises(ServerError, match=r"needs numpy below 2, and 2\.4\.6 is installed"):
        preflight.check_numpy(find_installation())


def test_a_stub_for_another_python_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho '	libpython3.12.so.1.0 => /lib/libpython3.12.so.1.0'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ServerError, match=r"runs models with Python 3\.12; ofa is installed for"):
        preflight.check_libraries(find_installation())


def test_the_library_of_another_build_of_python_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    ldd = tmp_path / "ldd"
    ldd.write_text(f"#!/bin/sh\necho '	{library} => /elsewhere/{library} (0x00007f)'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ServerError, match=f"models would run with /elsewhere/{library}"):
        preflight.check_libraries(find_installation())


def test_this_machine_passes() -> None:
    preflight.check_libraries(find_installation())
    preflight.check_numpy(find_installation())


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"gRPC port {port} on 127.0.0.1 cannot be used"):
            preflight.check_ports("127.0.0.1", {"gRPC": port})


def test_one_port_for_two_purposes_is_refused() -> None:
    with pytest.raises(ServerError, match="the ports must differ: 8001, 8001"):
        preflight.check_ports("127.0.0.1", {"gRPC": 8001, "HTTP": 8001})


@pytest.mark.parametrize("port", [0, -1, 65536, 99999])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ServerError, match=f"the health port must be 1 to 65535, not {port}"):
        preflight.check_ports("127.0.0.1", {"health": port})


def test_a_full_disk_for_the_backends_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    found = find_installation()
    monkeypatch.setattr(installation.shutil, "copytree", no_room)
    with pytest.raises(ServerError, match=r"MiB free; make room, or set TMPDIR to another folder"):
        found.prepare_backends(tmp_path)


# Shared memory ------------------------------------------------------------------------------------

MIB = 2**20


def test_a_response_cache_needs_room_and_ensembles_that_take_part(echo_repository: Path) -> None:
    echo = {"echo": read_configs(echo_repository)["echo"]}
    preflight.check_response_cache(0, echo)
    with pytest.raises(ServerError, match=r"^echo does not take part in a cache; run `ofa export`"):
        preflight.check_response_cache(2**20, echo)
    echo["echo"].response_cache.enable = True
    preflight.check_response_cache(2**20, echo)
    for num_bytes in (-1, 1, 2**20 - 1):
        with pytest.raises(ServerError, match=r"bytes is too small; the least is 1,048,576$"):
            preflight.check_response_cache(num_bytes, echo)


def test_the_need_for_shared_memory_follows_from_the_largest_requests(
    echo_repository: Path,
) -> None:
    configs = read_configs(echo_repository)
    one = dict.fromkeys(configs, 1)
    assert shared_memory.needed_shared_memory(configs, one, stand_in=True) == 2 * MIB
    with (echo_repository / "echo_member" / "config.pbtxt").open("a") as config:
        config.write(
            'model_warmup { name: "example"  batch_size: 1\n'
            '  inputs { key: "image"  value { data_type: TYPE_STRING  dims: [ 1 ] } }\n'
            '  inputs { key: "text"  value { data_type: TYPE_STRING  dims: [ 1 ] } }\n'
            '  inputs { key: "pixels"  value { data_type: TYPE_FP32  dims: [ 3, 512, 512 ] } } }\n'
        )
    configs = read_configs(echo_repository)
    # Two stubs; a picture of at most 10 MiB, a text of at most 64 KiB and pixels of 3 MiB, once in
    # and once out.
    expected = 2 * (MIB + 2 * (10 * MIB + MIB // 16 + 3 * MIB))
    assert shared_memory.needed_shared_memory(configs, one, stand_in=True) == expected
    two = dict.fromkeys(configs, 2)
    assert shared_memory.needed_shared_memory(configs, two, stand_in=True) == 2 * expected


def test_a_small_shared_memory_is_refused() -> None:
    with (
        pytest.raises(ServerError, match=r"MiB free, and these models can need 1099511627776 MiB"),
        shared_memory.own_regions(2**60),
    ):
        pytest.fail("there is no room")


def test_what_a_killed_server_has_left_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's /dev/shm is as large as one server needs, and outlives a restart."""
    monkeypatch.setattr(shared_memory, "_DIRECTORY", tmp_path)
    (tmp_path / "ofa-serve-dead-.lock").touch()
    region = tmp_path / "ofa-serve-dead-1"
    region.touch()
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda _: SimpleNamespace(f_bavail=0 if region.exists() else 60, f_frsize=MIB),
    )
    with shared_memory.own_regions(60 * MIB):
        assert not region.exists()


def test_only_regions_that_nobody_holds_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "_DIRECTORY", tmp_path)
    for name in ("ofa-serve-dead-.lock", "ofa-serve-dead-1", "ofa-serve-alive-1", "somebodys"):
        (tmp_path / name).touch()
    with (tmp_path / "ofa-serve-alive-.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with shared_memory.own_regions(0) as regions:
            (tmp_path / f"{regions.prefix}1").touch()
            names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        f"{regions.prefix}.lock",
        f"{regions.prefix}1",
        "ofa-serve-alive-.lock",
        "ofa-serve-alive-1",
        "somebodys",
    }
    assert not list(tmp_path.glob(f"{regions.prefix}*"))


def test_the_environment_keeps_the_libraries_of_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somebodys/libraries")
    found: Installation = find_installation()
    environment = found.environment()
    folders = environment["LD_LIBRARY_PATH"].split(os.pathsep)
    assert folders[-1] == "/somebodys/libraries"
    assert str(found.libraries[0]) in folders
