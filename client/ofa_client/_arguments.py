"""The verbs of the command `ofa-client` and their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ofa_client._bulk_names import Shard
from ofa_client._client import OFAClient
from ofa_client._printing import Result
from ofa_client._security_arguments import add_security_arguments

INPUTS = ("prompt", "image", "question", "text", "text2")
"""Arguments that say what a verb is asked about, by the names of the client's parameters."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command.

    What it parses has, beside the options that all verbs share, the verb's inputs by their names
    in `INPUTS`, `method` (the method of `OFAClient` to call with them), `options` (the names of
    the other arguments that the method takes), what says how many pictures are gone through
    (`journal`, which is the file to keep answers in, `concurrency` and `shard`), and what
    `security_settings` reads.
    """
    parser = argparse.ArgumentParser(
        prog="ofa-client", description="Ask OFA models on Triton about pictures and texts."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    parser.set_defaults(journal=None, concurrency=None, shard=None)  # of verbs without them

    def add_verb(
        method: Callable[..., Result], model: str, options: list[str], description: str
    ) -> argparse.ArgumentParser:
        verb = verbs.add_parser(
            method.__name__.replace("_", "-"),
            help=f"print {description}",
            description=f"Print {description}, best first. The exit code is 1 if a request failed.",
        )
        verb.set_defaults(method=method, options=options)
        _add_shared_options(verb, model, options[0])
        return verb

    verb = add_verb(OFAClient.caption, "caption", ["num_captions"], "captions of pictures")
    _add_pictures(verb)

    verb = add_verb(OFAClient.answer, "vqa", ["num_answers"], "answers to a question")
    _add_picture(verb)
    verb.add_argument("question", metavar="QUESTION", help="about the picture")

    verb = add_verb(OFAClient.ground, "grounding", ["num_boxes"], "boxes around what a text names")
    _add_picture(verb)
    verb.add_argument("text", metavar="TEXT", help="what to look for")
    verb.add_argument(
        "--draw", type=Path, metavar="FILE", help="write the picture with the boxes on it"
    )

    verb = add_verb(
        OFAClient.entail, "entailment", ["num_labels"], "whether a picture implies a statement"
    )
    _add_picture(verb)
    verb.add_argument("text", metavar="TEXT", help="the statement")
    verb.add_argument("text2", nargs="?", metavar="TEXT2", help="what holds beside the picture")

    verb = add_verb(OFAClient.classify, "classification", ["num_labels"], "what pictures show")
    _add_pictures(verb)

    verb = add_verb(OFAClient.read_text, "ocr", ["num_texts"], "what is written in pictures")
    _add_pictures(verb)

    verb = add_verb(OFAClient.summarize, "summarization", ["num_texts"], "summaries of texts")
    verb.add_argument("text", nargs="+", metavar="TEXT", help="what to summarize")

    verb = add_verb(
        OFAClient.classify_text, "text_classification", ["num_labels"], "how two texts relate"
    )
    verb.add_argument("text", metavar="TEXT", help="the first text")
    verb.add_argument("text2", metavar="TEXT2", help="the second text")

    verb = add_verb(
        OFAClient.generate,
        "generate",
        ["num_texts", "allow_special_tokens"],
        "what a pretrained checkpoint makes of a prompt",
    )
    verb.add_argument("prompt", metavar="PROMPT", help="a leading space matters")
    verb.add_argument("--image", metavar="PICTURE", help="file of a picture")
    verb.add_argument(
        "--allow-special-tokens",
        action="store_true",
        help="let <bin_n>, <code_n> and <mask> stand for the checkpoint's tokens",
    )

    verb = add_verb(
        OFAClient.draw,
        "text_to_image",
        ["num_images", "seed"],
        "scores of pictures drawn to a text",
    )
    verb.add_argument("text", metavar="TEXT", help="what to draw")
    verb.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="PNG to write; after the best, others get -2, -3 and so on in their names",
    )
    verb.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the random numbers (default: 0)"
    )
    return parser


def _add_pictures(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "image",
        nargs="+",
        metavar="PICTURE",
        help="file of a picture; with --out also a folder, a pattern in quotes, @FILE with a name "
        "a line, or - for such a list on standard input",
    )
    many = verb.add_argument_group("many pictures")
    many.add_argument(
        "--out",
        type=Path,
        dest="journal",
        metavar="FILE",
        help="JSON Lines to write, one a picture; pictures that have an answer there are left out",
    )
    many.add_argument(
        "--concurrency",
        type=_at_least_one,
        metavar="N",
        help="requests under way at a time (default: 8)",
    )
    many.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only the Ith of N parts, into which names fall whatever the order of the list",
    )


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _add_picture(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("image", metavar="PICTURE", help="file of a picture")


def _add_shared_options(verb: argparse.ArgumentParser, model: str, count: str) -> None:
    verb.add_argument(
        "--server",
        default="localhost:8001",
        metavar="HOST:PORT",
        help="gRPC port of the server, or of several with commas between them, which take turns "
        "(default: %(default)s)",
    )
    verb.add_argument("--model", metavar="NAME", help=f"name of the ensemble (default: {model})")
    verb.add_argument(
        f"--{count.replace('_', '-')}",
        type=int,
        metavar="N",
        help=f"{count.removeprefix('num_')} wanted (default: the checkpoint's)",
    )
    verb.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds allowed a request (default: %(default)g)",
    )
    verb.add_argument(
        "--json", action="store_true", help="print one JSON object a request and line"
    )
    add_security_arguments(verb)
