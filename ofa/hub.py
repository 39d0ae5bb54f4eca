"""Checkpoints by name: a folder as it is, or a repository of ModelScope or Hugging Face.

The hubs' own client libraries download, so their settings hold: `MODELSCOPE_CACHE`,
`MODELSCOPE_API_TOKEN` and `MODELSCOPE_ENDPOINT`; `HF_HOME`, `HF_TOKEN` and `HF_ENDPOINT`.
"""

import hashlib
import re
from pathlib import Path

from ofa.errors import CheckpointError

# Weights, vocabularies and label files lie beside one another; demo pictures and notebooks of a
# repository, and whatever it keeps in subfolders, are not needed.
_NEEDED = [
    *("*.json", "*.txt", "pytorch_model.bin", "model.safetensors"),
    *("vqgan_model.ckpt", "ViT-B-16.pt", "bpe_simple_vocab_16e6.txt.gz"),
]
_NOT_NEEDED = ["*/*"]

_HUB_ID = re.compile(
    r"(?:(?P<hub>ms|hf):)?(?P<repository>(?P<owner>[\w-][\w.-]*)/[\w-][\w.-]*)"
    r"(?:@(?P<revision>[\w.][\w./-]*))?"
)
# The owners under which ModelScope publishes OFA; the same names on Hugging Face hold no OFA.
_MODELSCOPE_OWNERS = frozenset({"damo", "iic"})


def fetch_checkpoint(name: str) -> Path:
    """Return the folder of a checkpoint, after downloading it where the name is not a folder.

    An id is `owner/name`, with `@revision` (branch, tag or commit) where not the default branch is
    meant. `damo/…` and `iic/…` are ModelScope's and every other owner Hugging Face's; `ms:` or
    `hf:` before the id names the hub instead. A download shows its progress, goes on where an
    earlier one was cut off, and is compared with the sizes and digests that the hub states. What is
    already in the hub's cache is not downloaded again.

    Args:
        name: A folder, or an id such as `damo/ofa_image-caption_coco_large_en@v1.0.1`.

    Returns:
        The folder; for an id, the one inside the cache of the hub's client.

    Raises:
        CheckpointError: The name is neither, the hub has no such repository or revision, it cannot
            be reached, or what arrived is not what it announced.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    matched = _HUB_ID.fullmatch(name)
    if matched is None:
        raise CheckpointError(
            f"{name} is neither a folder nor the id of a checkpoint (owner/name[@revision])"
        )
    hub = matched["hub"] or ("ms" if matched["owner"] in _MODELSCOPE_OWNERS else "hf")
    download = _download_from_modelscope if hub == "ms" else _download_from_hugging_face
    return download(matched["repository"], matched["revision"])


def _download_from_modelscope(repository: str, revision: str | None) -> Path:
    from modelscope_hub import FileDownloadError, HubApi, HubError, NotExistError

    source = _describe(repository, revision, "ModelScope")
    try:
        folder = HubApi().download_repo(
            repository,
            "model",
            revision=revision,
            allow_patterns=_NEEDED,
            ignore_patterns=_NOT_NEEDED,
        )
    except NotExistError as error:
        raise CheckpointError(f"there is no folder and no repository {source}") from error
    except FileDownloadError as error:
        file, cause = next(iter(error.failed_files.items()))
        raise CheckpointError(f"{file} of {source} did not arrive: {_sentence(cause)}") from error
    except OSError as error:  # the client's NetworkError, or an error of requests or the disk
        raise CheckpointError(f"{source} cannot be reached: {_sentence(error)}") from error
    except HubError as error:
        raise CheckpointError(f"{source} was refused: {_sentence(error)}") from error
    return _require_config(folder, source)


def _download_from_hugging_face(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    source = _describe(repository, revision, "Hugging Face")
    try:
        snapshot = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=_NEEDED,
            ignore_patterns=_NOT_NEEDED,
        )
    except GatedRepoError as error:
        raise CheckpointError(f"{source} asks for a token with access (HF_TOKEN)") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise CheckpointError(f"there is no folder and no repository {source}") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(f"{source} cannot be reached and is not in the cache") from error
    # The client raises a bare OSError where a file has not the size that was announced, and leaves
    # a cut connection as requests' error, which is an OSError too.
    except OSError as error:
        raise CheckpointError(f"{source} did not arrive: {_sentence(error)}") from error
    folder = _require_config(Path(snapshot), source)
    for file in folder.iterdir():
        _verify_blob(file, source)
    return folder


def _verify_blob(file: Path, source: str) -> None:
    """Compare a downloaded file with its digest; the Hugging Face client compares sizes only.

    The cache keeps a file under the digest that the hub states for it: the SHA-256 of a large file,
    git's blob id (the SHA-1 of `blob`, the size and the content) of any other. A file system
    without links loses that name, and with it this check.
    """
    blob = file.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        with blob.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    elif re.fullmatch("[0-9a-f]{40}", blob.name):
        content_bytes = blob.read_bytes()
        header = b"blob %d\0" % len(content_bytes)
        digest = hashlib.sha1(header + content_bytes, usedforsecurity=False).hexdigest()
    else:
        return
    if digest != blob.name:
        blob.unlink()
        raise CheckpointError(
            f"{file.name} of {source} did not arrive: its digest is {digest}, not {blob.name}"
        )


def _require_config(folder: Path, source: str) -> Path:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{source} holds no config.json, so it is no OFA checkpoint")
    return folder


def _describe(repository: str, revision: str | None, hub: str) -> str:
    return f"{repository}@{revision} on {hub}" if revision else f"{repository} on {hub}"


def _sentence(error: BaseException) -> str:
    """Return the first line of an error's message; the clients append paragraphs of advice."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
