"""Asks a Triton of its own for every task of the bundled checkpoints, and stops it: `make demo`.

Starts `ofa serve` on free ports, sends the requests of a file with `ofa_client`, prints what comes
back, and pastes pictures, boxes and answers onto one sheet.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from contact_sheet import Note, Tile, draw_contact_sheet

from ofa_client import (
    AnsweringResult,
    Box,
    CaptioningResult,
    GroundingResult,
    LabelsResult,
    OFAClient,
    OFAClientError,
    TextsResult,
    paint_boxes,
)
from ofa_server.background import running_server
from ofa_server.errors import ServerError

# What each verb of the client is asked of; captions come in both languages.
ENSEMBLES = {
    "caption": ["caption", "caption_zh"],
    "answer": ["vqa"],
    "ground": ["grounding"],
    "entail": ["entailment"],
    "classify": ["classification"],
    "read_text": ["ocr"],
    "summarize": ["summarization"],
    "classify_text": ["text_classification"],
    "generate": ["generate"],
}


@dataclass(frozen=True)
class Request:
    """One call of the client.

    Attributes:
        verb: method of the client.
        ensemble: model to ask.
        texts: the method's arguments other than the picture.
        picture: path, None for tasks without one.
    """

    verb: str
    ensemble: str
    texts: dict[str, str]
    picture: Path | None


@dataclass(frozen=True)
class Answered:
    """A request, its answer in words, and the boxes of an answer that has any."""

    request: Request
    text: str
    boxes: tuple[Box, ...] = ()


def main() -> int:
    """Run the demo; 1 when the server does not start or does not answer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repository", type=Path, required=True, help="written by `ofa export`")
    parser.add_argument("--contact-sheet", type=Path, required=True, help="PNG to write")
    parser.add_argument(
        "--requests", type=Path, required=True, help="JSON: lists of arguments by verb"
    )
    parser.add_argument("samples", type=Path, help="folder of the requests' pictures")
    arguments = parser.parse_args()
    requests = read_requests(arguments.requests, arguments.samples)
    served = [each for each in requests if (arguments.repository / each.ensemble).is_dir()]
    for ensemble in sorted(
        {each.ensemble for each in requests} - {each.ensemble for each in served}
    ):
        print(f"{arguments.repository} has no {ensemble}, which is left out")
    log = arguments.contact_sheet.with_name("demo-server.log")
    print(f"starting Triton; its log is {log}", flush=True)
    try:
        with running_server(arguments.repository, log) as address:
            answered = ask_all(served, address)
            print("\nstopping Triton", flush=True)
    except (ServerError, OFAClientError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    draw_contact_sheet(make_tiles(answered)).save(arguments.contact_sheet)
    print(f"pictures and answers: {arguments.contact_sheet}")
    return 0


def read_requests(file: Path, samples: Path) -> list[Request]:
    """Return the requests of the file, those to one ensemble together."""
    requests = []
    for verb, calls in json.loads(file.read_text("utf-8")).items():
        for ensemble in ENSEMBLES[verb]:
            for call in calls:
                texts = {name: text for name, text in call.items() if name != "image"}
                picture = samples / call["image"] if "image" in call else None
                requests.append(Request(verb, ensemble, texts, picture))
    return requests


def ask_all(requests: list[Request], address: str) -> list[Answered]:
    """Send one request after another and print each answer as it comes."""
    answered: list[Answered] = []
    with OFAClient(address) as client:
        for request in requests:
            if not answered or answered[-1].request.ensemble != request.ensemble:
                print(f"\n{request.verb} (model {request.ensemble})")
            start = time.monotonic()
            answered.append(ask(client, request))
            milliseconds = (time.monotonic() - start) * 1e3
            picture = [request.picture.name] if request.picture else []
            asked = "  ".join([*picture, *request.texts.values()])
            print(f"{milliseconds:6.0f} ms  {asked}: {answered[-1].text}", flush=True)
    return answered


def ask(client: OFAClient, request: Request) -> Answered:
    """Send one request."""
    picture = {"image": request.picture} if request.picture else {}
    method = getattr(client, request.verb)
    match method(**picture, **request.texts, model=request.ensemble):
        case CaptioningResult(captions):
            return Answered(request, " / ".join(caption.text for caption in captions))
        case AnsweringResult() | TextsResult() as result:
            return Answered(request, result.text)
        case LabelsResult(labels):
            return Answered(request, f"{labels[0].label} ({labels[0].probability:.0%})")
        case GroundingResult(boxes):
            corners = [f"({box.x0:.0f} {box.y0:.0f} {box.x1:.0f} {box.y1:.0f})" for box in boxes]
            return Answered(request, " ".join(corners) or "nothing", boxes)
    raise TypeError(f"{request.verb} has no place on the sheet")


def make_tiles(answered: list[Answered]) -> list[Tile]:
    """Return one tile a picture with everything said of it, and one for each task of texts."""
    tiles: dict[Path | str, list[Answered]] = {}
    for each in answered:
        tiles.setdefault(each.request.picture or each.request.verb, []).append(each)
    return [
        Tile(
            paint_boxes(place, [box for each in said for box in each.boxes])
            if isinstance(place, Path)
            else None,
            [Note(heading(each.request), each.text) for each in said],
        )
        for place, said in tiles.items()
    ]


def heading(request: Request) -> str:
    """Return what was asked, for the sheet."""
    return ": ".join([request.ensemble, *request.texts.values()])


if __name__ == "__main__":
    sys.exit(main())
