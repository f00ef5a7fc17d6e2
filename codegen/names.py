"""Names in generated code that come from names in a spec."""

from __future__ import annotations

import keyword

TAKEN = frozenset("self s t a b B T F torch nn math history clock learn state final calls".split())

CLASSES = frozenset(
    "Block Call Equations F LanguageModel Layer Learner Level Matrix Mlp Run Settings Swiglu Vector Weights "
    "Write".split()
)  # of the generated files


def local(name: str) -> str:
    """A Python variable for a name of the spec."""
    return f"{name}_" if keyword.iskeyword(name) or name in TAKEN else name


def class_name(name: str) -> str:
    """hope_deep, dgd-cell -> HopeDeep, DgdCell."""
    words = "".join(c if c.isalnum() else " " for c in name).split()
    text = "".join(w[:1].upper() + w[1:] for w in words) or "Model"
    plain = text[0].isalpha() and not keyword.iskeyword(text) and text not in CLASSES
    return text if plain else f"Model{text}"


def block_classes(model: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """A class for each kind of block: `Block` for the only one, else its own name, unlike the model's and the rest."""
    if len(kinds) == 1:
        return {kinds[0]: "Block"}
    taken, found = {class_name(model)}, {}
    for kind in kinds:
        plain = class_name(kind)
        names = (plain, f"{plain}Block", *(f"{plain}Block{n}" for n in range(2, len(kinds) + 2)))
        found[kind] = next(name for name in names if name not in taken)
        taken.add(found[kind])
    return found


def class_constant(id: str) -> str:
    """titans.memory -> TITANS_MEMORY."""
    return "".join(c if c.isalnum() else "_" for c in id).upper()


def function_name(id: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in id)
