"""Which sequence comes when: tasks in order, mixed, replayed; equally many sequences in all three."""

from __future__ import annotations

from collections import Counter

from runtime.evaluate.tasks.continual.course import Course, course
from runtime.evaluate.tasks.continual.labelled import hashed

TASKS = [[range(0, 5), range(5, 10)], [range(10, 15), range(15, 20)], [range(20, 24), range(24, 28)]]


def taken(batch: int = 4, **changed: int) -> Course:
    told = {"passes": 1, "replay": 0, "mixed": 0} | changed
    return course(TASKS, batch, **told, rank=lambda n, p: hashed(0, n, p))  # type: ignore[arg-type]


def task_of(number: int) -> int:
    return min(number // 10, 2)


def test_tasks_follow_one_another_in_whole_batches() -> None:
    found = taken()
    assert found.ends == (3, 6, 8) and len(found.numbers) == 4 * found.steps
    assert [task_of(n) for n in found.numbers] == [0] * 12 + [1] * 12 + [2] * 8
    assert set(found.numbers) == set(range(28))
    assert max(Counter(found.numbers).values()) == 2  # the last batch of a task is filled from its beginning


def test_a_pass_has_an_order_of_its_own() -> None:
    found = taken(batch=10, passes=2)
    first, second = found.numbers[:10], found.numbers[10:20]
    assert set(first) == set(second) == set(range(10)) and first != second and found.ends[0] == 2


def test_mixed_is_the_same_sequences_in_another_order() -> None:
    naive, joint = taken(), taken(mixed=1)
    assert Counter(joint.numbers) == Counter(naive.numbers) and joint.ends == (naive.steps,)
    assert len({task_of(n) for n in joint.numbers[:8]}) > 1


def test_every_second_sequence_is_a_kept_one_of_an_earlier_task() -> None:
    naive, replay = taken(), taken(replay=2)
    assert replay.ends == naive.ends and len(replay.numbers) == len(naive.numbers)
    assert replay.numbers[:12] == naive.numbers[:12]
    of = [task_of(n) for n in replay.numbers]
    assert of[12:24] == [1, 0] * 6 and set(of[25::2]) <= {0, 1} and of[24::2] == [2] * 4
    assert set(replay.numbers[13:24:2]) <= {0, 1, 5, 6}
