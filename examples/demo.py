"""Captions pictures through a Triton of its own and stops it again: `make demo`.

Starts `ofa serve` on free ports with its log beside the contact sheet, sends every picture with
`ofa_client`, prints what comes back, and pastes pictures and captions onto one sheet.
"""

import argparse
import contextlib
import math
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ofa_client import OFAClient
from PIL import Image, ImageDraw, ImageFont, ImageOps

START_SECONDS = 120
STOP_SECONDS = 60
TILE = 256  # pixels of a picture on the sheet
MARGIN = 16
LINE = 20
COLUMNS = 4


@dataclass(frozen=True)
class Captioned:
    """One picture and what the server said of it."""

    picture: Path
    text: str
    score: float
    seconds: float


def main() -> int:
    """Run the demo; 1 when the server cannot be started."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repository", type=Path, required=True, help="written by `ofa export`")
    parser.add_argument("--contact-sheet", type=Path, required=True, help="PNG to write")
    parser.add_argument("samples", type=Path, help="folder with pictures")
    arguments = parser.parse_args()
    pictures = sorted(
        file for file in arguments.samples.iterdir() if file.suffix in {".jpg", ".png", ".webp"}
    )
    arguments.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
    log = arguments.contact_sheet.with_name("demo-server.log")
    try:
        with running_server(arguments.repository, log) as address:
            captioned = caption_all(pictures, address)
    except RuntimeError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    draw_contact_sheet(captioned).save(arguments.contact_sheet)
    print(f"\npictures and captions: {arguments.contact_sheet}")
    return 0


@contextlib.contextmanager
def running_server(repository: Path, log: Path) -> Iterator[str]:
    """Yield HOST:PORT of the gRPC port of a server that is ready, and stop it at the end."""
    grpc_port, http_port, metrics_port = free_ports(3)
    command = [
        str(Path(sys.executable).with_name("ofa")), "serve", "--repository", str(repository),
        "--grpc-port", str(grpc_port), "--http-port", str(http_port),
        "--metrics-port", str(metrics_port),
    ]  # fmt: skip
    with log.open("w") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    try:
        wait_until_ready(server, log)
        yield f"127.0.0.1:{grpc_port}"
    finally:
        print("stopping Triton", flush=True)
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server's log says that it is ready.

    Raises:
        RuntimeError: It has exited, or is not ready in time.
    """
    start = time.monotonic()
    while time.monotonic() - start < START_SECONDS:
        if server.poll() is not None:
            tail = "\n".join(log.read_text().splitlines()[-15:])
            raise RuntimeError(f"the server ended with status {server.returncode}; {log}:\n{tail}")
        if any(line.startswith("ready") for line in log.read_text().splitlines()):
            print(f"\rstarting Triton: ready after {time.monotonic() - start:.0f} s")
            return
        print(f"\rstarting Triton: {time.monotonic() - start:.0f} s", end="", flush=True)
        time.sleep(0.5)
    raise RuntimeError(f"the server was not ready after {START_SECONDS} s; its log is {log}")


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface on which nothing listens now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def caption_all(pictures: list[Path], address: str) -> list[Captioned]:
    """Send one picture after another and print each answer as it comes."""
    width = max(len(picture.name) for picture in pictures)
    print(f"\n{'picture':<{width}}  {'score':>6}  {'ms':>5}  caption")
    captioned = []
    with OFAClient(address) as client:
        for picture in pictures:
            start = time.monotonic()
            best = client.caption(picture).captions[0]
            seconds = time.monotonic() - start
            captioned.append(Captioned(picture, best.text, best.score, seconds))
            print(f"{picture.name:<{width}}  {best.score:6.3f}  {seconds * 1e3:5.0f}  {best.text}")
    print()
    return captioned


def draw_contact_sheet(captioned: list[Captioned]) -> Image.Image:
    """Return the pictures in a grid, each with its caption and name below."""
    columns = min(COLUMNS, len(captioned))
    rows = math.ceil(len(captioned) / columns)
    tile_height = TILE + 4 * LINE
    sheet = Image.new(
        "RGB",
        (MARGIN + columns * (TILE + MARGIN), MARGIN + rows * (tile_height + MARGIN)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    small = ImageFont.load_default(11)
    for index, item in enumerate(captioned):
        left = MARGIN + index % columns * (TILE + MARGIN)
        top = MARGIN + index // columns * (tile_height + MARGIN)
        with Image.open(item.picture) as opened:
            picture = ImageOps.contain(ImageOps.exif_transpose(opened).convert("RGB"), (TILE, TILE))
        sheet.paste(picture, (left + (TILE - picture.width) // 2, top))
        for line, text in enumerate(textwrap.wrap(item.text, 34)[:3]):
            draw.text((left, top + TILE + 4 + line * LINE), text, "black", font)
        draw.text((left, top + TILE + 4 + 3 * LINE), item.picture.name, "grey", small)
    return sheet


if __name__ == "__main__":
    sys.exit(main())
