"""Captions the pictures in a folder: `python caption_folder.py FOLDER [--server HOST:PORT]`.

`ofa-client caption FOLDER --out FILE` does it too and goes on where it was interrupted; this is for
programs that have something else to do with the captions.
"""

import argparse
from pathlib import Path

from ofa_client import OFAClient, OFAClientError

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--server", default="localhost:8001", metavar="HOST:PORT")
arguments = parser.parse_args()

pictures = (path for path in arguments.folder.iterdir() if path.suffix in (".jpg", ".png"))
with OFAClient(arguments.server) as client:
    for path, result in client.caption_many(sorted(pictures), concurrency=8):
        if isinstance(result, OFAClientError):
            print(f"{path.name}: failed: {result}")
        else:
            print(f"{path.name}: {result.text}")
