"""Reference form of every operator, memory and rule that generated code calls."""

from runtime.ops.basic import (
    align,
    apply_matrix,
    causal_conv,
    exact_l2norm,
    exact_layernorm,
    heads,
    l2norm,
    layernorm,
    linear,
    merge,
    newton_schulz,
    newton_schulz_bfloat16,
    norm,
    outer,
    poly,
    previous,
    readout,
    rmsnorm,
    root,
    rope,
    softplus,
    trace,
)
from runtime.ops.boxes import Boxes
from runtime.ops.equations import Equations
from runtime.ops.forms import Matrix, Mlp, Swiglu, Vector, read
from runtime.ops.gated import gated_norm
from runtime.ops.history import own_errors, past
from runtime.ops.memories import Write, memory
from runtime.ops.periods import ended, periodic
from runtime.ops.recurrence import log_share
from runtime.ops.remembered import Remembered
from runtime.ops.segment import Call, Learner, held, now, segments
from runtime.ops.shared import shared_product
from runtime.ops.short_convolution import convolution
from runtime.ops.softmax import attention

__all__ = [
    "Boxes",
    "Call",
    "Equations",
    "Learner",
    "Matrix",
    "Mlp",
    "Remembered",
    "Swiglu",
    "Vector",
    "Write",
    "align",
    "apply_matrix",
    "attention",
    "causal_conv",
    "convolution",
    "ended",
    "exact_l2norm",
    "exact_layernorm",
    "gated_norm",
    "heads",
    "held",
    "l2norm",
    "layernorm",
    "linear",
    "log_share",
    "memory",
    "merge",
    "newton_schulz",
    "newton_schulz_bfloat16",
    "norm",
    "now",
    "outer",
    "own_errors",
    "past",
    "periodic",
    "poly",
    "previous",
    "read",
    "readout",
    "rmsnorm",
    "root",
    "rope",
    "segments",
    "shared_product",
    "softplus",
    "trace",
]
