"""Which models the server has ready, and what each of them is for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from ofa_client._security import bearer, make_credentials
from ofa_client._security_arguments import SecuritySettings
from ofa_server.gateway.errors import RETRY_AFTER_S, ApiError, unavailable

_log = logging.getLogger(__name__)

#: Seconds for which an answer of the server's about its models is taken for true.
_FRESH_S = 2.0
_TIMEOUT_S = 5.0
_REFUSED = ("StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED")

#: A task shows in its tensors (docs/protocol.md): the list of its answer, and the pictures and
#: texts of its request.
_TASKS = {
    ("captions", frozenset({"image"})): "caption",
    ("answers", frozenset({"image", "text"})): "vqa",
    ("boxes", frozenset({"image", "text"})): "grounding",
    ("labels", frozenset({"image", "text", "text2"})): "entailment",
    ("labels", frozenset({"image"})): "classification",
    ("texts", frozenset({"image"})): "ocr",
    ("texts", frozenset({"text"})): "summarization",
    ("labels", frozenset({"text", "text2"})): "text_classification",
    ("texts", frozenset({"image", "text"})): "generate",
    ("images", frozenset({"text"})): "text_to_image",
}
_RESULTS = {results for results, _ in _TASKS}
_CONTENTS = {"image", "text", "text2"}


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready.

    Attributes:
        name: that it is asked by.
        task: what it does, by the name that an export of the task has by default.
        ready_since: when the gateway first saw it, in seconds since 1970.
    """

    name: str
    task: str
    ready_since: int

    @property
    def language(self) -> str:
        """`zh` if its name ends on that, otherwise `en`: the server does not tell."""
        return "zh" if self.name.endswith("_zh") else "en"


def task_of(inputs: Iterable[str], outputs: Iterable[str]) -> str | None:
    """Returns the task of a model with tensors of these names, None if it is none of OFA's."""
    contents = frozenset(_CONTENTS.intersection(inputs))
    tasks = [_TASKS.get((results, contents)) for results in _RESULTS.intersection(outputs)]
    return tasks[0] if len(tasks) == 1 else None


def choose_model(
    models: Sequence[ServedModel],
    tasks: AbstractSet[str],
    name: str | None = None,
    language: str | None = None,
) -> ServedModel:
    """Returns the model to ask.

    Args:
        models: those that are ready.
        tasks: what it has to do one of.
        name: of the model; None leaves the choice.
        language: preferred, where there is a choice.

    Raises:
        ApiError: there is no such model, it does another task, or none is ready for the task.
    """
    if name is not None:
        found = [model for model in models if model.name == name]
        if not found:
            known = ", ".join(model.name for model in models if model.task in tasks)
            message = f"there is no model {name!r} here; for this there are: {known or 'none'}"
            raise ApiError(404, "model_not_found", message, param="model")
        if found[0].task not in tasks:
            message = f"the model {name!r} is for {found[0].task}, not for {_either(tasks)}"
            raise ApiError(400, "invalid_request", message, param="model")
        return found[0]
    able = [model for model in models if model.task in tasks]
    if not able:
        message = f"no model for {_either(tasks)} is ready"
        raise ApiError(503, "model_not_ready", message, retry_after=RETRY_AFTER_S)
    # The one that is named for its task comes before others that do the same.
    return min(
        able, key=lambda model: (model.language != language, model.name != model.task, model.name)
    )


def _either(tasks: AbstractSet[str]) -> str:
    return " or ".join(sorted(tasks))


class Catalogue:
    """The models of one or more Triton servers, which are taken to have the same ones.

    It belongs to one event loop.

    Args:
        servers: HOST:PORT of each server's gRPC port, or dns:///HOST:PORT.
        security: towards them; None sends everything in the clear.

    Raises:
        OSError: a file of certificates cannot be read.
    """

    def __init__(self, servers: Sequence[str], security: SecuritySettings | None = None) -> None:
        self._servers = [_connect(server, security) for server in servers]
        self._security = security
        self._lock = asyncio.Lock()
        self._fresh_until = 0.0
        #: None while nobody answers, which is kept as long as an answer: requests that wait for one
        #: would otherwise wait for one another.
        self._models: list[ServedModel] | None = None
        #: By name and version, which keep their tensors; None for what is no task of OFA's.
        self._known: dict[tuple[str, str], ServedModel | None] = {}

    async def models(self) -> Sequence[ServedModel]:
        """Returns the models that are ready, by name.

        Raises:
            ApiError: the server does not answer.
        """
        async with self._lock:
            if time.monotonic() > self._fresh_until:
                self._models = await self._read()
                self._fresh_until = time.monotonic() + _FRESH_S
            if self._models is None:
                raise unavailable()
            return self._models

    async def is_ready(self) -> bool:
        """Returns whether a server says that it and all its models are ready."""
        for server in tuple(self._servers):
            with suppress(InferenceServerException):
                if await server.is_server_ready(headers=self._headers(), client_timeout=_TIMEOUT_S):
                    return True
            self._ask_last(server)
        return False

    async def aclose(self) -> None:
        """Closes the connections."""
        for server in self._servers:
            await server.close()

    async def _read(self) -> list[ServedModel] | None:
        """Asks one server after the other until one answers."""
        for server in tuple(self._servers):
            try:
                return await self._read_from(server)
            except InferenceServerException as error:
                if error.status() in _REFUSED:
                    _log.warning("a model server refuses the gateway: %s", error.message())
            self._ask_last(server)
        return None

    def _headers(self) -> dict[str, str]:
        """The credentials of a call; the token is read anew for each."""
        if self._security is None:
            return {}
        token = self._security["token"]
        return self._security["metadata"] | (dict(bearer(token)) if token is not None else {})

    def _ask_last(self, server: triton.InferenceServerClient) -> None:
        """Others shall not wait for one that keeps silent, time and again."""
        self._servers.remove(server)
        self._servers.append(server)

    async def _read_from(self, server: triton.InferenceServerClient) -> list[ServedModel]:
        # Triton has statistics of the models that are ready, oldest version first. Its index of
        # the repository is for operators (ofa_server.admin_key).
        headers = self._headers()
        statistics = await server.get_inference_statistics(
            headers=headers, client_timeout=_TIMEOUT_S
        )
        ready = [(model.name, model.version) for model in statistics.model_stats]
        for key in ready:
            if key not in self._known:
                self._known[key] = await _describe(server, *key, headers)
        # What is gone may come back as something else.
        self._known = {key: self._known[key] for key in ready}
        # Of several versions the server answers with the newest unless told otherwise.
        newest = {name: model for (name, _), model in self._known.items()}
        return sorted((model for model in newest.values() if model), key=lambda model: model.name)


def _connect(server: str, security: SecuritySettings | None) -> triton.InferenceServerClient:
    tls = None if security is None else security["tls"]
    if tls is None:
        return triton.InferenceServerClient(server)
    named = [] if tls.server_name is None else [("grpc.ssl_target_name_override", tls.server_name)]
    return triton.InferenceServerClient(server, creds=make_credentials(tls), channel_args=named)


async def _describe(
    server: triton.InferenceServerClient, name: str, version: str, headers: dict[str, str]
) -> ServedModel | None:
    metadata = await server.get_model_metadata(
        name, version, headers=headers, client_timeout=_TIMEOUT_S
    )
    # The members have such tensors too, and nothing checks what goes straight to them.
    if metadata.platform != "ensemble":
        return None
    task = task_of(
        (tensor.name for tensor in metadata.inputs),
        (tensor.name for tensor in metadata.outputs),
    )
    return ServedModel(name, task, int(time.time())) if task else None
