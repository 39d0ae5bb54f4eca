"""A model repository on S3, copied to this machine before it is served.

`ofa serve` reads a repository before Triton does, and one client with one set of rules for
credentials, time and errors is enough for both (docs/decisions/0013).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ofa_server.errors import ServerError

if TYPE_CHECKING:
    import urllib3
    from minio.credentials.providers import Provider

SCHEME = "s3://"
#: The form that Triton has for it, too.
_URL = re.compile(r"s3://(?:(https?)://([^/]+)/|([^/:]+:\d+)/)?([a-z0-9][a-z0-9.-]+)(?:/(.*))?")
_AWS = "s3.amazonaws.com"
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 5, 60
#: Beyond the first attempt: bounds how long a server that is away is waited for.
_RETRIES = 2
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile of ~/.aws/credentials or the role of "
    "the machine or pod"
)
#: What a server calls a key that is wrong, or may not read.
_REFUSALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken"}


class Location(NamedTuple):
    """Where a repository lies on S3.

    Attributes:
        endpoint: HOST or HOST:PORT of the server.
        is_secure: whether it speaks TLS.
        bucket: name of the bucket.
        prefix: of the repository's files; empty, or with a slash at its end.
    """

    endpoint: str
    is_secure: bool
    bucket: str
    prefix: str


@contextmanager
def local_repository(repository: str) -> Iterator[Path]:
    """The folder of a repository: itself, or a copy of what lies on S3, as long as it is needed.

    Raises:
        ServerError: it cannot be copied.
    """
    if not repository.startswith(SCHEME):
        yield Path(repository).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="ofa-repository-") as folder:
        _copy(repository, parse_url(repository), Path(folder))
        yield Path(folder)


def parse_url(url: str) -> Location:
    """Takes `s3://[http[s]://HOST[:PORT]/]BUCKET[/PREFIX]` apart.

    Raises:
        ServerError: it is not of that form.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ServerError(
            f"{url} is no repository on S3; s3://[http://HOST:PORT/]BUCKET[/PREFIX] is meant"
        )
    scheme, named, plain, bucket, prefix = found.groups()
    prefix = (prefix or "").strip("/")
    return Location(
        endpoint=named or plain or _AWS,
        # Triton's rule as well: a server that is named without a scheme has no TLS.
        is_secure=scheme == "https" or not (named or plain),
        bucket=bucket,
        prefix=f"{prefix}/" if prefix else "",
    )


def _copy(url: str, location: Location, folder: Path) -> None:
    """Copies every file of the repository.

    Raises:
        ServerError: in one sentence, why not and what to do.
    """
    try:
        import minio
        import urllib3
    except ImportError as error:
        raise ServerError("a repository on S3 needs minio (pip install '.[s3]')") from error
    print(f"copying {url}", flush=True)
    try:
        num_bytes = _copy_files(location, folder)
    except minio.error.S3Error as error:
        raise ServerError(_sentence(url, location, str(error.code))) from error
    except (urllib3.exceptions.HTTPError, minio.error.MinioException) as error:
        raise ServerError(
            f"{url} cannot be read: {location.endpoint} is away or is no S3 server "
            f"({type(error).__name__})"
        ) from error
    except ValueError as error:
        # minio's own rules for names of servers and buckets.
        raise ServerError(f"{url} is no repository on S3: {error}") from error
    except OSError as error:
        raise ServerError(
            f"{url} cannot be copied to {folder.parent}: {error.strerror}; TMPDIR names another "
            "folder"
        ) from error
    if not num_bytes:
        raise ServerError(f"{url} holds no files; upload there what `ofa export` has written")
    print(f"copied {num_bytes / 1e6:,.0f} MB", flush=True)


def _copy_files(location: Location, folder: Path) -> int:
    """Copies and returns the number of bytes; errors are the client's own."""
    import minio
    import urllib3

    http = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
        retries=urllib3.Retry(_RETRIES, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
    )
    client = minio.Minio(
        location.endpoint,
        secure=location.is_secure,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        credentials=_credentials(http),
        http_client=http,
    )
    num_bytes = 0
    for found in client.list_objects(location.bucket, location.prefix, recursive=True):
        name = str(found.object_name)
        target = (folder / name.removeprefix(location.prefix)).resolve()
        # Markers of folders, and names that lead out of the folder.
        if name.endswith("/") or not target.is_relative_to(folder.resolve()):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        client.fget_object(location.bucket, name, str(target))
        num_bytes += target.stat().st_size
    return num_bytes


def _credentials(http: urllib3.PoolManager) -> Provider:
    """Where a key is found: in the environment, in a profile, from the cloud."""
    from minio.credentials import providers

    sources: list[Provider] = [providers.EnvAWSProvider(), providers.AWSConfigProvider()]
    if os.environ.get("AWS_EC2_METADATA_DISABLED") != "true":
        sources.append(providers.IamAwsProvider(http_client=http))
    chain = providers.ChainedProvider(sources)
    try:
        chain.retrieve()
    except Exception as error:
        # Outside of a cloud its source is not there, which has many forms.
        raise ServerError(f"no key for S3 was found; set {_CREDENTIALS}") from error
    return chain


def _sentence(url: str, location: Location, code: str) -> str:
    if code in _REFUSALS:
        return f"{url} cannot be read: the server refuses the key ({code}); set {_CREDENTIALS}"
    if code == "NoSuchBucket":
        return f"{url} cannot be read: {location.endpoint} has no bucket {location.bucket}"
    return f"{url} cannot be read: {location.endpoint} answers {code}"
