"""`nlc doctor`: is everything here, and what will be slow."""

from __future__ import annotations

from dataclasses import asdict

import typer

from nlc.cli.common import JsonOption, Status, calm_threads, say, say_json


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(json_: JsonOption = False) -> int:
    """Look at versions, threads, GPU and disk; say what is missing and what will be slow.

    Example: nlc doctor
    """
    calm_threads()
    from nlc.doctor import examine

    found = examine()
    wrong = any(finding.verdict == "wrong" for finding in found)
    if json_:
        say_json({"ok": not wrong, "findings": [asdict(finding) for finding in found]})
    else:
        width = max(len(finding.what) for finding in found)
        for finding in found:
            advice = f"  ({finding.advice})" if finding.advice else ""
            say(f"{finding.verdict:5}  {finding.what:{width}}  {finding.says}{advice}")
    return Status.MISSING if wrong else Status.DONE
