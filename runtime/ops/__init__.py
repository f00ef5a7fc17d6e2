"""Reference form of every operator, memory and rule that generated code calls."""

from runtime.ops.softmax import attention
from runtime.ops.forms import Matrix, Mlp, Swiglu, Vector, read
from runtime.ops.memories import Write, memory
from runtime.ops.history import own_errors, past
from runtime.ops.periods import ended, periodic
from runtime.ops.segment import Call, Learner, held, now, segments
from runtime.ops.shared import read_chunks, shared_product
from runtime.ops.basic import (
    align,
    apply_matrix,
    causal_conv,
    heads,
    l2norm,
    layernorm,
    linear,
    merge,
    newton_schulz,
    norm,
    outer,
    poly,
    previous,
    readout,
    rmsnorm,
    rope,
    trace,
)
