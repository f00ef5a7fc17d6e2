"""The published sets: read as they are published, and what is missing or malformed said at its place."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

from runtime.errors import DataError
from runtime.evaluate.tasks.continual import sources
from runtime.evaluate.tasks.continual.labelled import cut, ordered

CLINC = {
    "train": [["block my card", "freeze"], ["what is due", "bill"], ["hm", "oos"]],
    "test": [["please block it", "freeze"], ["my bill", "bill"]],
}
DOMAINS = {"bank": ["freeze"], "home": ["bill"]}
CSV = 'text,category\r\n"my card,\nwhere is it",arrival\r\nlost it,lost\r\n'


def clinc(folder: Path, train: object = None) -> Path:
    told = CLINC if train is None else {**CLINC, "train": train}
    (folder / "data_full.json.gz").write_bytes(gzip.compress(json.dumps(told).encode()))
    (folder / "domains.json").write_text(json.dumps(DOMAINS))
    return folder


def test_clinc150_without_what_is_out_of_scope(tmp_path: Path) -> None:
    found = sources.read("clinc150", clinc(tmp_path))
    assert found.train == [("block my card", "freeze"), ("what is due", "bill")] and found.labels == ["freeze", "bill"]
    assert found.domains == DOMAINS and len(found.test) == 2


def test_csv_with_a_line_break_inside_a_field(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"{part}.csv").write_bytes(CSV.encode())
    found = sources.read("banking77", tmp_path)
    assert found.train == [("my card,\nwhere is it", "arrival"), ("lost it", "lost")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text,label\na,b\n", r"train.csv':1: the header is 'text,label'; 'text,category' is expected"),
        ("text,category\na,b\nc\n", r"train.csv':3: 1 fields; a text and a category are expected"),
        ('text,category\na,b\n"c,d', r"train.csv':\d: not CSV: unexpected end of data"),
        ("text,category\n", r"train.csv': it has a header and no rows"),
        (b"text,category\n\xff,b\n", r"train.csv': byte 14 is not UTF-8"),
    ],
)
def test_a_malformed_table_is_said_at_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    (tmp_path / "train.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=said):
        sources.read("banking77", tmp_path)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ([["a", "freeze"], ["b"]], r"data_full.json.gz': train\[1\] is \[\"b\"\]; \[text, intent\] is expected"),
        ([], r"a list of \[text, intent\] is expected at key 'train'"),
        ([["a", "other"]], r"domains.json': intent 'other' is in no domain"),
        ([["a \ud800", "bill"]], r"train\[0\] is \[.*, \"bill\"\], with half of a surrogate pair"),
        ([["a", "bill\udfff"]], r"train\[0\] is \[\"a\", .*, with half of a surrogate pair"),
    ],
)
def test_a_malformed_set_is_said_at_its_place(tmp_path: Path, train: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        sources.read("clinc150", clinc(tmp_path, train))


@pytest.mark.parametrize("domains", [5, ["freeze", "bill"], {"x": 5}, {"x": None}, {"x": "freeze"}, {"x": [["a"]]}])
def test_malformed_domains_are_said(tmp_path: Path, domains: object) -> None:
    (clinc(tmp_path) / "domains.json").write_text(json.dumps(domains))
    with pytest.raises(DataError, match=r"domains.json' is .*; \{domain: \[intent, ...\]\} is expected"):
        sources.read("clinc150", tmp_path)


def test_json_that_is_too_deep_is_said(tmp_path: Path) -> None:
    (clinc(tmp_path) / "domains.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match=r"domains.json': not read as JSON: "):
        sources.read("clinc150", tmp_path)


def test_labels_that_are_the_same_but_for_spaces_are_refused() -> None:
    pairs = [("x", "a b"), ("y", "a  b")]
    with pytest.raises(DataError, match="mine: labels 'a b' and 'a  b' are the same but for spaces"):
        cut("mine", pairs, [("z", "a b"), ("w", "a  b")], ["a b", "a  b"], 2, 1, 0, seed=0)


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NLC_DATA", raising=False)
    with pytest.raises(DataError, match="environment variable NLC_DATA") as error:
        sources.read("dbpedia70")
    assert error.value.status == 4
    monkeypatch.setenv("NLC_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"dbpedia70/train.csv' is not there, nor train.csv.gz"):
        sources.read("dbpedia70")
    (tmp_path / "clinc150").mkdir()
    (tmp_path / "clinc150" / "data_full.json.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"data_full.json.gz': Not a gzipped file"):
        sources.read("clinc150")


def test_a_text_of_the_test_is_never_trained_on() -> None:
    train = [("pay  now", "pay"), ("pay it", "pay"), ("stop", "stop")]
    found = cut("mine", train, [("pay now", "pay"), ("halt", "stop")], ["pay", "stop"], 2, 1, 0, seed=0)
    assert [[e.text for e in examples] for examples in found.train] == [[b"pay it"], [b"stop"]] and found.overlap == 1
    with pytest.raises(DataError, match="label 'stop' has no test text"):
        cut("mine", train, [("pay now", "pay")], ["pay", "stop"], 2, 1, 0, seed=0)
    with pytest.raises(DataError, match="mine has 2 labels, and 2 tasks of 2 labels are 4"):
        cut("mine", train, [], ["pay", "stop"], 2, 2, 0, seed=0)


@pytest.mark.skipif("NLC_DATA" not in os.environ, reason="NLC_DATA names no folder with the published sets")
@pytest.mark.parametrize(
    ("name", "labels", "texts", "first", "digest"),
    [
        ("clinc150", 150, (15000, 4500), "direct_deposit", "ee7edfab0382396f"),
        ("banking77", 77, (10003, 3080), "card_linking", "0a6888954490b753"),
        ("dbpedia70", 70, (10000, 1000), "VolleyballPlayer", "b76d7b0f302bc6bd"),
    ],
)
def test_the_published_sets(name: str, labels: int, texts: tuple[int, int], first: str, digest: str) -> None:
    found = sources.read(name)
    assert len(found.labels) == labels and (len(found.train), len(found.test)) == texts
    order = ordered(found.labels, 0)
    assert order[0] == first and hashlib.sha256("\n".join(order).encode()).hexdigest().startswith(digest)
