"""The grammar of the graph: every node type, its fields, one line of meaning each.

A graph describes one block per *kind* (`Graph.stack` says how the kinds are stacked into layers); a node of a block
stands for one copy per layer of that kind.  Nodes refer to each other by id; `flows` derives the typed edges from
those references, so an edge can never disagree with a node.

    Value  = Input | Number | Op | Read          something with a shape, one per token
    Weight                                       an ordinary parameter
    Memory                                       a register: read, and written by its level's rule
    Level                                        the memories and weights that share one update frequency
    Recurrence                                   how a group of memories is computed (passes chunks and share)
    Fused                                        operators that one kernel computes on the target (pass place)
    Output | Loss                                what leaves
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from typing import Any

from nlc.equations import names
from nlc.period import Period as Period
from nlc.period import Unit as Unit
from nlc.source import Position

Shape = tuple[int, ...]  # the axes after batch and token; () is one number per token


class When(Enum):
    """Which state a read sees."""

    CHUNK = "chunk"  # the first state of the running chunk
    BEFORE = "before"  # after the previous token's write
    AFTER = "after"  # including this token's write


class Carry(Enum):
    """How long a memory's state lives."""

    SEQUENCE = "sequence"
    STREAM = "stream"
    MODEL = "model"


class Meta(Enum):
    """How slower levels learn through a write."""

    FULL = "full"
    FIRST_ORDER = "first_order"
    NONE = "none"


class Tail(Enum):
    CARRY = "carry"
    FLUSH = "flush"
    DROP = "drop"


class Flow(Enum):
    """The kinds of edge."""

    DATA = "data"  # value -> value
    READS = "reads"  # memory -> its read
    QUERY = "query"  # value -> read
    KEY = "key"  # value -> memory
    VALUE = "value"  # value -> memory
    RATE = "rate"  # value -> memory
    RETAIN = "retain"  # value -> memory
    RULE = "rule"  # value -> memory, as a parameter of its rule
    OBJECTIVE = "objective"  # value -> memory, as a parameter of its objective
    WEIGHT = "weight"  # weight -> the operator that uses it
    ERROR = "error"  # loss -> memory or weight that an `objective: loss` level writes (gradient)
    INITIALISES = "initialises"  # weight, or what a slower memory holds -> memory whose start it is
    OWNS = "owns"  # level -> memory or weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    id: str
    at: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Input(Node):
    """A stream of vectors entering a block: `x` (the residual stream) or a named input of a bare program."""

    block: str
    name: str
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Node):
    """A constant written in an equation; a size used as a number becomes one too."""

    block: str
    value: float
    shape: Shape = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Op(Node):
    """One operator applied to values.  `op` is a key of nlc.operators.OPERATORS, arithmetic included (add, sub, mul,
    div, matmul, pow, neg, lt, le, gt, ge, eq, ne, slice, item).  `options` are its static arguments, sorted by name."""

    block: str
    op: str
    inputs: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()
    weights: tuple[str, ...] = ()
    name: str = ""  # the name assigned to it in the block ("" for an inner expression)
    version: int = 0  # 0 for the first assignment of that name, 1 for the next ...
    field: str = ""  # "titans.rate" when it belongs to a field rather than to the block
    shape: Shape | None = None  # set by pass shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Node):
    """memory(query): the memory's map applied to a value.  In a field, `when` is always CHUNK."""

    block: str
    memory: str
    query: str
    when: When
    name: str = ""
    version: int = 0
    field: str = ""
    shape: Shape | None = None


Value = Input | Number | Op | Read


