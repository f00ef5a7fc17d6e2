from __future__ import annotations

from pathlib import Path

from runtime import plot


def rows(n: int) -> list[dict[str, float]]:
    return [{"step": i, "tokens": 64 * i, "train/loss": 5.0 / (i + 1)} for i in range(n)]


def test_draws_a_png(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    assert plot.loss([*rows(30), {"step": 30, "tokens": 1920, "val/bits_per_byte": 0.4}], path, "hope")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_draws_one_point_and_nothing_for_none(tmp_path: Path) -> None:
    assert plot.loss(rows(1), tmp_path / "one.png", "hope") and (tmp_path / "one.png").exists()
    assert not plot.loss([], tmp_path / "none.png", "hope") and not (tmp_path / "none.png").exists()


def test_null_values_are_left_out_of_a_curve() -> None:
    found = plot.curve([{"tokens": 1, "a": 2.0}, {"tokens": 2, "a": None}, {"tokens": 3}], "a", unit=2.0)
    assert found == ([1], [1.0])


def test_a_validation_on_more_text_stands_apart_from_the_curve() -> None:
    rows = [
        {"tokens": t, "val/bits_per_byte": b, "val/tokens": n}
        for t, b, n in ((1, 3.0, 64), (2, 2.0, 64), (2, 1.9, 640))
    ]
    assert plot.judged(rows) == (([1, 2], [3.0, 2.0]), ([2], [1.9]))
    assert plot.judged(rows[:2]) == (([1, 2], [3.0, 2.0]), ([], []))
