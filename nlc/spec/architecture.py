"""What an architecture file may say: one pydantic model per mapping, every field with a line of meaning.

Values are kept as written: an expression stays text (a number becomes its text), and what the file does not say is
None.  Periods, calls and expressions have grammars of their own: nlc.spec.fields and nlc.equations.  The strings below
fields are their descriptions in the JSON Schema.
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema
from pydantic_core import PydanticKnownError


def _as_text(value: Any) -> Any:
    """A number where an expression is expected is an expression."""
    if isinstance(value, float) and not isfinite(value):
        raise PydanticKnownError("finite_number")
    return repr(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


_TEXT_OR_NUMBER = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})

Expression = Annotated[str, BeforeValidator(_as_text), _TEXT_OR_NUMBER]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Shape = list[Annotated[str, BeforeValidator(_as_text), _TEXT_OR_NUMBER]]


def _several(value: Any) -> str:
    return "several" if isinstance(value, list) else "one"


def _memories(value: Any) -> str:
    return "memories" if isinstance(value, dict) else _several(value)


Expressions = Annotated[
    Annotated[Expression, Tag("one")] | Annotated[list[Expression], Tag("several")],
    Discriminator(_several),
]


class Section(BaseModel):
    """A mapping of the file.  An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Run(Section):
    """How to train.  Only `batch` can change the graph; `memory` changes how it is computed."""

    batch: Count = 16
    """Sequences in one step; each has its own memory state."""
    steps: Count = 2000
    """Optimiser steps."""
    warmup: Annotated[int, Field(ge=0)] = 100
    """Steps over which the rate of every level rises from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the rate does after the warm-up; one factor serves all levels."""
    clip: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Largest gradient norm of a level at its own update; 0 leaves gradients alone."""
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of the computation; states, accumulators and optimiser states are at least float32."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of initial values and of the order of the data."""
    memory: Annotated[str, BeforeValidator(_as_text), _TEXT_OR_NUMBER] = "4 GB"
    """What a step may take: `8 GB`, `512 MiB`.  Activations, and states of slower memories, that fit into it are kept
    for the backward pass, others are made again; the results are the same."""


class Fields(Section):
    """What a level says for all its memories, or a memory for itself."""

    every: Expression | None = None
    """Update frequency: `1 token`, `64 tokens`, `4k tokens`, `2 steps`, `1 sequence`, `never`."""
    chunk: Count | None = None
    """Gradients and default reads look at the first state of the running chunk of so many tokens; a multiple of
    `every`, default 1."""
    form: str | None = None
    """The map a memory is: matrix, mlp(hidden, depth, act, residual, norm, bias), swiglu, vector,
    attention(window, segment, persistent), or one defined under `forms:`."""
    objective: Expression | None = None
    """The inner loss a write descends: dot, l2 (default), lp(p), huber(d), loss, or an expression in M, k and v."""
    rule: str | None = None
    """The update rule: gd (default), dgd, momentum(beta), adamw(...); the same at every level."""
    rate: Expression | None = None
    """Learning rate, the rule's lr: a number (default 1), learned(0.05), or an expression over the block's values."""
    retain: Expression | None = None
    """The share of the old state that is kept: a number (default 1), learned(0.99), or an expression; scalar, per head
    or per key channel."""
    retain_to: Literal["zero", "start"] | None = None
    """Where what is not kept goes: to zero (default) or to the start."""
    grad_at: Literal["old", "kept"] | None = None
    """The gradient sees the state before retention (old, default) or after it (kept)."""
    keys: Expressions | None = None
    """Context flow: the expression of the keys; a list gives several pairs per token, in order."""
    values: Expressions | None = None
    """Context flow: the expression of the values; a memory may stand in its own values."""
    window: Expression | None = None
    """Each gradient is over the last so many pairs, this token's included. Default 1."""
    weigh: Expression | None = None
    """The weight of a pair in every window that sees it. Default 1."""
    read: Literal["chunk", "before", "after"] | None = None
    """Which state a read sees: the chunk's first (default), the previous token's, or this token's."""
    carry: str | None = None
    """Lifetime of the state: sequence (default), stream, model, or the name of a slower memory, which holds its start
    and at each of whose updates it begins again."""
    start: str | None = None
    """The first state: learned (default), learned(normal | zeros | identity), zeros, identity; random for carry: model;
    from(checkpoint:path, part=name): as a weight of a run or checkpoint, of the same name unless another is said."""
    meta: Literal["full", "first_order", "none"] | None = None
    """How slower levels learn through the writes. Default full."""
    tail: Literal["carry", "flush", "drop"] | None = None
    """What happens to a chunk or period that is unfinished at the end. Default carry."""
    out: Expression | None = None
    """Output width where it does not follow."""
    normalise_hidden: bool | None = None
    """Every hidden layer's activation is l2-normalised inside the form (mlp and swiglu), so that dgd erases with unit
    vectors. Default false."""


