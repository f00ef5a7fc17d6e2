"""The grammar of the block language, by recursive descent; nlc.equations has it in words, and the public functions.

Parser(tokens, text, place, report)      .statement() or .whole(); None once something was reported
"""

from __future__ import annotations

import keyword
from typing import NoReturn

from nlc.diagnostics import Reporter
from nlc.source import Place, Position
from nlc.tokens import Token
from nlc.trees import Assign, Binary, Boolean, Call, Compare, Expr, ListOf, Multiple, Name, Number, Slice, Text, Unary

DEPTH = 80  # of nesting; a bracket counts as two
LENGTH = 600  # tokens in one statement
_WORDS = {"true": True, "True": True, "false": False, "False": False}
_INSTEAD = {
    "if": "use where(condition, a, b)", "and": "multiply: a * b", "or": "use max(a, b)", "not": "use 1 - a",
    "for": "operators act on whole axes", "lambda": "write the expression where it is used",
}  # fmt: skip


class _Fault(Exception):
    """Already reported; leave the statement."""


class Parser:
    """Recursive descent over the tokens of one statement."""

    def __init__(
        self,
        found: list[Token],
        text: str,
        place: Place,
        report: Reporter,
        calls: bool = False,
        words: tuple[str, ...] = (),
    ) -> None:
        """`calls`: 4x is allowed.  `words`: those of Python's own that are names here."""
        self.tokens, self.text, self.place, self.report, self.calls = found, text, place, report, calls
        self.words = words
        self.index = 0
        self.depth = 0

    def statement(self) -> Assign | None:
        """names = expression"""
        before = len(self.report.found)
        try:
            self.short()
            targets = [self.target()]
            while self.accept(","):
                targets.append(self.target())
            equals = self.peek()
            if equals is None or equals.text != "=":
                whole = self.tokens[0]
                at = self.at(equals) if equals else self.place(whole.offset, self.tokens[-1].end - whole.offset)
                self.fail("NLC0305", at, "an assignment is expected here", "write: name = expression")
            self.index += 1
            value = self.expression()
            self.finish()
        except _Fault:
            return None
        if len(self.report.found) > before:
            return None
        return Assign(tuple(t.text for t in targets), value, self.at(targets[0]), tuple(self.at(t) for t in targets))

    def whole(self) -> Expr | None:
        """One expression and nothing after it."""
        try:
            self.short()
            value = self.expression()
            self.finish()
        except _Fault:
            return None
        return value

    def short(self) -> None:
        if any(token.kind == "fault" for token in self.tokens):
            raise _Fault
        if not self.tokens:
            self.fail("NLC0304", self.place(0, 1), "an expression is expected here")
        if len(self.tokens) > LENGTH:
            at = self.at(self.tokens[LENGTH])
            self.fail(
                "NLC0307",
                at,
                f"an equation of {len(self.tokens)} words and signs; at most {LENGTH}",
                "give parts of it names",
            )

    def target(self) -> Token:
        token = self.next("a name")
        if token.kind != "name":
            self.fail(
                "NLC0305",
                self.at(token),
                f"'{token.text}' where a name to assign to is expected",
                "write: name = expression",
            )
        self.word(token)
        if token.text in _WORDS:
            self.fail("NLC0305", self.at(token), f"'{token.text}' cannot be assigned to")
        return token

    def finish(self) -> None:
        token = self.peek()
        if token is None:
            return
        previous = self.tokens[self.index - 1] if self.index else token
        if token.text in (")", "]"):
            self.fail("NLC0302", self.at(token), f"'{token.text}' closes nothing")
        if token.text in ("for", "if", "else", "in", "and", "or", "not", "is"):
            self.word(token)
        if token.text == "=":
            self.fail("NLC0305", self.at(token), "a second '=' in one equation", "comparison is written ==")
        if token.text == "(":
            self.fail("NLC0304", self.at(token), "only a name can be called")
        if token.text in ("<", "<=", ">", ">=", "==", "!="):
            self.fail("NLC0304", self.at(token), "comparisons cannot be chained", "multiply them: (a < b) * (b < c)")
        times = (
            "write * between factors" if token.kind in ("name", "number", "multiple") and previous.kind != "op" else ""
        )
        self.fail("NLC0304", self.at(token), f"unexpected '{token.text}' after a whole expression", times)

    def expression(self) -> Expr:
        self.depth += 1
        if self.depth > DEPTH:
            self.fail(
                "NLC0307",
                self.at(self.tokens[max(0, self.index - 1)]),
                "nested too deep",
                "give parts of it names",
            )
        left = self.sum()
        if token := self.accept("<", "<=", ">", ">=", "==", "!="):
            left = Compare(token.text, left, self.sum(), self.at(token))
        self.depth -= 1
        return left

    def sum(self) -> Expr:
        left = self.product()
        while token := self.accept("+", "-"):
            left = Binary(token.text, left, self.product(), self.at(token))
        return left

    def product(self) -> Expr:
        left = self.factor()
        while token := self.accept("*", "/", "@"):
            left = Binary(token.text, left, self.factor(), self.at(token))
        return left

    def factor(self) -> Expr:
        self.depth += 1
        if self.depth > DEPTH:
            self.fail(
                "NLC0307",
                self.at(self.tokens[max(0, self.index - 1)]),
                "nested too deep",
                "give parts of it names",
            )
        value: Expr
        if token := self.accept("-"):
            value = Unary("-", self.factor(), self.at(token))
        else:
            value = self.postfix()
            if token := self.accept("**"):
                value = Binary("**", value, self.factor(), self.at(token))
        self.depth -= 1
        return value

    def postfix(self) -> Expr:
        value = self.atom()
        while token := self.accept("["):
            start = None if self.ahead(":") else self.expression()
            single = not self.accept(":")
            stop = None if single or self.ahead("]") else self.expression()
            if self.ahead(","):
                self.fail("NLC0304", self.at(self.peek()), "a slice acts on the last axis only", "one range inside [ ]")
            if self.ahead(":"):
                self.fail("NLC0304", self.at(self.peek()), "a slice has no step", "v[start:stop]")
            self.close("]", token)
            value = Slice(value, start, stop, self.at(token), single)
        return value

    def atom(self) -> Expr:
        token = self.next("a value")
        at = self.at(token)
        if token.kind == "number":
            return Number(self.number(token.text, token), at)
        if token.kind == "multiple":
            if not self.calls:
                self.fail(
                    "NLC0304", at, f"'{token.text}' in an equation", f"write {token.text[:-1]} * x, or the size by name"
                )
            return Multiple(self.number(token.text[:-1], token), at)
        if token.kind == "text":
            self.fail(
                "NLC0304",
                at,
                f"text {token.text} where a value is expected",
                "a text stands only after a keyword: name='shared'",
            )
        if token.kind == "name":
            if token.text in _WORDS:
                return Boolean(_WORDS[token.text], at)
            self.word(token)
            return self.call(token) if self.ahead("(") else Name(token.text, at)
        if token.text == "(":
            return self.items(token, [], ")")
        if token.text == "[":
            return self.items(token, [], "]")
        self.fail("NLC0304", at, f"'{token.text}' where a value is expected")

    def items(self, token: Token, found: list[Expr], closes: str) -> Expr:
        """What stands in ( ) or [ ]; a single expression in ( ) is itself."""
        comma = closes == "]"
        while not self.ahead(closes):
            found.append(self.expression())
            if not self.accept(","):
                break
            comma = True
        self.close(closes, token)
        if not found:
            self.fail("NLC0304", self.at(token), f"'{token.text}{closes}' holds nothing")
        return ListOf(tuple(found), self.at(token), closes == ")") if comma else found[0]

    def call(self, name: Token) -> Expr:
        bracket = self.next("(")
        args: list[Expr] = []
        kwargs: dict[str, Expr] = {}
        places: list[Position] = []
        while not self.ahead(")"):
            token, after = self.peek(), self.peek(1)
            if token and after and token.kind == "name" and after.text == "=":
                self.index += 2
                if token.text in kwargs:
                    self.fail("NLC0304", self.at(token), f"'{token.text}' is given twice")
                kwargs[token.text] = self.keyword()
                places.append(self.at(token))
            else:
                if kwargs and token:
                    self.fail(
                        "NLC0304",
                        self.at(token),
                        "a value without a name after a named one",
                        "named arguments come last",
                    )
                args.append(self.expression())
            if not self.accept(","):
                break
        self.close(")", bracket)
        return Call(name.text, tuple(args), tuple(kwargs.items()), self.at(name), tuple(places))

    def keyword(self) -> Expr:
        token = self.peek()
        if token and token.kind == "text":
            self.index += 1
            return Text(token.text[1:-1], self.at(token))
        return self.expression()

    def number(self, text: str, token: Token) -> int | float:
        following = self.text[token.end : token.end + 1]
        if following.isalnum() or following == "_":
            self.fail(
                "NLC0304",
                self.place(token.offset, len(text) + 1),
                f"'{text}{following}' is not a number",
                f"write {text} * {self.text[token.end :].split()[0]}",
            )
        value = float(text)
        if value > 1e300:
            self.fail("NLC0304", self.at(token), f"the number {text} is out of range")
        return int(text) if text.isdigit() else value

    def word(self, token: Token) -> None:
        """Refuse the words that Python's grammar keeps for itself."""
        if keyword.iskeyword(token.text) and token.text not in _WORDS and token.text not in self.words:
            hint = _INSTEAD.get(token.text, "")
            self.fail("NLC0304", self.at(token), f"'{token.text}' is not part of the block language", hint)

    def peek(self, ahead: int = 0) -> Token | None:
        i = self.index + ahead
        return self.tokens[i] if i < len(self.tokens) else None

    def ahead(self, *texts: str) -> bool:
        token = self.peek()
        return token is not None and token.kind == "op" and token.text in texts

    def accept(self, *texts: str) -> Token | None:
        if not self.ahead(*texts):
            return None
        self.index += 1
        return self.tokens[self.index - 1]

    def next(self, expected: str) -> Token:
        token = self.peek()
        if token is None:
            last = self.tokens[-1]
            self.fail("NLC0304", self.place(last.end - 1, 1), f"the equation ends where {expected} is expected")
        self.index += 1
        return token

    def close(self, text: str, bracket: Token) -> None:
        token = self.peek()
        if token is None:
            self.fail("NLC0302", self.at(bracket), f"'{bracket.text}' is never closed", f"'{text}' expected")
        if token.text in ("for", "if", "lambda"):
            self.word(token)
        if token.text == "=":
            self.fail(
                "NLC0304", self.at(token), "'=' names an argument of a call, nothing else", "comparison is written =="
            )
        if token.text != text:
            self.fail("NLC0304", self.at(token), f"'{token.text}' where ',' or '{text}' is expected")
        self.index += 1

    def at(self, token: Token | None) -> Position:
        assert token is not None
        return self.place(token.offset, len(token.text))

    def fail(self, code: str, at: Position, message: str, hint: str = "") -> NoReturn:
        self.report.error(code, at, message, hint)
        raise _Fault
