"""Text to Spec: everything a file says, typed and checked, with a place for every value.

load(argument, set)    a path, a shipped name or `-`             -> Spec
loads(text, file)      the same from text
load_rule(name)        specs/rules/<name>.yaml                   -> RuleSpec
schema()               the JSON Schema of architecture files
shipped(), rules()     names of the shipped architectures and rules
"""

from __future__ import annotations

from nlc.spec.architecture import Architecture, Fields, Level, MemoryFields, Run
from nlc.spec.extends import shipped
from nlc.spec.load import load, loads
from nlc.spec.rule import RuleProgram, RuleSpec, load_rule, rules
from nlc.spec.schema import schema
from nlc.spec.view import Spec

__all__ = [
    "Architecture", "Fields", "Level", "MemoryFields", "RuleProgram", "RuleSpec", "Run", "Spec",
    "load", "load_rule", "loads", "rules", "schema", "shipped",
]  # fmt: skip
