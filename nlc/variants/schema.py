"""The JSON Schema of search files."""

from __future__ import annotations

from typing import Any

from nlc.spec.schema import described
from nlc.variants import fields


def search_schema() -> dict[str, Any]:
    return described(fields.SearchFields, fields, "search")
