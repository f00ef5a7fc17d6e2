"""Which model is to solve each shipped task at a size of minutes: what `python bench/tasks.py` runs.

A system is a shipped spec or a file of bench/systems.  Tasks are made easier by their own knobs alone, and the accuracy
at which one counts as solved is the task's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SYSTEMS = Path(__file__).parent / "systems"
SMALL = {"sizes.width": 64, "sizes.heads": 2, "sizes.layers": 2, "run.batch": 32, "run.warmup": 100}
ONE_LAYER = {"sizes.layers": 1}
NARROW = {"sizes.width": 32, "sizes.layers": 1}
TURNED = {"sizes.width": 128, "sizes.heads": 4, "sizes.layers": 1, "run.batch": 256}


@dataclass(frozen=True, slots=True)
class Setting:
    """steps: 0 is as many as the task has.  rate: of AdamW, the spec's own if None.  items: of each test set."""

    task: str
    system: str
    steps: int
    rate: float | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)  # other ones than SMALL
    items: int = 512

    @property
    def spec(self) -> str:
        """What `nlc train` is given."""
        own = SYSTEMS / f"{self.system}.yaml"
        return str(own) if own.is_file() else self.system

    @property
    def sets(self) -> dict[str, str]:
        """What it is told beside the spec."""
        sets = {path: str(value) for path, value in {**SMALL, **self.sizes}.items()}
        if self.rate is not None:
            sets["levels.train.rule"] = f"adamw(lr={self.rate}, betas=(0.9, 0.95), weight_decay=0.1)"
        return sets


SOLVERS = (
    Setting("mqar(context=32, pairs=4, vocab=32)", "transformer", 400),
    Setting("memorisation(vocab=65)", "transformer", 400),
    Setting("class_incremental(mixed=1, passes=2)", "transformer", 0, items=64),
    Setting("fuzzy_recall", "recalling", 300, 4e-3, ONE_LAYER),
    Setting("in_context_recall", "recalling", 100, 4e-3, ONE_LAYER),
    Setting("noisy_recall", "recalling", 200, 4e-3, ONE_LAYER),
    Setting("compression(context=31, copies=15)", "transformer", 100, 4e-3),
    Setting("parity(context=20)", "signed", 400, 8e-3, NARROW),
    Setting("aa(context=48, longest=20)", "signed", 200, 8e-3, NARROW),
    Setting("abab(context=48, longest=20)", "signed", 200, 8e-3, NARROW),
    Setting("s3(context=16)", "product2", 1000, 8e-3, NARROW),
    Setting("s5(context=12)", "product4", 600, 4e-3, TURNED),
    Setting("shuffle2(context=20)", "transformer", 600, 4e-3),
    Setting("anbn(context=48, longest=20)", "product2", 400, 8e-3, NARROW),
    Setting("anbncn(context=48, longest=21)", "product2", 400, 8e-3, NARROW),
    Setting("selective_copying(context=32, copies=4, vocab=10)", "product2", 500, 4e-3),
    Setting("passkey", "naming", 200, 4e-3, ONE_LAYER, items=128),
    Setting("number", "naming", 200, 4e-3, ONE_LAYER, items=128),
    Setting("word", "naming", 200, 4e-3, ONE_LAYER, items=128),
    Setting("multi_key", "naming", 200, 4e-3, ONE_LAYER, items=128),
    Setting("multi_query", "naming", 200, 4e-3, ONE_LAYER, items=128),
    Setting("multi_value(context=256)", "counting", 250, 4e-3, ONE_LAYER, items=64),
)
