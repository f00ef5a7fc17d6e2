"""The stable codes of everything the compiler refuses: title, explanation, example.  `nlc explain CODE` prints them.

A new code is a paragraph of the text below: the code and its title, the explanation, the example (indented).  Codes are
never given away again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from textwrap import dedent


@dataclass(frozen=True, slots=True)
class Code:
    title: str
    explanation: str
    example: str


_TEXT = """
# 01: the text of a file

NLC0101 no such spec
A spec is a path, the name of a shipped spec, or - for standard input.
    nlc check hoep   # did you mean 'hope'?

NLC0102 a file too large
A spec is a page or two of text; a file of more than 256 kB is not read.
    nlc check weights.safetensors

NLC0103 not text
A spec is UTF-8 text. This file holds other bytes, so it is not a spec; or an escape in it names half of a
surrogate pair, which is no character.
    nlc check model.bin

NLC0104 an empty file
The file holds nothing, or only comments.
    nlc: 1
    name: mine

NLC0105 a tab in the indentation
YAML does not allow tabs in indentation. Use spaces.
    sizes:
    \twidth: 64     # two spaces instead of the tab

NLC0106 not YAML
The text cannot be read as YAML 1.2 at this place.
    sizes: {width: 64     # } is missing

NLC0107 a duplicate key
One mapping says the same key twice, so one of the two would be lost.
    rate: 0.1
    rate: 0.2

NLC0108 too large once aliases are filled in
Anchors and aliases (&a, *a) may be used, as long as the whole stays small: at most 20000 values, 40 deep, and
no alias inside its own anchor.
    a: &a [x, x]
    b: &b [*a, *a]
    c: &c [*b, *b]   # doubles with every line

NLC0109 YAML that a spec does not use
A spec is one document of plain data: no tags (!!python/...), no merge keys (<<), no second document.
    name: !!python/name:os.system

NLC0110 an expression cut by { }
Inside { } and [ ] YAML ends a value at a comma. An expression with a comma must be quoted there.
    {form: 'mlp(hidden=4x, bias=true)', every: 64 tokens}

# 02: keys and types

NLC0201 an unknown key
Keys that the language does not know are refused, so that a misspelt one cannot be lost. Keys that begin with
x- are notes.
    levels:
      - name: titans
        evry: 1 token      # every

NLC0202 a wrong type
The value has another type than the key asks for. YAML 1.2 is read: no, yes, on and off are words, true and
false are booleans.
    tied: no      # write false

NLC0203 something is missing
A key that has no default is not there.
    name: mine     # sizes.width is needed to build anything

NLC0204 not one of the choices
The key takes one of a few words.
    read: befor   # chunk, before or after

NLC0205 a number out of range
Sizes and counts are whole and positive.
    sizes: {width: 0}

NLC0206 a loop of extends
A spec extends another that, in the end, extends it.
    a.yaml:  extends: b.yaml
    b.yaml:  extends: a.yaml

NLC0207 extends leaves the folder
A spec may extend a shipped spec by name, or a file in the folder of the spec being loaded or below it: a spec
cannot read the rest of the disk.
    extends: ../../secret.yaml

NLC0208 nothing to extend
The file or the shipped spec named by extends is not there.
    extends: hop     # hope

NLC0209 --set of something that is not there
--set names a field by its path: levels and memories by name. It changes what the spec has; it does not make
new levels or memories.
    --set levels.titan.rate=0.1    # levels.titans.rate

NLC0210 another kind of file
The file is a rule, a search or another version of the language, where an architecture is expected.
    nlc: 2

NLC0211 one name, twice
Levels, memories and outputs are found by their names, so every name is used once.
    levels:
      - name: a
      - name: a

NLC0212 not a name
Names of levels, memories, sizes, blocks, streams and weights are words: letters, digits and _.
    memories: {my-key: {form: matrix}}    # my_key

# 03: equations

NLC0301 an unexpected character
The block language has names, numbers, calls, + - * / @ **, comparisons, lists and slices.
    x = a ? b : c

NLC0302 brackets that do not match
Every ( and [ closes, in order.
    x = linear(rmsnorm(x)

NLC0303 attribute access
Equations are data, not Python: values have no attributes and no methods.
    x = x.T      # transpose(x)

NLC0304 not an expression
The block language is a small subset of Python's expressions; this is outside it.
    x = [f(v) for v in x]

NLC0305 not an assignment
A block is a list of assignments, one per line.
    linear(x)      # x = linear(x)

NLC0306 not a name with parameters
A form, rule or start is a name, with parameters in brackets where it takes some.
    form: 4x     # mlp(hidden=4x)

NLC0307 an equation too long or too deep
Give parts of it names; the compiled program is the same.
    a = f(f(f(f(...))))

NLC0308 not a finite real number
Arithmetic on numbers and sizes is done by the compiler, and its result is a finite real number. Nothing is divided by 0.
    x = x / (heads - 2)     # of two heads

# 04: fields

NLC0401 not a period
A period is a count and a unit: tokens, sequences or steps; or never. k and M stand for thousands and millions.
That of a rule's level counts updates.
    every: 64        # 64 tokens

NLC0402 an unknown update rule
Rules are those under `rules:` of the spec, rule files beside it, and the shipped ones.
    rule: dgdd       # dgd

NLC0403 an unknown form
A form is matrix, mlp, swiglu, vector, attention or one defined under forms:.
    form: matrx      # matrix

NLC0404 an unknown objective
An objective is dot, l2, lp(p), huber(d), loss, or an expression in M, k and v whose gradient depends on M.
    objective: l3    # l2

NLC0405 a parameter that does not fit
The form, rule, objective or start does not take a parameter of this name, takes one that is not given, or
takes another kind of value or another range of numbers.
    rule: adamw(beta=0.9)    # betas=(0.9, 0.999)

NLC0406 an unknown start
A start is learned, learned(normal), learned(zeros), learned(identity), zeros or identity, or random for carry:
model.
    start: ones

NLC0407 not a selection
memories: of a level is a mapping of memories, rest, or select(pattern, rank=..., except=pattern).
    memories: all    # rest

NLC0408 two learning rates
rate is the rule's lr; only one of the two can be given.
    rate: 0.1
    rule: gd(lr=0.2)

NLC0409 not a stack
A stack lists blocks by name, each with an optional count, and every block at least once.
    stack: [first, 11 * other]

NLC0410 not a rule
A rule's program sets delta or weight from grad, weight, start, lr, retain, k, v, x, error, gram, count, rows, cols, its
parameters and its states. It reads every parameter and state that it has, and each state has one writer.
    do: m = beta * m       # and delta?

NLC0411 fields that do not go together
Two fields of this level or memory contradict each other, or one says nothing beside what the others say.
    meta: none
    start: learned     # nothing would train the start

NLC0412 not a form of one's own
A form under forms: has a state of matrices and vectors, each of which reaches y. A matrix is applied once, as W @ a;
a vector may be used freely. Its equations start from x and the state, and use operators that look at one token.
    ttt: {state: {W: [out, in]}, do: 'y = x * W'}    # y = W @ x

NLC0415 a checkpoint that cannot be read
start: from(checkpoint:path) names a run, one of its checkpoints or a .safetensors file, relative to the file that
says so (on the command line, to the folder one is in). It is not there, or not whole.
    start: from(checkpoint:runs/frist)    # runs/first

NLC0416 a checkpoint that does not fit
No weight of the checkpoint has the name of one that is to begin so, a weight has another shape or is not of finite
floats, or a name given is not there. Names that differ are said: from(checkpoint:path, W_in=x.linear).
    start: from(checkpoint:runs/wide)     # whose width is another

NLC0417 not a size of memory
A size is a number with its unit: B, KB, MB, GB and TB are powers of 1000, KiB, MiB, GiB and TiB of 1024.
    run: {memory: 8}      # 8 GB

# 05: names

NLC0501 an undefined value
An equation reads a name that no earlier line assigns and that is no size.
    x = x + hh       # h

NLC0502 an unknown operator
A call is an operator of the language or a memory of a level.
    x = linar(x)     # linear

NLC0503 an unknown size
A size used in an equation or a shape, or changed by a search, is declared under sizes:.
    inputs: {k: [heads, hed]}

NLC0504 a name with two meanings
A field reads a name that the block assigns more than once, one name is both a memory and a value, or an input is
called like an argument that the layer has anyway.
    block: |
      h = linear(x)
      h = silu(h)     # and rate: sigmoid(h)

NLC0505 arguments that do not fit
The operator takes other arguments.
    h = conv(x)      # conv(x, 4)

# 06: shapes

NLC0601 shapes that do not meet
Shapes align from the left; equal, one a prefix of the other, or a single number.
    x + heads(x)     # [width] and [heads, head]

NLC0602 a size that does not divide
A width is divided among heads or parts, so it is a multiple of their number.
    sizes: {width: 100, heads: 3}

NLC0603 a width that is not known
Nothing says how wide this value or memory is: give out:.
    memories: {m: {form: matrix, keys: k, values: m(v)}}

# 07: clocks

NLC0701 not a whole number of steps
A memory carried by the model is written at steps; a step is run.batch x sizes.context tokens.
    every: 1500 tokens
    carry: model

NLC0702 a chunk that does not fit its period
chunk is a multiple of every.
    every: 3 tokens
    chunk: 64

NLC0703 a clock that does not fit
The period and the carry of the memory contradict each other.
    every: 2 steps
    carry: sequence

# 08: causality

NLC0801 a cycle within a token
A value depends on itself within one token. A cycle is legal when it passes through a memory's state, prev or
another register.
    k = l2norm(q)
    q = l2norm(k)

# 09: levels and gradients

NLC0901 a memory never read
The memory is written, but no equation reads it.
    memories: {m: ...}     # and no m(...) in the block

NLC0902 a memory never written
Nothing says what the memory learns from. Say every: never if that is meant.
    memories: {m: {form: matrix}}

NLC0903 reached by no objective
No gradient reaches the memory or the weight.
    y = stop(linear(x))

NLC0904 nothing for a level to learn
The level owns no memory and no weight.
    memories: select(blocks.*.nothing)

NLC0905 an input, a stream, a form or a rule that nothing uses
A bare program asks for this stream of vectors, and no equation, field or output names it; or no block assigns, or none
reads, a stream that flows from block to block; or no level or memory names a form or a rule that the spec defines.
    inputs: {k: [head], v: [head], w: [head]}     # and no w in the block

# 11: tasks

NLC1101 no such task
A task is a file, or the name of a shipped task, with other knobs in brackets.
    nlc train hope --task mqr     # mqar, or mqar(pairs=16)

NLC1102 an unknown kind of items
items: says what makes the items of a task; the kinds are part of the runtime.
    items: asociative     # associative

NLC1103 an unknown knob
Each kind of items has its own knobs, and a task gives all of them.
    knobs: {context: 64, vocab: 64, pair: 8, power: 0.01}     # pairs

NLC1104 knobs that do not go together
Each knob is in its range, and yet no item can be made of them.
    knobs: {context: 16, vocab: 64, pairs: 8, power: 0.01}     # 8 pairs and their queries take 32 tokens

# 12: searches

NLC1201 no such search
A search is a file, or the name of a shipped one.
    nlc search which-rul --out build/search     # which-rule

NLC1202 not an axis
An axis has a list of different values for a path of the spec; or choices, which have names and change several things
each. Several bases are an axis of their own.
    axes: {levels.titans.chunk: []}     # [16, 64]

NLC1203 a condition that cannot hold
when: names axes said before, and values that they have where they apply themselves.
    axes:
      rule: {choices: {plain: {levels.titans.rule: gd}}}
      levels.titans.chunk: {values: [16, 64], when: {rule: dgd}}     # plain

NLC1204 a score that is not there
A score is named for a task of the search, then for a metric, with a test set of the task in between unless it is the
first; a rung ranks by one of its own tasks, the last one by the score of the search where that says one.
    tasks: [mqar]
    rank_by: parity.accuracy     # mqar.accuracy

NLC1205 parts of a search that do not go together
A budget or a rung says the same thing in two ways, leaves open when the search ends, or leaves nothing for a part of it;
a grid has more than 100,000 combinations; a batch is too small for its sampler; a size is changed that all tasks set.
    sampler: random     # and budget: {trials: 24}

NLC1206 a budget that cannot be met
At no size is the variant within the budget of its search; or one step of a run has more tokens than the run.
    budget: {params: 100}

NLC1207 a name that folders cannot have
Folders are called after a search and its tasks: letters, digits, spaces, - and _, at most 64 of them.
    search: ../mine     # mine

# 10: not supported yet

NLC1001 not supported yet
The language has this; this version of the compiler does not lower it yet.
    every: 2 tasks   # at a level that owns ordinary weights
"""


def _read(text: str) -> dict[str, Code]:
    found: dict[str, Code] = {}
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.startswith("#"):
            continue
        head, *rest = paragraph.splitlines()
        code, _, title = head.partition(" ")
        example = [line for line in rest if line.startswith("    ")]
        found[code] = Code(title, " ".join(line for line in rest if line not in example), dedent("\n".join(example)))
    return found


CODES: dict[str, Code] = _read(_TEXT)
