"""Reference form of every operator, memory and rule that generated code calls."""

from runtime.ops.attention import attention
from runtime.ops.forms import Matrix, Mlp, Swiglu, Vector, read
from runtime.ops.memory import Write, memory
from runtime.ops.past import own_errors, past
from runtime.ops.periodic import ended, periodic
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
