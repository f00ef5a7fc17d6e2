"""`nlc generate`: a trained model goes on with a text, token by token.  Torch is imported when it does."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlc.cli.common import DeviceOption, JsonOption, Status, Stop, calm_threads, note, say_json

if TYPE_CHECKING:
    from runtime.session import Sampling, Session

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, one of its checkpoints, or a compiled package.")
]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", metavar="FILE", help="For a package: .safetensors, or a checkpoint.")
]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", metavar="FILE", help="For a package: its tokenizer.json, if it has one.")
]
LearnOption = Annotated[
    str | None,
    typer.Option("--learn", metavar="on|off|LEVEL,...", help="Which levels inside a sequence learn from what is read."),
]
StateOption = Annotated[
    Path | None, typer.Option("--state", metavar="STATE", help="Go on from a saved state, not from the beginning.")
]
AllowOption = Annotated[
    bool, typer.Option("--allow", help="Go on with a state although the weights are others of the same program.")
]


def register(app: typer.Typer) -> None:
    app.command()(generate)


def generate(
    run: RunArgument,
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="Text to go on with; - is standard input.")
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option("--prompt-file", metavar="FILE", help="The prompt from a file; - is standard input.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=0, help="Tokens to generate.")] = 200,
    temperature: Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int, typer.Option("--top-k", help="Draw from so many of the likeliest; 0 is all.")] = 0,
    top_p: Annotated[float, typer.Option("--top-p", help="Draw from the likeliest with this share together.")] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, max=2**63 - 1, help="Of what is drawn; otherwise 0, or where the state left off."
        ),
    ] = None,
    learn: LearnOption = None,
    state: StateOption = None,
    save_state: Annotated[
        Path | None, typer.Option("--save-state", metavar="STATE", help="Keep the state after the last token.")
    ] = None,
    weights: WeightsOption = None,
    tokenizer: TokenizerOption = None,
    allow: AllowOption = False,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
) -> int:
    """Go on with a text, token by token, learning from what is read and written.

    Example: nlc generate runs/first 'def main(' --tokens 100
    """
    if prompt is not None and prompt_file is not None:
        raise Stop(Status.USAGE, "PROMPT and --prompt-file both say what to go on with: give one")
    calm_threads()
    with told():
        from runtime.session import Sampling, saved

        if save_state is not None:
            saved.keep_others(save_state)
        sampling = Sampling(temperature, top_k, top_p)
        text, name = prompt_text(prompt, prompt_file)
        session = opened(run, state, learn, seed, weights, tokenizer, allow, device)
        ids = session.ids(text, name)
        status, facts = written(session, ids, tokens, sampling, show=not json_, save=save_state)
    if json_:
        say_json(facts)
    note(summary(facts))
    return status


@contextmanager
def told() -> Iterator[None]:
    """An error of a run ends the command with its message and status.  Subnormal numbers count as 0 meanwhile."""
    from runtime.errors import RunError
    from runtime.numerics import subnormals_flushed

    try:
        with subnormals_flushed():
            yield
    except RunError as error:
        raise Stop(error.status, str(error)) from None


def prompt_text(prompt: str | None, file: Path | None) -> tuple[bytes, str]:
    """The bytes to go on with, and what to call them."""
    from nlc.spec.text import standard_input
    from runtime.session import text_of

    if prompt == "-" or (file is not None and str(file) == "-"):
        return standard_input(), "standard input"
    if file is not None:
        return text_of(file), str(file)
    return os.fsencode(prompt or ""), "the prompt"


def opened(
    run: Path,
    state: Path | None,
    learn: str | None,
    seed: int | None = None,
    weights: Path | None = None,
    tokenizer: Path | None = None,
    allow: bool = False,
    device: str = "auto",
) -> Session:
    """A session of a run on a device, from the beginning or from a saved state."""
    from runtime.allocator import keep_freed_memory
    from runtime.device import choose
    from runtime.session import Session, find
    from runtime.session.levels import read

    keep_freed_memory()
    chosen = None if learn is None else read(learn)
    place = choose(device)
    trained = find(run, weights=weights, tokenizer=tokenizer, warn=note)
    trained.model.to(place)
    if state is None:
        return Session(trained, learn=True if chosen is None else chosen, seed=seed or 0)
    session = Session.load(state, trained, learn=chosen, allow=allow)
    if seed is not None:
        session.generator.manual_seed(seed)
    return session


def written(
    session: Session, prompt: Any, count: int, sampling: Sampling, show: bool, save: Path | None = None
) -> tuple[int, dict[str, Any]]:
    """Read the prompt, draw what comes, save the state; a signal, or a reader that has left, ends it after a token."""
    from runtime.session import decoder
    from runtime.signals import Stop as Signals

    pieces = decoder(session.trained.codec)
    made: list[int] = []
    text, left = "", False
    with Signals() as stop:
        read = session.read(prompt, stop=lambda: bool(stop.asked))
        if count and not stop.asked:
            session.begin()
        began = time.perf_counter()
        for token in session.generate(0 if stop.asked else count, sampling):
            made.append(token)
            part = pieces.feed(token)
            left = show and not shown(part)
            text += part
            if stop.asked or left:
                break
        seconds = time.perf_counter() - began
        rest = pieces.end() + ("\n" if show and sys.stdout.isatty() else "")
        left = left or (show and not shown(rest))
        kept = session.save(save) if save is not None and (session.tokens or not stop.asked) else None
    facts = {
        "prompt_tokens": len(prompt),
        "prompt_bits_per_token": read.bits,
        "tokens": made,
        "text": text + rest,
        "seconds": round(seconds, 3),
        "tokens_per_s": round(len(made) / seconds, 1) if made else None,
        "tokens_read": session.tokens,
        "learn": sorted(session.learn, key=session.model.writing.index),
        "device": str(session.device),
        "stopped_by": stop.name or None,
        "state": None if kept is None else str(kept),
    }
    return (128 + stop.asked if stop.asked else Status.DONE), facts


def shown(part: str) -> bool:
    """Put some text on stdout at once; whether anybody still reads there."""
    try:
        print(part, end="", flush=True)
        return True
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            error.filename = "standard output"
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False


def summary(facts: dict[str, Any]) -> str:
    learns = ", ".join(facts["learn"]) or "nothing"
    speed = f" ({facts['tokens_per_s']:,} tokens/s)" if facts["tokens"] else ""
    said = [f"{len(facts['tokens']):,} tokens{speed}; learns: {learns}; {facts['tokens_read']:,} tokens read"]
    if facts["prompt_bits_per_token"] is not None:
        said.append(f"the prompt took {facts['prompt_bits_per_token']:.3f} bits a token")
    if facts["stopped_by"]:
        said.append(f"stopped by {facts['stopped_by']}")
    if facts["state"]:
        said.append(f"state in {facts['state']}")
    return "; ".join(said)
