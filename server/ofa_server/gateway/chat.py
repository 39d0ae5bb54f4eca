"""OpenAI's `/v1/chat/completions` for a picture and a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from ofa_client import AnsweringResult, CaptioningResult, InvalidOptionError, Text, TextsResult
from ofa_server.gateway.answers import Result
from ofa_server.gateway.catalogue import ServedModel, choose_model
from ofa_server.gateway.chat_forms import (
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    Message,
    Usage,
    to_events,
)
from ofa_server.gateway.descriptions import asks_for_description, is_chinese
from ofa_server.gateway.errors import REQUEST_ID, ApiError
from ofa_server.gateway.gateway import Deadline, Gateway
from ofa_server.gateway.openapi import json_body
from ofa_server.gateway.pictures import read_picture

#: The name under which a model is chosen by the question.
AUTOMATIC = "ofa"
CHAT_ROUTE = "/v1/chat/completions"

#: By the tasks that answer in words to a picture: the client's verb, where it takes the text, and
#: how it is told how many answers are wanted.
_VERBS = {
    "caption": ("caption", None, "num_captions"),
    "vqa": ("answer", "question", "num_answers"),
    "generate": ("generate", "prompt", "num_texts"),
}

#: What a caller means to get and we cannot give. All else that OpenAI has beside it steers a
#: sampling that a beam search does not do.
_REFUSED = ("tools", "functions", "logprobs", "response_format", "audio", "stop")


@dataclass(frozen=True)
class Question:
    """What a conversation comes down to.

    Attributes:
        image_bytes: the picture; only `generate` does without.
        text: the last message's.
    """

    image_bytes: bytes | None
    text: str


def chat_router(gateway: Gateway) -> APIRouter:
    """Returns the route of chat completions."""
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        CHAT_ROUTE,
        response_model=ChatCompletion,
        summary="Caption a picture or answer a question about it, in OpenAI's form",
        description=ChatRequest.__doc__,
        openapi_extra=json_body(ChatRequest),
    )
    async def complete(request: Request, response: Response) -> ChatCompletion | Response:
        with gateway.place() as deadline:
            chat = await gateway.read(request, ChatRequest, deadline)
            _refuse_what_cannot_be_done(chat)
            question = find_question(chat.messages)
            model = choose(question, await gateway.catalogue.models(), chat.model)
            result = await _ask(gateway, request, model, question, chat, deadline)
        completion = to_completion(result, model.name, chat)
        response.headers[REQUEST_ID] = result.call.request_id
        if not chat.stream:
            return completion
        include_usage = chat.stream_options is not None and chat.stream_options.include_usage
        events = to_events(completion, include_usage=include_usage)
        return StreamingResponse(events, 200, response.headers, "text/event-stream")

    return router


def find_question(messages: Sequence[Message]) -> Question:
    """Returns the last message's text and its picture, or else the last picture before it.

    Raises:
        ApiError: the last message is not the user's, or has several pictures or an unfit one.
    """
    asked = messages[-1]
    if asked.role != "user":
        raise _invalid(f"the last message must be the user's, not the {asked.role}'s")
    if len(asked.image_urls) > 1:
        raise _invalid(f"the last message has {len(asked.image_urls)} pictures; the limit is 1")
    urls = [url for message in messages if message.role == "user" for url in message.image_urls]
    return Question(read_picture(urls[-1]) if urls else None, asked.text)


def choose(question: Question, models: Sequence[ServedModel], name: str | None) -> ServedModel:
    """Returns the model that answers; docs/gateway.md says how it is chosen.

    Raises:
        ApiError: there is none, or it cannot be asked this.
    """
    if name not in (None, AUTOMATIC):
        model = choose_model(models, _VERBS.keys(), name)
    else:
        task = "caption" if asks_for_description(question.text) else "vqa"
        language = "zh" if is_chinese(question.text) else "en"
        model = choose_model(models, {task}, language=language)
    if question.image_bytes is None and model.task != "generate":
        raise _invalid("no message has a picture")
    if model.task == "caption" and not asks_for_description(question.text):
        raise _invalid(
            f"the model {model.name!r} describes pictures and takes no questions; "
            f"one for vqa does, and {AUTOMATIC!r} chooses by the text"
        )
    if model.task == "vqa" and not question.text.strip():
        raise _invalid(f"the model {model.name!r} answers questions, and there is none")
    return model


def to_completion(result: Result, model: str, chat: ChatRequest) -> ChatCompletion:
    """Returns the client's result in OpenAI's form."""
    texts = _texts_of(result)
    # A single text has no zeros behind it.
    numbers = [len(text.token_log_probs if len(texts) == 1 else _tokens(text)) for text in texts]
    limit = _max_tokens(chat)
    choices = [
        Choice(
            index=index,
            message=AssistantMessage(content=text.text),
            finish_reason="length" if limit and num_tokens > limit else "stop",
        )
        for index, (text, num_tokens) in enumerate(zip(texts, numbers, strict=True))
    ]
    total = sum(numbers)
    return ChatCompletion(
        model=model,
        choices=choices,
        usage=Usage(completion_tokens=total, total_tokens=total),
    )


async def _ask(
    gateway: Gateway,
    request: Request,
    model: ServedModel,
    question: Question,
    chat: ChatRequest,
    deadline: Deadline,
) -> Result:
    verb, text_name, count_name = _VERBS[model.task]
    arguments: dict[str, object] = {"image": question.image_bytes, count_name: chat.n}
    if text_name:
        arguments[text_name] = question.text
    limit = _max_tokens(chat)
    if limit is not None:
        try:
            return await gateway.ask(
                request, verb, {**arguments, "max_length": limit}, model.name, deadline
            )
        except InvalidOptionError as error:
            # OpenAI's limit may be far above what the model ever says; ours may not.
            if "max_length" not in error.message:
                raise
    return await gateway.ask(request, verb, arguments, model.name, deadline)


def _max_tokens(chat: ChatRequest) -> int | None:
    return chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens


def _texts_of(result: Result) -> Sequence[Text]:
    match result:
        case (
            CaptioningResult(captions=texts)
            | AnsweringResult(answers=texts)
            | TextsResult(texts=texts)
        ):
            return texts
    raise TypeError(f"{type(result).__name__} has no texts")


def _tokens(text: Text) -> tuple[float, ...]:
    """The log-probabilities of the tokens, without the zeros that fill up to the longest text."""
    log_probs = text.token_log_probs
    while len(log_probs) > 1 and log_probs[-1] == 0:
        log_probs = log_probs[:-1]
    return log_probs


def _refuse_what_cannot_be_done(chat: ChatRequest) -> None:
    for name, value in (chat.model_extra or {}).items():
        if name in _REFUSED and value and value != {"type": "text"}:
            raise ApiError(
                400, "unsupported", f"{name} is not something that this model can do", param=name
            )


def _invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_request", message, param="messages")
