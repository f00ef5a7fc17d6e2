"""Each lowering the passes chose, as the call or loop that computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codegen.memories import attention, frozen, one_memory
from codegen.products import shared_product
from codegen.walks import walk
from nlc.graph.nodes import Read, Recurrence

if TYPE_CHECKING:
    from codegen.block import Emitter


def compute(emitter: Emitter, recurrence: Recurrence, read: Read | None) -> None:
    """Emit what gives `read` its value; without one, whatever still has to be computed for the state's sake."""
    match recurrence.lowering:
        case "weights" | "segment":
            for one in [read] if read else []:
                frozen(emitter, recurrence, one)
        case "attention":
            attention(emitter, recurrence, read)
        case "shared_product":
            shared_product(emitter, recurrence, read)
        case "loop" if recurrence.inside:
            walk(emitter, recurrence)
        case _:
            one_memory(emitter, recurrence)
