"""YAML's scanner, which refuses brackets that nest too deep as it meets them.

Shallow        ruamel's Scanner; raises TooDeep at the bracket

A parser sees a bracket only after the scanner has read a thousand characters on, and each bracket open by then may yet
begin a key, so every token looks through all of them: time grows with the square of the depth.  Imported only where a
text is read, since ruamel takes its time.
"""

from __future__ import annotations

from typing import Any

from ruamel.yaml.error import StreamMark, YAMLError
from ruamel.yaml.scanner import Scanner

from nlc.spec.text import DEPTH


class TooDeep(YAMLError):
    """A bracket inside more than DEPTH others, and where it stands."""

    def __init__(self, mark: StreamMark) -> None:
        super().__init__()
        self.start_mark = mark


class Shallow(Scanner):
    """YAML 1.2's scanner, within DEPTH."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        if self.flow_level >= DEPTH:
            raise TooDeep(self.reader.get_mark())
        super().fetch_flow_collection_start(TokenClass, to_push)
