"""Captions the pictures in a folder: `python caption_folder_async.py FOLDER [--server HOST:PORT]`.

The captions are printed as they come, not in the order of the pictures: a slow one holds nobody up.
"""

import argparse
import asyncio
from pathlib import Path

from ofa_client import AsyncOFAClient, OFAClientError


async def caption_folder(folder: Path, server: str) -> None:
    """Ask about all pictures in the folder, eight at a time."""
    pictures = (path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    async with AsyncOFAClient(server) as client:
        async for path, result in client.caption_many(pictures, concurrency=8, ordered=False):
            if isinstance(result, OFAClientError):
                print(f"{path.name}: failed: {result}")
            else:
                print(f"{path.name}: {result.text}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--server", default="localhost:8001", metavar="HOST:PORT")
arguments = parser.parse_args()
asyncio.run(caption_folder(arguments.folder, arguments.server))
