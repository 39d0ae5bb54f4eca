"""Reading of a request's body: JSON or a form, of a bounded size and in a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from ofa_client import MAX_IMAGE_BYTES, MAX_TEXT_BYTES
from ofa_server.gateway.errors import ApiError

#: The largest picture in base64 and half a mebibyte for texts, options and the form around them.
MAX_BODY_BYTES = MAX_IMAGE_BYTES * 4 // 3 + 524_288

#: More than any task has.
_MAX_FIELDS = 16

Body = TypeVar("Body", bound=BaseModel)


class _FormParser(MultiPartParser):
    # A picture stays in memory, where it is wanted next, and off the disk.
    spool_max_size = MAX_BODY_BYTES


async def read_body(request: Request, model: type[Body], timeout: float) -> Body:
    """Returns the body as the model that it must fit.

    Args:
        request: with `application/json` or `multipart/form-data`.
        model: what the body stands for; a form's files are bytes to it and all else is text.
        timeout: seconds in which the whole body must have come.

    Raises:
        ApiError: it is of another type, over the limit, or did not come in time.
        ValidationError: it does not fit.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(timeout):
            match media_type:
                case "application/json":
                    chunks = [chunk async for chunk in _limited(request)]
                    return model.model_validate_json(b"".join(chunks))
                case "multipart/form-data":
                    return model.model_validate(await _read_form(request))
    except TimeoutError as error:
        message = f"the body did not come within {timeout:g} s"
        raise ApiError(408, "request_timeout", message) from error
    raise ApiError(
        415,
        "unsupported_media_type",
        "the body must be application/json or multipart/form-data",
    )


async def _limited(request: Request) -> AsyncGenerator[bytes, None]:
    """The body, up to the limit; what announces to be over it is not read at all."""
    announced = request.headers.get("content-length", "0")
    received = int(announced) if announced.isdecimal() else 0
    if received <= MAX_BODY_BYTES:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > MAX_BODY_BYTES:
                break
            yield chunk
    if received > MAX_BODY_BYTES:
        raise ApiError(
            413, "body_too_large", f"the body is over the limit of {MAX_BODY_BYTES:,} bytes"
        )


async def _read_form(request: Request) -> dict[str, bytes | str]:
    parser = _FormParser(
        request.headers,
        _limited(request),
        max_files=1,
        max_fields=_MAX_FIELDS,
        # One byte more than a text may have, so that it is refused in the words for texts.
        max_part_size=MAX_TEXT_BYTES + 1,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ApiError(
            400, "invalid_request", f"the form cannot be read: {error.message}"
        ) from error
    try:
        fields: dict[str, bytes | str] = {}
        for name, value in form.multi_items():
            if name in fields:
                raise ApiError(400, "invalid_request", f"{name} is there twice", param=name)
            fields[name] = await value.read() if isinstance(value, UploadFile) else value
        return fields
    finally:
        await form.close()
