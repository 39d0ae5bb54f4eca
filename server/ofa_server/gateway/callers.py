"""Whether a caller knows the token, where one is asked for."""

from __future__ import annotations

import hmac
import logging
import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ofa_server.errors import ServerError
from ofa_server.gateway.errors import ApiError, error_response

_log = logging.getLogger(__name__)

#: What the token stands in front of: every task, the chat, the list of models. Probes, figures, the
#: page and the description of the routes stay open.
_PROTECTED = "/v1/"
_BEARER = re.compile(r"bearer (\S+)", re.IGNORECASE)


def ask_for_token(app: ASGIApp, file: Path) -> ASGIApp:
    """Returns the application, with its tasks for those who send a token of the file.

    Args:
        app: the application.
        file: tokens, one a line. It is read for each request, so a token is added or withdrawn
            without a restart; while it cannot be read nobody is let in.

    Raises:
        ServerError: there is no token in the file now, or one that cannot be sent.
    """
    tokens = _read_tokens(file)
    if not tokens:
        raise ServerError(f"{file} holds no token")
    if any(len(token.split()) > 1 for token in tokens):
        raise ServerError(f"{file} holds a line of several words; a token has no spaces")

    async def asking(scope: Scope, receive: Receive, send: Send) -> None:
        is_protected = scope["type"] == "http" and scope["path"].startswith(_PROTECTED)
        if is_protected and not _is_known(Headers(scope=scope), file):
            refusal = ApiError(401, "invalid_api_key", "a valid bearer token is needed")
            await error_response(Request(scope), refusal)(scope, receive, send)
            return
        await app(scope, receive, send)

    return asking


def _is_known(headers: Headers, file: Path) -> bool:
    given = headers.getlist("authorization")
    match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        return False
    try:
        tokens = _read_tokens(file)
    except ServerError as error:
        _log.warning("%s", error)
        return False
    # Every token is compared, each in a time that tells nothing of how much agrees.
    return sum(hmac.compare_digest(match[1].encode(), token) for token in tokens) > 0


def _read_tokens(file: Path) -> list[bytes]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise ServerError(f"{file} cannot be read: {error.strerror}") from error
    return [line.strip() for line in lines if line.strip()]
