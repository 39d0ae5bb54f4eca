"""What KServe's Python classes, the one form in which a wheel holds its schema, say of a manifest.

The classes are generated of the schema. They are read, not imported: importing them would take what
they need to talk to a cluster. What they leave to Kubernetes (`V1Container`) is not looked into.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCALARS = {"str": str, "int": int, "bool": bool, "float": float}


@cache
def _fields(name: str) -> dict[str, str] | None:
    """Types of a class's fields by their names in JSON, None for a class that is not KServe's."""
    [models] = ROOT.glob(".venv-ops/lib/python*/site-packages/kserve/models")
    for file in models.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())) if _defines(file, name) else ():
            if isinstance(node, ast.ClassDef) and node.name == name:
                table = {
                    statement.targets[0].id: ast.literal_eval(statement.value)
                    for statement in node.body
                    if isinstance(statement, ast.Assign)
                    and isinstance(statement.targets[0], ast.Name)
                }
                types, keys = table["openapi_types"], table["attribute_map"]
                return {keys[attribute]: types[attribute] for attribute in types}
    return None


def _defines(file: Path, name: str) -> bool:
    return f"class {name}(" in file.read_text()


def faults(value: Any, type_name: str, path: str = "") -> Iterator[str]:
    """Yields what is wrong with a value of a manifest.

    Args:
        value: parsed YAML.
        type_name: as in the classes: `V1beta1InferenceService`, `list[str]`, `dict(str, str)`.
        path: of the value, for the messages.
    """
    if type_name.startswith("list["):
        if not isinstance(value, list):
            yield f"{path} is no list"
            return
        for index, item in enumerate(value):
            yield from faults(
                item, type_name.removeprefix("list[").removesuffix("]"), f"{path}[{index}]"
            )
    elif type_name in SCALARS:
        if type(value) is not SCALARS[type_name]:
            yield f"{path} is no {type_name}"
    elif (fields := _fields(type_name)) is not None:
        for key, item in value.items():
            if key in fields:
                yield from faults(item, fields[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} is no field"
