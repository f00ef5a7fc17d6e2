"""The rules that a spec may name: those it defines under `rules:`, those in its folder, and the shipped ones.

    book = RuleBook(tree of `rules:`, folder)
    book.load("lion", at)      -> RuleSpec; SpecError with what is wrong with the name, or with the rule
    book.names()               -> the names a level may say
    find_rule("lion.yaml")     -> the RuleSpec of a file, or of a shipped name; None where the argument is no rule

    rules:
      lion: {params: ..., levels: [...]}       a rule, written here
      tiger: optimisers/tiger.yaml             a rule file, in the folder of the spec or below it

A rule file `lion.yaml` beside the spec needs no entry.  What is nearer comes first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nlc.diagnostics import Reporter, SpecError, suggest
from nlc.source import Mapping, Position, Scalar, Tree
from nlc.spec.rule import RuleSpec, load_rule, rule_from, rules
from nlc.spec.text import parse, place_of, read


@dataclass
class RuleBook:
    """`own`: the tree of a spec's `rules:`.  `folder`: of the spec; None for one that is no file."""

    own: Tree | None = None
    folder: Path | None = None
    shown: str = ""  # the folder's name in messages, with its slash
    found: dict[str, RuleSpec | None] = field(default_factory=dict)  # None: refused, and said so

    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.written(), *self.found, *rules())))

    def written(self) -> tuple[str, ...]:
        """Those under `rules:`."""
        return tuple(self.own.entries) if isinstance(self.own, Mapping) else ()

    def mine(self) -> dict[str, RuleSpec]:
        """Those of this spec that have been asked for, and are not shipped."""
        return {name: rule for name, rule in self.found.items() if rule is not None}

    def hiding(self) -> dict[str, str]:
        """Those of this spec that stand in place of a shipped rule, and where each is written."""
        return {name: str(rule.at) for name, rule in self.mine().items() if name in rules()}

    def none(self, name: str) -> bool:
        """Whether there is no such rule."""
        beside = self.folder is not None and (self.folder / f"{name}.yaml").is_file()
        return name not in self.written() and name not in rules() and not beside

    def load(self, name: str, at: Position | None = None) -> RuleSpec:
        """The rule of that name.  `at` is where the name is written.  What is wrong with a rule is said once."""
        if name not in self.found:
            self.found[name] = None
            rule = self._own(name)
            if rule is None:
                del self.found[name]
                if name not in rules():
                    hint = suggest(name, self.names(), "rules")
                    raise refused("NLC0402", at or Position(name, 0, 0), f"unknown update rule '{name}'", hint)
                return load_rule(name, at)
            self.found[name] = rule
        rule = self.found[name]
        if rule is None:
            raise SpecError([])
        return rule

    def _own(self, name: str) -> RuleSpec | None:
        if name in self.written():
            assert isinstance(self.own, Mapping)
            value = self.own.entries[name].value
            if not isinstance(value, Scalar):
                return rule_from(value, name)
            return self._file(name, value)
        path = self.folder / f"{name}.yaml" if self.folder is not None else None
        if path is None or not path.is_file():
            return None
        tree = tree_of(path, f"{self.shown}{name}.yaml")
        return rule_from(tree, name) if isinstance(tree, Mapping) and "rule" in tree.entries else None

    def _file(self, name: str, value: Scalar) -> RuleSpec:
        """`tiger: optimisers/tiger.yaml`"""
        if self.folder is None or not isinstance(value.value, str):
            hint = "a mapping of params: and levels:, or a file in the spec's folder"
            raise refused("NLC0202", value.at, f"rules.{name} is '{value.text}'", hint)
        root = place_of(self.folder)
        path = place_of(root / value.text)
        if not path.is_relative_to(root):
            hint = "a file in the folder of this spec or below it"
            raise refused("NLC0207", value.at, f"'{value.text}' is outside the spec's folder", hint)
        if not path.is_file():
            near = [str(p.relative_to(root)) for p in sorted(path.parent.glob("*.yaml"))[:50]]
            raise refused(
                "NLC0208", value.at, f"no file '{value.text}' for the rule '{name}'", suggest(value.text, near)
            )
        return rule_from(tree_of(path, f"{self.shown}{value.text}"), name)


def refused(code: str, at: Position, message: str, hint: str = "") -> SpecError:
    report = Reporter()
    report.error(code, at, message, hint)
    return SpecError(report.found)


def tree_of(path: Path, shown: str) -> Tree:
    """The tree of a file.  Raises SpecError."""
    report = Reporter()
    text = read(path, shown, report)
    tree = parse(text, shown, report) if text is not None else None
    report.check()
    assert tree is not None
    return tree


def find_rule(argument: str) -> RuleSpec | None:
    """The rule of an argument of the command line; raises SpecError where it is one, and is wrong."""
    path = Path(argument)
    if argument in rules() and not path.is_file():
        return load_rule(argument)
    if not path.is_file():
        return None
    report = Reporter()
    text = read(path, argument, report)
    tree = parse(text, argument, report) if text is not None else None
    if not isinstance(tree, Mapping) or "rule" not in tree.entries:
        return None
    report.check()
    return rule_from(tree)
