"""Training steps that are recorded as operations: `nlc train --compile` and `nlc train --tape`.

a step (recorded) -> tape -> regions, equal ones compiled once (compiler) -> a program that computes what the step did
                          -> a function of one line for each operation (repeated), the same
"""

from runtime.compiled.compiler import Compiled, refusal
from runtime.compiled.repeated import Repeated

__all__ = ["Compiled", "Repeated", "refusal"]
