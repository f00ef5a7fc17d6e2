"""Text to Spec: everything a file says, typed and checked, with a place for every value.

load(argument, set)    a path, a shipped name or `-`             -> Spec
loads(text, file)      the same from text
load_rule(name)        specs/rules/<name>.yaml                   -> RuleSpec
load_task(argument)    a task: a shipped name, mqar(pairs=16), a path -> TaskSpec
schema()               the JSON Schema of architecture files; task_schema(): of task files
shipped(), rules(), tasks()    names of the shipped architectures, rules and tasks
"""

from __future__ import annotations

from nlc.spec.architecture import Architecture, Fields, Level, MemoryFields, Run
from nlc.spec.extends import shipped
from nlc.spec.load import load, loads
from nlc.spec.rule import RuleProgram, RuleSpec, load_rule, rules
from nlc.spec.schema import schema, task_schema
from nlc.spec.task import TaskSpec, find_task, load_task, tasks
from nlc.spec.view import Spec

__all__ = [
    "Architecture", "Fields", "Level", "MemoryFields", "RuleProgram", "RuleSpec", "Run", "Spec",
    "TaskSpec", "find_task", "load", "load_rule", "load_task", "loads", "rules", "schema", "shipped", "task_schema",
    "tasks",
]  # fmt: skip
