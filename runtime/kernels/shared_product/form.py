"""Which shared product it is: everything a kernel takes as a constant, and the flow it knows.

A kernel cannot call a Python function, so it knows one family of flows, named by `Gates`:

    k = z_key / |z_key|,    v = z_value / |z_value| or z_value,    z a read of one query x in a box of its own
    rate = scale f(z_rate + shift), f sigmoid or softplus, or given
    keep = log sigmoid(z_keep + shift), given, or none
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

RATES = ("given", "sigmoid", "softplus")
KEEPS = ("none", "given", "sigmoid")


@dataclass(frozen=True)
class Gates:
    """A flow in the family, by the boxes that are read; rate, keep: "" where the flow makes that one of no read."""

    key: str
    value: str
    rate: str = ""
    keep: str = ""
    unit_value: bool = True
    rate_form: str = "given"  # of RATES
    rate_scale: float = 1.0
    rate_shift: float = 0.0
    keep_form: str = "none"  # of KEEPS
    keep_shift: float = 0.0


class Form(NamedTuple):
    """The constants of a kernel.  key, value, rate, keep: the first row of each among the rows that are read, or -1."""

    chunk: int
    key: int
    value: int
    rate: int
    keep: int
    erase: int
    l2: int
    kept: int
    to_start: int
    unit_value: int
    rate_kind: int  # of RATES
    keep_kind: int  # of KEEPS