class Init(Enum):
    NORMAL = "normal"  # N(0, scale^2)
    CONSTANT = "constant"  # every entry `scale`
    IDENTITY = "identity"  # scale * I on the last two axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight(Node):
    """An ordinary parameter.  `path` is its name below `blocks.<layer>.` (or the whole name for the frame's)."""

    block: str  # "" for the frame: one copy for the whole model
    path: str
    shape: Shape | None = None
    init: Init = Init.NORMAL
    scale: float | None = None  # None until shapes knows the fan-in: then in^-1/2
    decay: bool = False  # a linear weight, which weight decay touches
    owner: str = ""  # id of the level that updates it ("" when the host program owns it)
    owners: tuple[str, ...] = ()  # in each of its layers, where they differ; `owner` is then the first of them

    @property
    def by(self) -> tuple[str, ...]:
        """The levels that update it: one, or one for each of its layers."""
        return self.owners or (self.owner,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The map a memory is.  kind: matrix | mlp | swiglu | vector | attention | equations."""

    kind: str
    hidden: int = 0  # mlp, swiglu
    times: float = 0.0  # hidden as a multiple of the width in; shapes turns it into `hidden` and leaves 0
    depth: int = 2  # mlp: number of weight matrices
    act: str = "gelu"
    residual: bool = True  # y = x + ...; decided when widths are known (False where they differ)
    norm: str = "none"  # none | layernorm | rmsnorm, without gain, on the form's input
    bias: bool = False
    window: int = 0  # attention: tokens seen, itself included; 0 is all
    segment: int = 0  # attention: aligned segment; 0 is none
    persistent: int = 0  # attention: learned pairs always visible
    name: str = ""  # equations: what the spec calls it under `forms:`
    state: tuple[tuple[str, tuple[str, ...]], ...] = ()  # equations: each part, with the text of each axis
    body: tuple[Op | Number, ...] = ()  # equations: the values of `do`, in order; they start from "x" and the parts
    result: str = ""  # equations: the value that is y

    @property
    def called(self) -> str:
        """The form as a spec calls it."""
        return self.name or self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """A parameter of a rule's or objective's call: a number (or tuple, string, bool), or a value of the block.

    A rule's parameter that is a vector beside the pair's key has both: the number is "k"."""

    name: str
    number: Any = None
    value: str | None = None  # id of a Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The inner loss.  kind: dot | l2 | lp | huber | loss | expression; then `tree` is an Expr in M, k and v."""

    kind: str
    params: tuple[Param, ...] = ()
    tree: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleMemory:
    """A memory inside a rule: a map trained on the columns of two matrices, by gradient descent, once at each run."""

    name: str
    form: Form  # without biases; `hidden` or `times` as the rule says
    keys: Any  # Expr
    values: Any  # Expr
    objective: str  # dot | l2
    lr: Any  # Expr
    before: bool  # the program reads the state before this run's write
    start: str  # identity | zeros
    inner: tuple[int, int]  # width in, as multiples of (rows, cols)
    outer: tuple[int, int]  # width out


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLevel:
    """One level of an update rule: its period counted in updates, its named state (all start at zero), its program."""

    period: int
    state: tuple[str, ...]
    do: tuple[Any, ...]  # equations.Assign statements
    memories: tuple[RuleMemory, ...] = ()

    @property
    def sums(self) -> bool:
        """Whether it keeps a sum of the gradients between its updates: a slower one does, where it reads `grad`."""
        read = [line.value for line in self.do] + [t for m in self.memories for t in (m.keys, m.values, m.lr)]
        return self.period > 1 and any("grad" in names(tree) for tree in read)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An update rule as used: the program of specs/rules/<name>.yaml and the parameters given here.

    The program sees grad, weight, start, lr, retain, gram, count, rows, cols and its parameters; it sets `delta`
    (weight <- retain * weight + delta) or `weight`."""

    name: str
    params: tuple[Param, ...] = ()  # every parameter but lr, defaults filled in
    levels: tuple[RuleLevel, ...] = ()
    said: tuple[str, ...] = field(default=(), compare=False)  # the parameters that the spec gives


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`from(checkpoint:path, part=name)`: a run, a checkpoint or a file of weights, and the names that differ there."""

    path: str
    renamed: tuple[tuple[str, str], ...] = ()  # (name here, name there)
    at: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory(Node):
    """An associative memory: one register per layer of `block`.  All value references are ids of Values."""

    block: str
    name: str  # short name, as called in the block
    level: str  # id of its Level
    form: Form
    objective: Objective
    rule: Rule
    period: Period
    chunk: int = 1  # tokens that share one frozen state
    pairs: tuple[tuple[str, str], ...] = ()  # (key, value), in order; empty for objective loss
    rate: str = ""  # id of a Value; the rule's lr
    rate_varies: bool = False  # depends on the token (else a number or a learned parameter)
    retain: str = ""  # id of a Value; "" keeps all
    retain_to_start: bool = False
    grad_at_kept: bool = False
    window: int = 1
    weigh: str = ""
    read: When = When.CHUNK
    carry: Carry = Carry.SEQUENCE
    start: str = "learned"  # learned | zeros | identity | random
    nest: str = ""  # id of the memory that holds its start, and at each of whose updates its state begins again from it
    of: str = ""  # of a start that a slower memory holds: id of the memory whose reads teach it
    source: Source | None = None  # the checkpoint its weights begin as
    meta: Meta = Meta.FULL
    tail: Tail = Tail.CARRY
    normalise_hidden: bool = False
    heads: Shape = ()  # leading axes of its queries: one state per head
    inner: int = 0  # width in
    outer: int = 0  # width out
    weights: tuple[str, ...] = ()  # ids of its Weights: the start, or the weights themselves for carry model
    parts: tuple[tuple[str, Shape], ...] = ()  # of its state, heads included: M; W_in, b_in, W_out, b_out; m
    form_weights: tuple[str, ...] = ()  # ids of the Weights that its form's own equations use beside the state
    still: str = ""  # why no write would change it, where pass still has proved that: its period is then never
    said: tuple[tuple[str, Position], ...] = field(default=(), compare=False)  # where each field is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Weights by name and number of axes.  Patterns match whole names (`blocks.0.h.conv`); `rest` is `*`."""

    patterns: tuple[str, ...]
    rank: int | None = None
    excluded: tuple[str, ...] = ()
    at: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Level(Node):
    """Memories and weights with one update frequency.  Level 1 is the fastest; frozen weights have period never."""

    name: str
    period: Period
    objective: str = ""
    rule: Rule | None = None  # for a level that counts steps: the rule that updates its weights
    rate: float | None = None  # for a level that counts steps
    index: int = 0  # place in the order of Definition 2, from 1; set by pass levels
    memories: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()  # ids of the Weights it owns (levels that count steps)
    selects: tuple[Selection, ...] = ()  # what `memories: rest` or `select(...)` asks for
    source: Source | None = None  # the checkpoint that its weights begin as
    said: tuple[tuple[str, Position], ...] = field(default=(), compare=False)  # where each of its fields is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence(Node):
    """How a group of memories of one block is computed, with the reason.

    lowering: shared_product | linear | deep | periodic | loop | segment | weights | attention
      shared_product  every write is the state times one matrix, the same for all members      (chunk-parallel)
      linear          one triangular system per block of tokens                                (WY form)
      deep            gradients at the chunk's first state by hand-written factors, all tokens of a chunk at once
      periodic        written once in n tokens from the sum of their gradients
      loop            walked token by token, or chunk by chunk where its states feed its own writes
      segment         written at segment ends from the token-local loss
      weights         never written inside a sequence: ordinary shared weights
      attention       non-parametric
    """

    block: str
    lowering: str
    members: tuple[str, ...]  # Memory ids
    inside: tuple[str, ...] = ()  # Values computed inside the loop over chunks, in order
    chunk: int = 1
    block_length: int = 0  # tokens per closed-form block, the compiler's choice; 0 where there is none
    reason: str = ""
    facts: tuple[tuple[str, Any], ...] = ()  # what the lowering proved, for codegen
    kept: bool = False  # what the backward pass needs of its states is kept, not made again
    kernel: str = ""  # the kernel that computes it on the target; "": PyTorch
    placed: str = ""  # why; "" on a target without kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused(Node):
    """Operators that a kernel of the target computes together, or why none does."""

    block: str
    kernel: str  # convolution | gated_norm; "": PyTorch
    members: tuple[str, ...]  # Op ids, the last of which is the value
    placed: str  # why


@dataclass(frozen=True, slots=True, kw_only=True)
class Output(Node):
    """What leaves a block: `x`, or a named output of a bare program."""

    block: str
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss(Node):
    """Mean cross-entropy of the next token, in nats."""


AnyNode = Input | Number | Op | Read | Weight | Memory | Level | Recurrence | Fused | Output | Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How to train: everything but `batch` leaves what the graph means unchanged."""

    batch: int = 16
    steps: int = 2000
    warmup: int = 100
    schedule: str = "cosine"
    clip: float = 1.0
    precision: str = "float32"
    seed: int = 0
    memory: int = 4_000_000_000  # bytes that a step may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Set by pass cost."""

    parameters: int
    state_bytes: int  # per sequence, float32
    flops: int  # per token, forward
    activation_bytes: int  # saved for backward, per token
    by_node: tuple[tuple[str, int, int, int, int], ...] = ()  # (id, parameters, state bytes, flops, activations)
    span: int = 0  # tokens whose activations are in memory at a time (pass keep); 0: those of the whole context


def per_step(period: Period, tokens_per_step: int) -> Fraction:
    """Updates per optimiser step of a period counted in tokens or steps; never is 0."""
    match period.unit:
        case Unit.NEVER:
            return Fraction(0)
        case Unit.STEP:
            return Fraction(1, period.count)
        case _:
            return Fraction(tokens_per_step, max(1, period.count))
