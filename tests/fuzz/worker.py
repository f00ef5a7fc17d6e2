"""One process that checks programs: `kind seed` lines in, one line of JSON out for each.

python -m tests.fuzz.worker MEGABYTES      programs
python -m tests.fuzz.worker twin           specs as JSON strings in, digests of what they compile to out
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import traceback
from time import perf_counter
from typing import Any

from tests.fuzz.choices import Choose

DRAWN = ("legal", "layer", "illegal", "objective")  # and "mutation"


def made(kind: str, seed: int) -> Any:
    """The program that a kind and a seed mean, on every machine."""
    from tests.fuzz.illegal import broken
    from tests.fuzz.legal import layer, program
    from tests.fuzz.mutations import mutation
    from tests.fuzz.objectives import objectives

    makers = {"legal": program, "layer": layer, "illegal": broken, "objective": objectives, "mutation": mutation}
    return makers[kind](Choose.seeded(seed))


def judged(kind: str, seed: int, twin: Twin | None) -> dict[str, Any]:
    """A line of the journal."""
    from tests.fuzz.agreement import Disagreement, check
    from tests.fuzz.illegal import refused
    from tests.fuzz.mutations import known

    line: dict[str, Any] = {"kind": kind, "seed": seed, "ok": True}
    began = perf_counter()
    one = None
    try:
        one = made(kind, seed)
        if kind == "mutation":
            line |= {"edits": [name for name, _ in one.edits], "said": [said for _, said in one.edits]}
        if kind == "illegal":
            line |= {"what": one.what, "code": refused(one)}
        elif kind == "mutation" and one.error is not None:
            line |= {"code": known(one)}
        else:
            verdict = check(one, twin.digest if twin else None)
            line |= {"error": verdict.error, "overflows": verdict.overflows, "covers": verdict.covers}
    except Disagreement as error:
        line |= {"ok": False, "claim": error.claim, "message": str(error)[:2000]}
    except Exception as error:
        last = traceback.format_exc()[-2000:]
        line |= {"ok": False, "claim": "traceback", "message": f"{type(error).__name__}: {error}\n{last}"}
    if not line["ok"] and one is not None:
        line["text"] = one.text
        line["fed"] = repr(getattr(one, "feeding", ""))
    return line | {"seconds": round(perf_counter() - began, 3)}


class Twin:
    """Another process, of another hash seed, that compiles the same specs."""

    def __init__(self) -> None:
        seed = str(
            1 + int(os.environ.get("PYTHONHASHSEED", "0") or 0) if os.environ.get("PYTHONHASHSEED") != "random" else 1
        )
        command = [sys.executable, "-m", "tests.fuzz.worker", "twin"]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def digest(self, text: str) -> str:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def answer_as_twin() -> None:
    from tests.fuzz.agreement import accepted, digest

    for line in sys.stdin:
        try:
            print(digest(accepted(json.loads(line))), flush=True)
        except Exception as error:
            print(f"{type(error).__name__}", flush=True)


def main(megabytes: int) -> None:
    import torch

    torch.set_num_threads(1)
    limit = megabytes << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    twin = Twin()
    for line in sys.stdin:
        kind, seed = line.split()
        print(json.dumps(judged(kind, int(seed), twin)), flush=True)
    twin.close()


if __name__ == "__main__":
    if sys.argv[1] == "twin":
        answer_as_twin()
    else:
        main(int(sys.argv[1]))
