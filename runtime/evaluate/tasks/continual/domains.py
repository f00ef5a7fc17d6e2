"""Texts of several domains, learned one after another; what is known of each is its bits per byte.

Without files a domain is the built-in corpus in an alphabet of its own, as permuted pixels are a task of their own in
arXiv 1312.6211: the first as it is, every other with its bytes exchanged.  `--data FOLDER`: every file is a domain, in
the order of their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime import data
from runtime.data import Text
from runtime.errors import USAGE, DataError
from runtime.evaluate.tasks.continual.course import Course, course
from runtime.evaluate.tasks.continual.labelled import hashed
from runtime.evaluate.tasks.continual.lessons import How, Known
from runtime.evaluate.tasks.draw import Draw, key_of
from runtime.evaluate.tasks.items import Items
from runtime.model import LanguageModel
from runtime.precision import autocast


@dataclass(frozen=True)
class Domains:
    """`domains` texts of `sequences` sequences each; an answer is a byte.

    passes, replay (sequences of a domain), mixed, order: as of Classes.
    """

    context: int
    domains: int
    sequences: int
    passes: int
    replay: int
    mixed: int
    order: int

    vocab = 256
    choices = range(256)
    chance = 1 / 256

    def items(self, draw: Draw, text: Text | None) -> Items:
        raise NotImplementedError("learned in order: lessons() has its sequences")

    def lessons(self, path: str | Path | None = None) -> DomainLessons:
        """Raises DataError where a text is missing or too short."""
        if path is None:
            found = data.load()
            texts = [exchanged(found, i, self.order) for i in range(self.domains)]
            return DomainLessons(self, texts, f"{found.source}, bytes exchanged", None)
        files = sorted(f for f in Path(path).iterdir() if f.is_file()) if Path(path).is_dir() else []
        if len(files) < self.domains:
            raise DataError(f"'{path}' has {len(files)} files, and {self.domains} domains are a file each", USAGE)
        loaded = [data.load(file) for file in files[: self.domains]]
        texts = [(one.train, one.validation) for one in loaded]
        return DomainLessons(self, texts, Path(path).resolve().name, Path(path))


def exchanged(found: data.Data, number: int, order: int) -> tuple[Text, Text]:
    """Training and validation text of a domain: number 0 is as it is."""
    if not number:
        return found.train, found.validation
    other = Draw(torch.tensor([key_of(f"domain {number} {order}")])).order(256)[0].to(torch.uint8)
    return Text(other[found.train.tokens.long()]), Text(other[found.validation.tokens.long()])


class DomainLessons:
    """Sequence n of training is in domain n // sequences, from a place that a hash says; tests are evenly spread."""

    unit, loss = "bits per byte", True

    def __init__(self, kind: Domains, texts: Sequence[tuple[Text, Text]], source: str, path: Path | None) -> None:
        self.kind, self.texts, self.source, self.path = kind, texts, source, path
        for i, pair in enumerate(texts):
            if min(map(len, pair)) <= kind.context:
                short = f"domain {i + 1} has {min(map(len, pair))} bytes for training or for tests"
                raise DataError(f"{source}: {short}, and a sequence has {kind.context} and one more")

    @property
    def tasks(self) -> int:
        return self.kind.domains

    @property
    def digest(self) -> str:
        parts = [hashlib.sha256(text.tokens.numpy().tobytes()).digest() for pair in self.texts for text in pair]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    @property
    def chances(self) -> Sequence[float]:
        return [8.0] * self.tasks

    def facts(self) -> dict[str, Any]:
        return {"data": self.source, "training_bytes": [len(train) for train, _ in self.texts]}

    def course(self, batch: int) -> Course:
        k = self.kind
        tasks = [[range(i * k.sequences, (i + 1) * k.sequences)] for i in range(k.domains)]
        return course(tasks, batch, passes=k.passes, replay=k.replay, mixed=bool(k.mixed), rank=self.rank)

    def rank(self, number: int, turn: int) -> str:
        return hashed(self.kind.order, number, turn)

    def items(self, split: Literal["train", "test"], numbers: Tensor | Sequence[int]) -> Items:
        """Of a test item n belongs to domain n modulo their number."""
        chosen, long = [int(n) for n in torch.as_tensor(numbers)], self.kind.context
        rows = []
        for n in chosen:
            domain, at = (n // self.kind.sequences, n) if split == "train" else (n % self.tasks, n // self.tasks)
            text = self.texts[domain % self.tasks][split == "test"]
            first = int(hashed(split, self.kind.order, domain, at), 16) % (len(text) - long)
            rows.append(text.tokens[first : first + long + 1].long())
        cut_BT1 = torch.stack(rows)
        return Items.of(cut_BT1[:, :-1].clone(), cut_BT1[:, 1:].clone())

    def known(self, model: LanguageModel, asked: Sequence[int], after: int, how: How) -> list[Known]:
        """Every byte is the target of the one before it, and what learns from it may."""
        return [self.read(model, task, how) for task in asked]

    def read(self, model: LanguageModel, task: int, how: How) -> Known:
        made = self.items("test", [task + self.tasks * i for i in range(how.items)])
        device, batch = next(model.parameters()).device, max(1, how.tokens // self.kind.context)
        nats, right = 0.0, []
        for at in range(0, len(made), batch):
            part = made.rows(torch.arange(at, min(at + batch, len(made))))
            x_BT, y_BT = part.tokens.to(device), part.targets.to(device)
            with torch.no_grad(), autocast(how.precision, device):
                logits_BTV, _ = model.told(x_BT, y_BT, how.state(len(part)), how.learn)
            nats += float(F.cross_entropy(logits_BTV.float().mT, y_BT, reduction="sum"))
            right.append((logits_BTV.argmax(-1) == y_BT).sum(1).cpu())
        asked_B = torch.full((len(made),), self.kind.context)
        return Known(nats / log(2) / made.targets.numel(), torch.cat(right), asked_B)
