"""Training steps that are recorded as operations: `nlc train --compile` and `nlc train --tape`.

a step (recorded) -> tape -> regions, equal ones compiled once (compiler) -> a program that computes what the step did
                          -> calls of its operations on places in memory that stay (repeated, calls), the same
"""

from runtime.compiled.compiler import Compiled, refusal
from runtime.compiled.repeated import Repeated

__all__ = ["Compiled", "Repeated", "refusal"]
