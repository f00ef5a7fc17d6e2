from __future__ import annotations

import hashlib
import os
import platform
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from runtime import data
from runtime.batches import Crops, Lanes, spread
from runtime.errors import DataError


def tree(root: Path, **files: str | bytes) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def text_of(part: torch.Tensor) -> bytes:
    return bytes(part.tolist())


class TestStandardLibrary:
    def test_held_out_files_are_those_whose_hash_ends_in_0_modulo_ten(self) -> None:
        for name in ("json/decoder.py", "abc.py", "os.py"):
            assert data.held_out(name) == (int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0)

    def test_named_folders_are_dropped_at_any_depth_and_only_python_is_read(self, tmp_path: Path) -> None:
        names = [f"m{i}_py" for i in range(40)]
        root = tree(
            tmp_path, **dict.fromkeys(names, "x = 1"), json__tests__a_py="no", test__b_py="no", encodings__c_py="no"
        )
        tree(root, notes="no", json__d_py="yes")
        found = data.standard_library(root)
        everything = text_of(found.train) + text_of(found.validation)
        assert b"no" not in everything and b"yes" in everything
        assert everything.count(b"x = 1") == 40

    def test_says_the_python_and_a_digest_that_is_the_same_again(self) -> None:
        first, second = data.load(), data.load()
        assert platform.python_version() in str(first) and first.digest[:16] in str(first)
        assert first.digest == second.digest
        assert 0.03 < len(first.validation) / len(first.train) < 0.3

    def test_a_python_without_source_is_told_so(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no source of its standard library"):
            data.standard_library(tmp_path)


class TestText:
    def test_the_last_tenth_of_a_file_is_held_out(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_bytes(bytes(range(100)))
        found = data.load(path)
        assert text_of(found.train) == bytes(range(90)) and text_of(found.validation) == bytes(range(90, 100))

    def test_files_of_a_folder_are_held_out_by_their_path(self, tmp_path: Path) -> None:
        tree(tmp_path, **{f"f{i}": f"<{i}>" for i in range(60)})
        found = data.load(tmp_path)
        for i in range(60):
            part = found.validation if data.held_out(f"f{i}") else found.train
            assert f"<{i}>".encode() in text_of(part)

    def test_a_folder_too_small_for_that_gives_its_last_tenth(self, tmp_path: Path) -> None:
        found = data.load(tree(tmp_path, only="0123456789" * 3))
        assert text_of(found.validation) == b"789"

    def test_pipes_and_links_to_nowhere_are_no_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("a" * 100)
        (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
        os.mkfifo(tmp_path / "pipe")
        assert data.files(tmp_path) == ["a.txt"]

    def test_hidden_and_binary_files_are_left_out(self, tmp_path: Path) -> None:
        tree(tmp_path, readable="a" * 50, picture=b"\x89PNG\0\0secret", **{".hidden": "secret"})
        found = data.load(tmp_path)
        assert b"secret" not in text_of(found.train) + text_of(found.validation)


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda root: root / "nothing", "no such file or folder"),
            (lambda root: tree(root, empty="") / "empty", "nothing to learn from"),
            (lambda root: tree(root / "folder", empty=b"\0") , "holds no text file"),
        ],
        ids=["missing", "empty", "binary"],
    )  # fmt: skip
    def test_is_one_line_with_status_4(self, tmp_path: Path, make: object, message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            data.load(make(tmp_path))  # type: ignore[operator]
        assert caught.value.status == 4 and "\n" not in str(caught.value)

    def test_unreadable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        path = tree(tmp_path, a="text") / "a"
        monkeypatch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(DataError, match=r"cannot read '.*a': Permission denied"):
            data.load(path)

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


class TestBatches:
    bytes_ = torch.arange(200, dtype=torch.uint8)

    def test_crops_are_sequences_and_their_next_bytes(self) -> None:
        x_BT, y_BT = Crops(self.bytes_, 3, 16, seed=0)[0]
        assert x_BT.shape == y_BT.shape == (3, 16) and x_BT.dtype == torch.long
        assert (y_BT == x_BT + 1).all() and (x_BT.diff() == 1).all()

    def test_crops_depend_on_seed_and_step_and_nothing_else(self) -> None:
        torch.manual_seed(1)
        one = Crops(self.bytes_, 3, 16, seed=0)
        first = [one[step][0] for step in range(3)]
        torch.manual_seed(2)
        again = [Crops(self.bytes_, 3, 16, seed=0)[step][0] for step in (2, 1, 0)][::-1]
        assert all((a == b).all() for a, b in zip(first, again, strict=True))
        assert not (first[0] == first[1]).all()
        assert not (first[0] == Crops(self.bytes_, 3, 16, seed=1)[0][0]).all()

    def test_crops_reach_the_first_and_the_last_byte(self) -> None:
        crops = Crops(self.bytes_[:18], 4, 16, seed=0)
        seen = torch.cat([crops[step][0][:, 0] for step in range(20)])
        assert set(seen.tolist()) == {0, 1}

    def test_lanes_go_on_where_they_ended(self) -> None:
        lanes = Lanes(self.bytes_, 3, 16, seed=5)
        (x_BT, y_BT), (x2_BT, _) = lanes[0], lanes[1]
        assert (x2_BT[:, 0] == y_BT[:, -1]).all()
        assert (x_BT[:, 1:] == y_BT[:, :-1]).all()
        assert len(set(x_BT[:, 0].tolist())) == 3

    def test_lanes_read_the_text_as_a_ring(self) -> None:
        lanes = Lanes(self.bytes_, 2, 16, seed=0)
        seen = torch.cat([lanes[step][0][0] for step in range(13)])
        assert set(seen.tolist()) == set(range(200))

    def test_spread_covers_the_data_without_overlap_while_it_can(self) -> None:
        starts = spread(self.bytes_, 5, 16)
        assert starts[0] == 0 and starts[-1] == 200 - 17
        assert min(b - a for a, b in pairwise(starts)) >= 16
        assert len(spread(self.bytes_, 1000, 16)) == 12
        assert spread(self.bytes_[:17], 1, 16) == [0]
