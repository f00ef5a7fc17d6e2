"""Tasks whose items are made on this machine: recall, state tracking, a needle in a haystack.

draw (random numbers of one item) -> a kind (recall, tracking, languages, needle) -> task (splits) -> score
"""

from runtime.evaluate.tasks.items import Items
from runtime.evaluate.tasks.score import Score, Share, score
from runtime.evaluate.tasks.task import Task

__all__ = ["Items", "Score", "Share", "Task", "score"]
