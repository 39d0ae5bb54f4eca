"""What the OpenAPI page cannot find out by itself: bodies, which the routes read on their own."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the description of a body in JSON."""
    return _request_body({"application/json": {"schema": _schema(model)}})


def form_or_json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the description of a body that may be a form, with its picture as a file."""
    schema = _schema(model)
    file = {"type": "string", "format": "binary"}
    properties = {
        name: file if name == "image" else field for name, field in schema["properties"].items()
    }
    contents = {
        "multipart/form-data": {"schema": {**schema, "properties": properties}},
        "application/json": {"schema": schema},
    }
    return _request_body(contents)


def _request_body(contents: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": contents}}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's schema in one piece: a reference would point to the whole page's definitions."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def whole(part: Any) -> Any:  # noqa: ANN401 - any part of a JSON document
        match part:
            case {"$ref": str(reference)}:
                return whole(definitions[reference.rpartition("/")[2]])
            case dict():
                # A discriminator is made of references; the parts say the same by their constants.
                return {key: whole(each) for key, each in part.items() if key != "discriminator"}
            case list():
                return [whole(each) for each in part]
            case _:
                return part

    return {key: whole(part) for key, part in schema.items()}
