"""Axis letters: a tensor's name in generated code carries its shape, `k_BTHK`, and each file opens with the legend."""

from __future__ import annotations

from dataclasses import dataclass, field

from nlc.graph.graph import Graph
from nlc.graph.nodes import Memory, Shape

MEANING = {
    "B": "batch (independent sequences)",
    "T": "tokens of one segment",
    "H": "heads",
    "K": "head width",
    "D": "model width",
    "F": "hidden width of an mlp",
    "V": "vocabulary",
}
SPARE = "EGIJLMNOPQRSUWXYZ"


@dataclass
class Axes:
    """Letters for the sizes of one graph; those used are kept for the legend."""

    letters: dict[int, str]  # size -> letter, where the size is unambiguous
    sizes: dict[str, int]
    used: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> Axes:
        sizes = dict(graph.sizes)
        letters: dict[int, str] = {}
        hidden = {m.form.hidden for m in graph.of(Memory) if m.form.hidden}
        for letter, size in (
            ("D", sizes.get("width")),
            ("K", sizes.get("head")),
            ("H", sizes.get("heads")),
            ("V", sizes.get("vocab")),
        ):
            if size:
                letters.setdefault(size, letter)
        for size in sorted(hidden):
            letters.setdefault(size, "F")
        return cls(letters, sizes)

    def suffix(self, shape: Shape, *, tokens: bool = True) -> str:
        """`_BTHK` for a value of shape (heads, head); without B and T for a constant."""
        letters = [self._letter(size, at, shape) for at, size in enumerate(shape)]
        for letter, size in zip(letters, shape, strict=True):
            self.used.setdefault(letter, size)
        text = ("BT" if tokens else "") + "".join(letters)
        return f"_{text}" if text else ""

    def _letter(self, size: int, at: int, shape: Shape) -> str:
        if shape[: at + 1] == (self.sizes.get("heads"),) or (
            at == 0 and len(shape) > 1 and size == self.sizes.get("heads")
        ):
            return "H"
        if at and size == self.sizes.get("head"):
            return "K"
        if size not in self.letters:
            taken = set(self.letters.values())
            self.letters[size] = next((c for c in SPARE if c not in taken), "X")
        return self.letters[size]

    def legend(self) -> str:
        """B batch (...), T tokens ..., with the sizes of this file."""
        names = {letter: MEANING.get(letter, "") for letter in ("B", "T", *self.used)}
        parts = []
        for letter, meaning in names.items():
            size = f"{self.used[letter]:,}".replace(",", " ") if letter in self.used else ""
            parts.append(" ".join(x for x in (letter, meaning, size) if x))
        return ", ".join(parts)
