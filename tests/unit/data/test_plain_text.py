from __future__ import annotations

import hashlib
import os
import platform
import random
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from runtime import data
from runtime.data import plain, sources
from runtime.data.pieces import held_out
from runtime.errors import DataError

from .files import documents, text_of, tree


def joined(files: dict[str, bytes]) -> tuple[bytes, bytes]:
    """What a folder means: files that are held out, and those that are not, a newline between; else the last tenth."""
    names = sorted(files, key=lambda name: name.split("/"))
    train = b"\n".join(files[name] for name in names if not held_out(name.encode()))
    validation = b"\n".join(files[name] for name in names if held_out(name.encode()))
    if train and validation:
        return train, validation
    text = train or validation
    cut = len(text) - len(text) // 10
    return text[:cut], text[cut:]


class TestStandardLibrary:
    def test_held_out_files_are_those_whose_hash_ends_in_0_modulo_ten(self) -> None:
        for name in ("json/decoder.py", "abc.py", "os.py"):
            assert held_out(name.encode()) == (int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0)

    def test_named_folders_are_dropped_at_any_depth_and_only_python_is_read(self, tmp_path: Path) -> None:
        names = [f"m{i}_py" for i in range(40)]
        root = tree(
            tmp_path, **dict.fromkeys(names, "x = 1"), json__tests__a_py="no", test__b_py="no", encodings__c_py="no"
        )
        tree(root, notes="no", json__d_py="yes")
        found = plain.standard_library(root)
        everything = b"\n".join(piece.text for piece in found.pieces(utf8=True))
        assert b"no" not in everything and b"yes" in everything
        assert everything.count(b"x = 1") == 40

    def test_says_the_python_and_a_digest_of_both_parts(self) -> None:
        found = data.load()
        train, validation = text_of(found.train), text_of(found.validation)
        assert found.digest == hashlib.sha256(train + b"\0" + validation).hexdigest() == data.load().digest
        assert platform.python_version() in str(found) and found.digest[:16] in str(found)
        assert 0.03 < len(validation) / len(train) < 0.3

    def test_a_python_without_source_is_told_so(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no source of its standard library"):
            plain.standard_library(tmp_path)


class TestText:
    def test_the_last_tenth_of_a_file_is_held_out(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_bytes(bytes(range(100)))
        found = data.load(path)
        assert text_of(found.train) == bytes(range(90)) and text_of(found.validation) == bytes(range(90, 100))
        assert found.train.begins is None

    def test_files_of_a_folder_are_held_out_by_their_path(self, tmp_path: Path) -> None:
        tree(tmp_path, **{f"f{i}": f"<{i}>" for i in range(60)})
        found = data.load(tmp_path)
        for i in range(60):
            part = found.validation if held_out(f"f{i}".encode()) else found.train
            assert f"<{i}>".encode() in text_of(part)

    @pytest.mark.parametrize("seed", range(0, 60, 3))
    def test_a_folder_is_its_files_with_newlines_between(self, tmp_path: Path, seed: int) -> None:
        draw = random.Random(seed)
        files = {f"{draw.choice('abc')}/f{i}": draw.randbytes(draw.choice([seed < 30, 7, 90])) for i in range(1 + seed)}
        files = {name: text.replace(b"\0", b"?") for name, text in files.items()} | {"long": b"x" * 40}
        tree(tmp_path, **{name.replace("/", "__"): text for name, text in files.items()})
        found = data.load(tmp_path)
        train, validation = joined(files)
        at_a_border = (train + validation)[len(train) - 1 : len(train) + 1].count(b"\n")
        if not at_a_border:  # there a cut takes the newline with it
            assert (text_of(found.train), text_of(found.validation)) == (train, validation)
            assert found.digest == hashlib.sha256(train + b"\0" + validation).hexdigest()

    def test_each_file_is_a_document_where_one_asks_for_it(self, tmp_path: Path) -> None:
        tree(tmp_path, **{f"f{i}": f"<{i}>\nmore" for i in range(60)})
        found = data.load(tmp_path, pack="documents")
        held = documents(found.validation)
        assert set(held) | set(documents(found.train)) == {f"<{i}>\nmore".encode() for i in range(60)}
        assert held and text_of(found.train) == text_of(data.load(tmp_path).train)
        assert found.digest != data.load(tmp_path).digest

    def test_a_long_file_is_read_in_blocks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plain, "BLOCK", 7)
        (tmp_path / "a.txt").write_bytes(text := b"one two three\nfour " * 5)
        found = data.load(tmp_path / "a.txt", pack="documents")
        assert text_of(found.train) + text_of(found.validation) == text
        assert found.train.begins is not None and found.train.begins.tolist() == [0]

    def test_pipes_and_links_to_nowhere_are_no_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a" * 100)
        (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
        os.mkfifo(tmp_path / "pipe")
        assert plain.files(tmp_path) == ["a.txt"]

    def test_hidden_and_binary_files_are_left_out(self, tmp_path: Path) -> None:
        tree(tmp_path, readable="a" * 50, picture=b"\x89PNG\0\0secret", **{".hidden": "secret"})
        found = data.load(tmp_path)
        assert b"secret" not in text_of(found.train) + text_of(found.validation)


class TestPatterns:
    def test_names_the_files_it_matches_at_any_depth(self, tmp_path: Path) -> None:
        names = {f"{'a' * (i % 3 + 1)}/{i}.txt": f"<{i}>".encode() for i in range(60)}
        tree(tmp_path, **{name.replace("/", "__").replace(".txt", "_txt"): text for name, text in names.items()})
        tree(tmp_path, a__no_py="no")
        found = data.load(f"{tmp_path}/**/*.txt")
        assert (text_of(found.train), text_of(found.validation)) == joined(names)
        assert found.source == f"{tmp_path}/**/*.txt (60 files)"

    def test_holds_out_what_the_folder_would(self, tmp_path: Path) -> None:
        tree(tmp_path, **{f"f{i}_txt": f"<{i}>" for i in range(60)})
        assert data.load(f"{tmp_path}/*.txt").digest == data.load(tmp_path).digest

    def test_a_name_that_looks_like_one_is_a_name(self, tmp_path: Path) -> None:
        (tmp_path / "a[1].txt").write_bytes(b"x" * 100)
        assert len(data.load(tmp_path / "a[1].txt").train) == 90


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda root: root / "nothing", "no such file or folder"),
            (
                lambda root: tree(root, empty="") / "empty",
                "holds 0 bytes: too little for a training and a validation part",
            ),
            (lambda root: tree(root / "folder", empty=b"\0"), "holds no text file"),
            (lambda root: f"{root}/*.txt", r"no file matches '.*/\*\.txt'"),
            (lambda root: os.mkfifo(root / "pipe") or root / "pipe", "is a pipe or a device"),
        ],
        ids=["missing", "empty", "binary", "pattern", "pipe"],
    )
    def test_is_one_line_with_status_4(self, tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            data.load(make(tmp_path))
        assert caught.value.status == 4 and "\n" not in str(caught.value)

    def test_unreadable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: Path, *mode: str) -> IO[bytes]:
            raise PermissionError(13, "Permission denied")

        path = tree(tmp_path, a="text") / "a"
        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(DataError, match=r"cannot read '.*a': Permission denied"):
            data.load(path)

    def test_a_file_that_shrinks_while_it_is_read(self, tmp_path: Path) -> None:
        path = tree(tmp_path, a="text" * 100) / "a"
        pieces = plain.single(path).pieces(utf8=False)
        next(pieces)
        path.write_bytes(b"text")
        with pytest.raises(DataError, match="changed while it was read"):
            list(pieces)

    def test_a_field_of_plain_text(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"--field body names a field of records, and .*a is plain text") as caught:
            sources.find(tree(tmp_path, a="text") / "a", "body")
        assert caught.value.status == 2

    def test_too_short_for_a_sequence(self, tmp_path: Path) -> None:
        found = data.load(tree(tmp_path, a="x" * 100) / "a")
        with pytest.raises(
            DataError, match=r"10 validation bytes, but a sequence of 16 tokens and its targets needs 17"
        ):
            data.check(found, context=16, vocab=256)

    def test_byte_outside_the_vocabulary(self, tmp_path: Path) -> None:
        found = data.load(tree(tmp_path, a="x" * 100) / "a")
        with pytest.raises(DataError, match="byte 120 is outside the spec's vocabulary of 64") as caught:
            data.check(found, context=4, vocab=64)
        assert caught.value.status == 2
