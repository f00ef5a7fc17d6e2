"""Judging a trained model: validation loss and bits per byte of a model in hand, or of a run directory."""

from runtime.evaluate.loss import Result, evaluate
from runtime.evaluate.run import evaluate_run

__all__ = ["Result", "evaluate", "evaluate_run"]
