"""What the gateway answers when it has no answer: status, code and message."""

from __future__ import annotations

import logging
import math
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ofa_client import (
    CallCancelledError,
    DeadlineExceededError,
    ImageTooLargeError,
    InvalidImageError,
    InvalidOptionError,
    InvalidRequestError,
    InvalidTextError,
    ModelNotReadyError,
    OFAClientError,
    OverloadedError,
    UnavailableError,
)

_log = logging.getLogger(__name__)

#: Header with what the model server knows the request by, in its log and traces too.
REQUEST_ID = "X-Request-ID"

#: Seconds after which a refused request may try again, at the least.
RETRY_AFTER_S = 1

#: nginx's status for a caller who went away; nobody reads it but the metrics.
_CLIENT_CLOSED = 499
#: Statuses that may come before the whole request has: uvicorn would read on, without a limit, to
#: find the next request of the connection.
_WITH_BODIES_LEFT = (401, 408, 413, 415, 429)


class ApiError(Exception):
    """A request that ends without an answer.

    Attributes:
        status: of HTTP.
        code: one word for programs.
        message: one sentence for people; it tells nothing of the inside.
        param: the field at fault, if it is one.
        retry_after: seconds until another try makes sense, None where it never does.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after


class ErrorDetails(BaseModel):
    """An error in OpenAI's form; `param` is the field at fault, if it is one."""

    code: str
    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None


class ErrorAnswer(BaseModel):
    """The body of every answer that is none."""

    error: ErrorDetails


def from_client_error(error: OFAClientError) -> ApiError:
    """Returns what an error of the client is to a caller.

    What is wrong with a request is told as the server said it. What is wrong with the server is
    told in a sentence of our own: its words hold addresses and names of the inside.
    """
    match error:
        case ImageTooLargeError():
            return ApiError(413, "image_too_large", error.message, param="image")
        case InvalidImageError():
            return ApiError(400, "invalid_image", error.message, param="image")
        case InvalidTextError():
            return ApiError(400, "invalid_text", error.message)
        case InvalidOptionError():
            return ApiError(400, "invalid_option", error.message)
        case InvalidRequestError():
            return ApiError(400, "invalid_request", error.message)
        case OverloadedError():
            return overloaded(max(error.retry_after, RETRY_AFTER_S))
        case DeadlineExceededError():
            return ApiError(504, "deadline_exceeded", "the model server did not answer in time")
        case ModelNotReadyError():
            return ApiError(
                503, "model_not_ready", "the model is not ready", retry_after=RETRY_AFTER_S
            )
        case UnavailableError() | CallCancelledError():
            return unavailable()
        case _:
            return ApiError(502, "server_error", "the model server has failed; its log says more")


def overloaded(retry_after: float = RETRY_AFTER_S) -> ApiError:
    """Returns the refusal of one request too many."""
    message = "too many requests are waiting"
    return ApiError(429, "overloaded", message, retry_after=retry_after)


def unavailable() -> ApiError:
    """Returns what there is to say while nobody answers."""
    message = "the model server is not available"
    return ApiError(503, "unavailable", message, retry_after=RETRY_AFTER_S)


def from_validation_error(error: ValidationError) -> ApiError:
    """Returns the first thing that is wrong with a body."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    match first["type"]:
        case "json_invalid":
            message = f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
        case "extra_forbidden":
            message = f"unknown field {field}"
        case "missing":
            message = f"{field} is missing"
        case _:
            message = f"{field}: {first['msg']}" if field else first["msg"]
    return ApiError(400, "invalid_request", message, param=field or None)


def add_error_handlers(app: FastAPI) -> None:
    """Makes every error of the routes a JSON body in OpenAI's form."""

    @app.exception_handler(ApiError)
    async def on_api_error(request: Request, error: ApiError) -> Response:
        return error_response(request, error)

    @app.exception_handler(OFAClientError)
    async def on_client_error(request: Request, error: OFAClientError) -> Response:
        answered = from_client_error(error)
        if answered.status in (502, 503):
            _log.warning("%s: %s: %s", error.request_id, answered.code, error)
        return error_response(request, answered, error.request_id)

    @app.exception_handler(ValidationError)
    async def on_validation_error(request: Request, error: ValidationError) -> Response:
        return error_response(request, from_validation_error(error))

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(request: Request, _: ClientDisconnect) -> Response:
        request.state.outcome = "cancelled"
        return Response(status_code=_CLIENT_CLOSED)

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return error_response(request, ApiError(error.status_code, code, error.detail))

    @app.exception_handler(Exception)
    async def on_fault(request: Request, _: Exception) -> Response:
        # Starlette raises the error again behind this answer, so that uvicorn logs its traceback.
        return error_response(request, ApiError(500, "internal_error", "the gateway has failed"))


def error_response(request: Request, error: ApiError, request_id: str = "") -> Response:
    """Returns the answer that says so, and leaves its code for the figures."""
    request.state.outcome = error.code
    details = ErrorDetails(
        code=error.code,
        message=error.message,
        type="invalid_request_error" if error.status < 429 else "server_error",
        param=error.param,
    )
    headers = {REQUEST_ID: request_id} if request_id else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in _WITH_BODIES_LEFT:
        headers["Connection"] = "close"
    return JSONResponse(ErrorAnswer(error=details).model_dump(), error.status, headers)
