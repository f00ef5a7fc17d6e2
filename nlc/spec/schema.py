"""The JSON Schema of a kind of file, for `nlc schema` and for editors (yaml-language-server).

Descriptions are the strings below the fields of the models (nlc.spec.architecture, nlc.spec.task), read from their
source only when asked for.
"""

from __future__ import annotations

import ast
import inspect
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel


def schema() -> dict[str, Any]:
    """The schema of architectures as plain data: JSON Schema 2020-12."""
    from nlc.spec import architecture

    return described(architecture.Architecture, architecture, "architecture")


def task_schema() -> dict[str, Any]:
    """The same of tasks."""
    from nlc.spec import task
    from nlc.spec.task_kinds import KINDS

    found = described(task.TaskFields, task, "task")
    found["properties"]["items"]["enum"] = list(KINDS)
    return found


def described(model: type[BaseModel], module: ModuleType, title: str) -> dict[str, Any]:
    """The schema of a model, with the descriptions that its module has."""
    found: dict[str, Any] = model.model_json_schema()
    docs = _docs(inspect.getsource(module))
    definitions = {model.__name__: found, **found.get("$defs", {})}
    for name, definition in definitions.items():
        definition["patternProperties"] = {"^x-": {"description": "A note; the compiler does not read it."}}
        for field, described in definition.get("properties", {}).items():
            text = next((docs[c][field] for c in (name, "Fields") if field in docs.get(c, {})), "")
            if text:
                described["description"] = text
            _without_null(described)
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["title"] = f"nlc {title}"
    return found


def _without_null(field: dict[str, Any]) -> None:
    """A key that says nothing is left out, never null: take the null that stands for that out of a field's schema."""
    field.pop("title", None)
    if field.get("default", 0) is None:
        del field["default"]
    kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del field["anyOf"]
        field |= {key: value for key, value in kinds[0].items() if key not in field}
    elif kinds:
        field["anyOf"] = kinds


def _docs(source: str) -> dict[str, dict[str, str]]:
    """The string below each annotated field of each class."""
    found: dict[str, dict[str, str]] = {}
    for item in ast.parse(source).body:
        if not isinstance(item, ast.ClassDef):
            continue
        fields = found.setdefault(item.name, {})
        for above, below in zip(item.body, item.body[1:], strict=False):
            match above, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                    fields[name] = " ".join(text.split())
    return found
