"""Lines of JSON and saved datasets: documents with borders; what is wrong is named with its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from runtime import data
from runtime.data.pieces import held_out
from runtime.errors import DataError

from .files import documents, lines, text_of, tree

STORIES = [f"story {i}\nhas two lines, naïve ones" for i in range(60)]
AS_BYTES = [story.encode() for story in STORIES]


class TestLines:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.ndjson"])
    def test_each_record_is_a_document(self, tmp_path: Path, name: str) -> None:
        found = data.load(lines(tmp_path / name, ({"id": i, "text": s} for i, s in enumerate(STORIES))))
        assert documents(found.train) == [text for text in AS_BYTES if not held_out(text)]
        assert documents(found.validation) == [text for text in AS_BYTES if held_out(text)]

    def test_packed_files_are_unpacked_and_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NLC_CACHE", str(tmp_path / "cache"))
        records = [{"text": s} for s in STORIES]
        packed, plain = (
            data.load(lines(tmp_path / "a.jsonl.gz", records)),
            data.load(lines(tmp_path / "a.jsonl", records)),
        )
        assert packed.digest == plain.digest and documents(packed.train) == documents(plain.train)

    def test_may_be_one_running_text(self, tmp_path: Path) -> None:
        path = lines(tmp_path / "a.jsonl", ({"text": s} for s in STORIES))
        running, apart = data.load(path, pack="text"), data.load(path)
        assert running.train.begins is None and (running.train.tokens == apart.train.tokens).all()
        assert text_of(running.validation) == b"\n".join(text for text in AS_BYTES if held_out(text))

    @pytest.mark.parametrize("field", ["meta.body", "a.b", "meta.inner.text"])
    def test_a_field_may_be_inside_others(self, tmp_path: Path, field: str) -> None:
        def record(text: str) -> dict[str, Any]:
            return {"text": "no", "a.b": text, "meta": {"body": text, "inner": {"text": text}}}

        found = data.load(lines(tmp_path / "a.jsonl", map(record, STORIES)), field=field)
        assert sorted(documents(found.train) + documents(found.validation)) == sorted(AS_BYTES)

    def test_empty_lines_empty_texts_and_a_byte_order_mark_are_no_documents(self, tmp_path: Path) -> None:
        path = lines(tmp_path / "a.jsonl", ({"text": s} for s in STORIES))
        digest = data.load(path).digest
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b'\n  \n{"text": ""}\r\n')
        assert data.load(path).digest == digest

    def test_a_folder_and_a_pattern_may_hold_many(self, tmp_path: Path) -> None:
        for part in range(3):
            lines(tmp_path / f"{part}.jsonl", ({"text": s} for s in STORIES[20 * part : 20 * part + 20]))
        one = lines(tmp_path / "all.ndjson", ({"text": s} for s in STORIES))
        assert data.load(f"{tmp_path}/*.jsonl").digest == data.load(one).digest
        one.unlink()
        assert data.load(tmp_path).source == f"{tmp_path} (3 files)"

    def test_the_same_text_is_never_in_both_parts(self, tmp_path: Path) -> None:
        found = data.load(lines(tmp_path / "a.jsonl", ({"text": s} for s in STORIES * 3)))
        assert not set(documents(found.train)) & set(documents(found.validation))

    def test_of_few_records_the_last_are_held_out(self, tmp_path: Path) -> None:
        few = [s for s in STORIES if not held_out(s.encode())][:4]
        found = data.load(lines(tmp_path / "a.jsonl", ({"text": s} for s in few)))
        assert documents(found.validation) == [few[-1].encode()] and len(documents(found.train)) == 3


def broken(root: Path, line: bytes, before: int = 2) -> Path:
    """A file of good lines with one that is not."""
    good = b'{"text": "good"}\n'
    (root / "a.jsonl").write_bytes(good * before + line + b"\n" + good)
    return root / "a.jsonl"


class TestRefusals:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b'{"body": "x", "id": 3}', "a.jsonl:3: no field 'text'; fields: body, id (--field names another)"),
            (b'{"texts": "x"}', "a.jsonl:3: no field 'text'; did you mean 'texts'? fields: texts (--field names"),
            (b"{}", "a.jsonl:3: no field 'text' (--field names another)"),
            (b'{"text": null}', "a.jsonl:3: field 'text' is null, text is expected"),
            (b'{"text": 3}', "a.jsonl:3: field 'text' is a number, text is expected"),
            (b'{"text": ["x"]}', "a.jsonl:3: field 'text' is a list, text is expected"),
            (b'["x"]', "a.jsonl:3: an object is expected, this is a list"),
            (b'{"text": "x"', "a.jsonl:3:13: not a line of JSON: expecting ',' delimiter"),
            (b'{"text": "\\ud800"}', "a.jsonl:3: field 'text' holds \\ud800, half of a character of UTF-16"),
            (b'{"text": "na\xefve"}', "a.jsonl:3: byte 0xef at offset 46 of the file is not UTF-8"),
            (b"[" * 200_000, "a.jsonl:3: not read as JSON: "),
            (b'{"text": "x", "id": ' + b"1" * 9_000 + b"}", "a.jsonl:3: not read as JSON: "),
        ],
        ids="missing misspelt none null number list array torn surrogate latin-1 deep long".split(),
    )
    def test_a_broken_line_is_named(self, tmp_path: Path, line: bytes, message: str) -> None:
        with pytest.raises(DataError) as caught:
            data.load(broken(tmp_path, line))
        assert message in str(caught.value) and caught.value.status == 4 and "\n" not in str(caught.value)

    def test_far_down_too(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"a\.jsonl:40312: no field 'text'"):
            data.load(broken(tmp_path, b'{"content": "x"}', before=40_311))

    def test_a_field_inside_a_text(self, tmp_path: Path) -> None:
        path = lines(tmp_path / "a.jsonl", [{"meta": "x"}])
        with pytest.raises(DataError, match=r"a.jsonl:1: no field 'meta.body' \(nothing called 'body'\)"):
            data.load(path, field="meta.body")

    def test_utf_16(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"text": "x"}\n', encoding="utf-16")
        with pytest.raises(DataError, match=r"a\.jsonl:1: byte 0xff at offset 0 .*the file looks like UTF-16"):
            data.load(tmp_path / "a.jsonl")

    @pytest.mark.parametrize("damage", ["torn", "flipped", "plain"])
    def test_a_damaged_packed_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
        monkeypatch.setenv("NLC_CACHE", str(tmp_path / "cache"))
        text = bytearray(gzip.compress(b"".join(json.dumps({"text": s}).encode() + b"\n" for s in STORIES)))
        text[len(text) // 2] ^= 255 if damage == "flipped" else 0
        text = text[: len(text) // 2] if damage == "torn" else b"text" if damage == "plain" else text
        (tmp_path / "a.jsonl.gz").write_bytes(text)
        with pytest.raises(DataError, match=r"a\.jsonl\.gz:\d+: "):
            data.load(tmp_path / "a.jsonl.gz")
        assert not list((tmp_path / "cache").rglob("manifest.json")) and not list((tmp_path / "cache").rglob("*.part"))

    @pytest.mark.parametrize(
        ("records", "message"),
        [
            ([], "holds 0 bytes: too little for a training and a validation part"),
            ([{"text": "x"}], "holds one record: two are needed"),
        ],
        ids=["none", "one"],
    )
    def test_too_few(self, tmp_path: Path, records: list[object], message: str) -> None:
        with pytest.raises(DataError, match=message):
            data.load(lines(tmp_path / "a.jsonl", records))

    def test_records_beside_plain_text(self, tmp_path: Path) -> None:
        lines(tmp_path / "a.jsonl", [{"text": "x"}])
        tree(tmp_path, readme="words")
        with pytest.raises(DataError, match=r"holds records \(a.jsonl\) and plain text \(readme\)") as caught:
            data.load(tmp_path)
        assert caught.value.status == 2


class TestDatasets:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NLC_CACHE", str(tmp_path / "cache"))

    @pytest.fixture
    def saved(self, tmp_path: Path) -> Path:
        datasets = pytest.importorskip("datasets")
        rows = {"id": list(range(60)), "text": STORIES, "meta": [{"body": s.upper()} for s in STORIES]}
        datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
        return tmp_path / "saved"

    def test_rows_are_documents_as_lines_are(self, saved: Path, tmp_path: Path) -> None:
        assert data.load(saved).digest == data.load(lines(tmp_path / "a.jsonl", ({"text": s} for s in STORIES))).digest
        inside = data.load(saved, field="meta.body")
        assert {one.decode().lower() for one in documents(inside.train)} <= set(STORIES)

    def test_a_split_for_validation_is_kept(self, saved: Path, tmp_path: Path) -> None:
        import datasets

        parts = {"train": STORIES[:50], "test": STORIES[50:]}
        made = datasets.DatasetDict({name: datasets.Dataset.from_dict({"text": s}) for name, s in parts.items()})
        made.save_to_disk(tmp_path / "split")
        found = data.load(tmp_path / "split")
        assert documents(found.train) == AS_BYTES[:50] and documents(found.validation) == AS_BYTES[50:]
        datasets.DatasetDict(a=made["train"], b=made["test"]).save_to_disk(tmp_path / "odd")
        with pytest.raises(DataError, match="has the splits a, b: train and validation are needed"):
            data.load(tmp_path / "odd")

    def test_a_broken_row_is_named(self, saved: Path, tmp_path: Path) -> None:
        import datasets

        datasets.Dataset.from_dict({"text": [*STORIES, None]}).save_to_disk(tmp_path / "gap")
        with pytest.raises(DataError, match="gap: row 61: field 'text' is null, text is expected"):
            data.load(tmp_path / "gap")
        with pytest.raises(DataError, match="saved: no column 'texd'; did you mean 'text'"):
            data.load(saved, field="texd")
        next(saved.glob("*.arrow")).write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"cannot read the dataset '.*saved'"):
            data.load(saved)

    def test_without_the_library_the_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "datasets", None)
        tree(tmp_path / "saved", **{"dataset_info.json": "{}", "state.json": "{}"})
        with pytest.raises(DataError, match=r"needs the library datasets: pip install 'nlc\[hf\]'") as caught:
            data.load(tmp_path / "saved")
        assert caught.value.status == 4
