"""The reference meaning of a spec: float64, one token at a time, one sequence at a time.

Plain loops over sequences, tokens and layers; torch differentiates what is written, writes included.  Nothing is fused,
no closed form is used, and nothing here is shared with the lowering, which must agree with it.
"""

from nlc.interpret.program import Result, interpret

__all__ = ["Result", "interpret"]
