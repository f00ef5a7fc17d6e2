"""What a run says on standard output when it is over."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtime.errors import DATA_MISSING
from runtime.progress import duration

REASON = "TORCHELASTIC_ERROR_FILE"  # set by torchrun


def say(result: Mapping[str, Any], as_json: bool = False) -> int:
    """Print it; the exit status.  A reader that has left, as `| head` does, is no failure."""
    try:
        print(text(result, as_json), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: standard output: {error.strerror or error}", file=sys.stderr, flush=True)
        return DATA_MISSING
    return 0


def fail(message: str, status: int, as_json: bool) -> None:
    """Why a run ends, on stderr, where its progress is; and as JSON in place of the result."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    if as_json:
        say({"ok": False, "status": status, "error": message}, as_json)


def keep(message: str, status: int) -> None:
    """Why this process fails, for the launcher that started it together with others, in the file that it named.

    Written before the others can notice, so that theirs is never taken for the cause.  Alone, nothing is written.
    """
    if place := os.environ.get(REASON):
        now = time.time()
        why = {"message": message, "timestamp": int(now), "seconds": now, "status": status}
        with suppress(OSError):  # the exit status still says it
            Path(place).write_text(json.dumps(why), encoding="utf-8")


def text(result: Mapping[str, Any], as_json: bool = False) -> str:
    """A few lines for a person, or the whole result as JSON."""
    if as_json:
        return json.dumps(result, indent=1)
    r = result
    fires = "  ".join(f"{name} {count:,}" for name, count in r["fires"].items())
    plot = [Path(r["plot"]).name] if r["plot"] else []
    made = ", ".join([*plot, "metrics.jsonl", f"checkpoints/{Path(r['checkpoint']).name}"])
    speed = f"{duration(r['seconds'])} ({r['tokens_per_s']:,.0f} tokens/s)"
    if "val_accuracy" in r:
        sure = f"95 %: {100 * r['val_low']:.1f} to {100 * r['val_high']:.1f}; chance {100 * r['chance']:.3g}"
        judged = f"{100 * r['val_accuracy']:.1f} % of {r['val_answers']:,} answers right ({sure})"
    else:
        judged = f"{r['val_bits_per_byte']:.4f} bits per byte ({r['val_loss']:.4f} nats, on {r['val_tokens']:,} tokens)"
    return "\n".join(
        [
            f"{r['name']}: {r['steps']:,} steps, {r['tokens']:,} tokens in {speed}",
            f"validation    {judged}",
            f"levels fired  {fires}",
            f"in {r['run']}: {made}",
        ]
    )
