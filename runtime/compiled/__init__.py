"""Training steps compiled by torch's inductor: `nlc train --compile`.

recording of a step (tape) -> regions, equal ones compiled once -> a program that computes what the step did
"""

from runtime.compiled.compiler import Compiled, refusal

__all__ = ["Compiled", "refusal"]