class MemoryFields(Fields):
    """A memory: its own fields, before those of its level."""


class Level(Fields):
    """Memories that share an update frequency (several frequencies: split by the compiler)."""

    name: str
    """The level's name; memories are found as level.memory."""
    memories: Annotated[
        Annotated[dict[str, MemoryFields], Tag("memories")]
        | Annotated[str, Tag("one")]
        | Annotated[list[str], Tag("several")],
        Discriminator(_memories),
    ]
    """The level's memories by name; or what an outer level owns: rest, or select(blocks.*, rank=2, except=*.conv)."""


class FormFields(Section):
    """A form of one's own."""

    state: dict[str, Shape]
    """What the memory learns, with shapes: {W: [out, in], b: [out]}."""
    do: str
    """Equations from x to y: y = x + W @ x + b."""


class Architecture(Section):
    """A spec: what learns, how often, from what, and by which rule."""

    nlc: Literal[1]
    """Version of the language."""
    name: Annotated[str, Field(min_length=1)]
    """Name of the spec; the run directory and the generated package carry it."""
    doc: str = ""
    """What it is, with its source."""
    extends: str | None = None
    """A shipped spec's name, or a file in this folder or below it: this spec's values replace that one's."""
    sizes: dict[str, Count] = {}
    """Sizes by name: width, heads, head, layers, vocab, context, and any others used in equations."""
    run: Run = Run()
    """How to train."""
    levels: list[Level] = []
    """What learns, fastest first by convention; the compiler orders them by frequency."""
    block: str | None = None
    """Equations of one block: x enters, the last x leaves."""
    blocks: dict[str, str] = {}
    """Several blocks by name."""
    stack: list[str] = []
    """The order of the blocks, repeated to `layers`; or with counts: [first, 11 * other]."""
    inputs: dict[str, Shape] = {}
    """Named streams of vectors: a bare program, without embedding and head."""
    outputs: list[str] = []
    """What a bare program returns."""
    tied: bool = True
    """The head uses the embedding's weights."""
    forms: dict[str, FormFields] = {}
    """Forms of one's own."""
    rules: dict[str, Annotated[Any, WithJsonSchema({"type": ["object", "string"]})]] = {}
    """Update rules of one's own by name: params, ranges and levels; or a rule file in this folder or below it. A rule
    file beside the spec needs no entry."""
    streams: dict[str, Shape] = {}
    """Further values that flow from block to block like x, starting at 0."""

    def known_sizes(self) -> dict[str, int]:
        """The sizes declared, and head = width / heads where that is whole and nothing else is said."""
        width, heads = self.sizes.get("width", 0), self.sizes.get("heads", 0)
        head = {"head": width // heads} if width and heads and width % heads == 0 else {}
        return self.sizes | ({} if "head" in self.sizes else head)

    def level(self, name: str) -> Level:
        """The level of that name.  Raises KeyError."""
        return {level.name: level for level in self.levels}[name]
