"""Does the compiled program mean what the spec says?  Interpreter against generated PyTorch, case by case.

    report = verify("hope")          # small sizes, periods short enough that every level fires
    report.passed, report.lines()

Every case compares outputs, states and the gradient of every weight, in float64 to 1e-9 relative, in float32 to 1e-3.
"""

from nlc.verify.judge import FLOAT32, FLOAT64, Outcome, Report, verify
from nlc.verify.rules import verify_rule
from nlc.verify.small import small_settings

__all__ = ["FLOAT32", "FLOAT64", "Outcome", "Report", "small_settings", "verify", "verify_rule"]
