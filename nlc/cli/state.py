"""`nlc state`: what a model's memories learned from a stream, as a folder: save, load, fork, inspect, diff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlc.cli.common import DeviceOption, JsonOption, Status, Stop, calm_threads, say, say_json
from nlc.cli.generate import (
    AllowOption,
    LearnOption,
    RunArgument,
    TokenizerOption,
    WeightsOption,
    opened,
    prompt_text,
    told,
)

if TYPE_CHECKING:
    from runtime.session import Session
    from runtime.session.saved import Saved

state = typer.Typer(
    help="What a model's memories learned from a stream: save it, go on from it, look at it.\n\n"
    "Example: nlc state save runs/first --text text.txt -o build/state",
    rich_markup_mode=None,
)

StateArgument = Annotated[Path, typer.Argument(metavar="STATE", help="A saved state.")]
TextOption = Annotated[Path, typer.Option("--text", metavar="FILE", help="The text to read; - is standard input.")]


def register(app: typer.Typer) -> None:
    app.add_typer(state, name="state")


@state.command()
def save(
    run: RunArgument,
    text: TextOption,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="STATE", help="Where to keep the state.")],
    learn: LearnOption = None,
    weights: WeightsOption = None,
    tokenizer: TokenizerOption = None,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
) -> int:
    """Read a text from the beginning and keep what the memories learned.

    Example: nlc state save runs/first --text text.txt -o build/state
    """
    calm_threads()
    with told():
        session = opened(run, None, learn, weights=weights, tokenizer=tokenizer, device=device)
        return go_on(session, text, out, json_)


@state.command()
def load(
    place: StateArgument,
    run: RunArgument,
    text: Annotated[
        Path | None, typer.Option("--text", metavar="FILE", help="A text to go on with; - is standard input.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="STATE", help="Where to keep the state after it.")
    ] = None,
    learn: LearnOption = None,
    weights: WeightsOption = None,
    tokenizer: TokenizerOption = None,
    allow: AllowOption = False,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
) -> int:
    """Check that a state fits a model, and go on from it with a text.

    Example: nlc state load build/state runs/first --text text.txt
    """
    if out is not None and text is None:
        raise Stop(Status.USAGE, "--out keeps the state after a text: say which --text")
    calm_threads()
    with told():
        session = opened(run, place, learn, None, weights, tokenizer, allow, device)
        if text is not None:
            return go_on(session, text, out, json_)
    levels = learning(session)
    facts = {"state": str(place), "run": str(run), "fits": True, "tokens": session.tokens, "learn": levels}
    said = f"{place} fits {run}: {session.tokens:,} tokens read; learns: {', '.join(levels) or 'nothing'}"
    say_json(facts) if json_ else say(said)
    return Status.DONE


@state.command()
def fork(
    place: StateArgument,
    copy: Annotated[Path, typer.Argument(metavar="COPY", help="The folder to write.")],
    json_: JsonOption = False,
) -> None:
    """Copy a state, after checking that it is whole; the two then go their own ways.

    Example: nlc state fork build/state build/other
    """
    calm_threads()
    with told():
        from runtime.session import saved

        saved.fork(place, copy)
    say_json({"state": str(place), "copy": str(copy)}) if json_ else say(f"{copy} is as {place}")


@state.command()
def inspect(place: StateArgument, json_: JsonOption = False) -> None:
    """Show what a state holds: tokens read, their surprise, and each memory's norm and way from its start.

    Example: nlc state inspect build/state
    """
    calm_threads()
    with told():
        facts = contents(place, read(place))
    say_json(facts) if json_ else say(inspected(facts))


@state.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A saved state.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another of the same model.")],
    json_: JsonOption = False,
) -> None:
    """Show what changed from one state to another, memory by memory.

    Example: nlc state diff build/state build/other
    """
    calm_threads()
    with told():
        facts = compared(before, after)
    say_json(facts) if json_ else say(differing(facts))


# ---- steps the commands share ---------------------------------------------------------------------------------------


def go_on(session: Session, text: Path, out: Path | None, json_: bool) -> int:
    """Read a text, keep the state, say how unexpected the text was.  A signal ends it between two pieces."""
    from runtime.session import saved
    from runtime.signals import Stop as Signals

    if out is not None:
        saved.keep_others(out)
    first = session.tokens
    written, name = prompt_text(None, text)
    ids = session.ids(written, name)
    if not len(ids):
        raise Stop(Status.MISSING, f"{name} is empty: nothing to read")
    with Signals() as stop:
        read = session.read(ids, stop=lambda: bool(stop.asked))
        if out is not None and session.tokens > first:
            session.save(out)
    facts = {
        "text": name,
        "read": session.tokens - first,
        "tokens": session.tokens,
        "bits_per_token": read.bits,
        "learn": learning(session),
        "device": str(session.device),
        "state": None if out is None else str(out),
        "stopped_by": stop.name or None,
    }
    if json_:
        say_json(facts)
    else:
        surprise = "" if read.bits is None else f", {read.bits:.4f} bits a token"
        levels = ", ".join(learning(session)) or "nothing"
        say(f"{name}: {facts['read']:,} tokens read{surprise}; learns: {levels}")
        say(f"{session.tokens:,} tokens in all" + (f"; state in {out}" if out is not None else ""))
    return 128 + stop.asked if stop.asked else Status.DONE


def learning(session: Session) -> list[str]:
    return sorted(session.learn, key=session.model.writing.index)


def read(place: Path) -> Saved:
    from runtime.session import saved

    return saved.read(place)


def bits(surprise: dict[str, Any]) -> float | None:
    from runtime.session import Surprise

    return Surprise(surprise["nats"], surprise["tokens"]).bits


def contents(place: Path, found: Saved) -> dict[str, Any]:
    from runtime.session.memories import by_memory

    facts = found.facts
    return {
        "state": str(place),
        "model": found.model,
        "tokens": facts["tokens"],
        "learn": facts["learn"],
        "surprise": {"bits_per_token": bits(facts["surprise"]), "tokens": facts["surprise"]["tokens"]},
        "last_call": {"bits_per_token": bits(facts["last"]), "tokens": facts["last"]["fed"]},
        "bytes": sum(x.numel() * x.element_size() for parts in found.state.values() for x in parts.values()),
        "memories": by_memory(facts["memories"]),
        "layers": facts["memories"],
    }


def inspected(facts: dict[str, Any]) -> str:
    """The text of `nlc state inspect`."""
    from nlc.report import binary, table

    model, last = facts["model"], facts["last_call"]
    learns = ", ".join(facts["learn"]) or "nothing"
    lines = [
        f"{facts['state']}: {facts['tokens']:,} tokens read by {model['name']}, {binary(facts['bytes'])}",
        f"model     graph {model['graph']}, weights {model['weights'][:16]}, {model['dtype']}",
        f"surprise  {number(facts['surprise']['bits_per_token'])} bits a token; "
        f"{number(last['bits_per_token'])} in the last call ({last['tokens']:,} tokens)",
        f"learns    {learns}",
    ]
    head = ["memory", "norm", "from start", "moved a token", "gathered a token", "pending"]
    rows = [head] + [
        [name, *(number(m[fact]) for fact in ("norm", "distance", "moved", "gathered")), number(m["pending"])]
        for name, m in facts["memories"].items()
    ]
    return "\n".join(lines) + ("\n\n" + table(rows, right={1, 2, 3, 4, 5}) if facts["memories"] else "")


def compared(before: Path, after: Path) -> dict[str, Any]:
    """Raises Stop where they are states of two programs."""
    from runtime.session.memories import by_memory, changes

    one, other = read(before), read(after)
    if one.model.get("graph") != other.model.get("graph"):
        graphs = [f"{found.model['name']} (graph {found.model['graph']})" for found in (one, other)]
        raise Stop(Status.USAGE, f"'{before}' and '{after}' are states of two programs: {', '.join(graphs)}")
    changed = changes(one.state, other.state)
    layers = {place: changed[place] for place in one.facts["memories"] if place in changed}  # in the order of the block
    return {
        "before": end(before, one),
        "after": end(after, other),
        "same_weights": one.model.get("weights") == other.model.get("weights"),
        "memories": by_memory(layers),
        "layers": layers,
    }


def end(place: Path, found: Saved) -> dict[str, Any]:
    """One of the two: how far it has read, and how unexpected that was, in all and in the last call."""
    surprise, last = bits(found.facts["surprise"]), bits(found.facts["last"])
    return {
        "state": str(place),
        "tokens": found.facts["tokens"],
        "bits_per_token": surprise,
        "last_bits_per_token": last,
    }


def differing(facts: dict[str, Any]) -> str:
    """The text of `nlc state diff`."""
    from nlc.report import table

    ends = [f"{facts[end]['state']} ({facts[end]['tokens']:,} tokens)" for end in ("before", "after")]
    told = [
        number(facts[which][fact])
        for fact in ("bits_per_token", "last_bits_per_token")
        for which in ("before", "after")
    ]
    surprise = "surprise  {} -> {} bits a token; {} -> {} in the last call".format(*told)
    lines = [" -> ".join(ends), surprise] + ["the weights of the model differ too"] * (not facts["same_weights"])
    rows = [["memory", "norm before", "after", "difference", "of before", "most in layer"]]
    for name, m in facts["memories"].items():
        own = {place: row for place, row in facts["layers"].items() if place.split(".", 2)[2] == name}
        most = max(own, key=lambda place: own[place]["difference"])
        share = "" if m["relative"] is None else f"{100 * m['relative']:.3g} %"
        rows.append([name, *(number(m[fact]) for fact in ("before", "after", "difference")), share, most.split(".")[1]])
    return "\n".join(lines) + ("\n\n" + table(rows, right={1, 2, 3, 4, 5}) if facts["memories"] else "")


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
