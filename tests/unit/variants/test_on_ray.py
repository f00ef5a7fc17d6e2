"""Runs on Ray, with a stand-in for it: what a lost worker means, what one that fails means, the cores of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nlc.cli import variant
from nlc.variants.runs import CRASHED, UNABLE, Request


class RayError(Exception): ...


class RayTaskError(RayError): ...


class Cluster(ModuleType):
    """A cluster of one node; every task ends with the error that is next.  asked: what was asked of it."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.errors, self.asked, self.cores = list[Exception](), dict[str, Any](), 4.0

    def init(self, **how: Any) -> None:
        self.asked["init"] = how["num_cpus"]

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Resources": {"CPU": self.cores}}]

    def remote(self, **how: Any) -> Any:
        self.asked["task"] = how["num_cpus"]
        task = ModuleType("task")
        task.remote = lambda request: object()
        return lambda work: task

    def wait(self, going: list[object], **how: Any) -> tuple[list[object], list[object]]:
        return going[:1], going[1:]

    def get(self, reference: object) -> None:
        raise self.errors.pop(0)

    def shutdown(self) -> None: ...


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    found, exceptions = Cluster(), ModuleType("ray.exceptions")
    exceptions.RayError, exceptions.RayTaskError = RayError, RayTaskError
    monkeypatch.setitem(sys.modules, "ray", found)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    monkeypatch.delitem(sys.modules, "nlc.variants.on_ray", raising=False)
    yield found
    sys.modules.pop("nlc.variants.on_ray", None)


def request(threads: int = 1, device: str = "cpu") -> Request:
    return Request(
        name="r", text="", set={}, task="t", facts={}, data=None, items=1, device=device, threads=threads,
        seconds=1.0, memory_mib=1.0, keep=False,
    )  # fmt: skip


def test_a_worker_that_fails_is_the_machines_and_one_that_is_lost_twice_is_a_crash(ray: Cluster) -> None:
    from nlc.variants.on_ray import OnRay

    workers = OnRay(1, 1, None)
    ray.errors = [
        RayTaskError("Traceback\n  ...\nOSError: [Errno 28] No space left on device"),
        *[RayError("died")] * 2,
    ]
    workers.begin(request())
    ((_, failed),) = workers.ended()
    assert failed.status == UNABLE and failed.error == "OSError: [Errno 28] No space left on device"
    workers.begin(request())
    assert workers.ended() == []
    ((_, lost),) = workers.ended()
    assert lost.status == CRASHED and lost.retries == 1
    workers.close()


def test_a_run_has_as_many_cores_as_threads(ray: Cluster) -> None:
    from nlc.variants.on_ray import NoCluster, OnRay

    workers = OnRay(2, 4, None)
    workers.begin(request(threads=4))
    assert ray.asked == {"init": 8, "task": 4}
    workers.going.clear()
    workers.close()
    with pytest.raises(NoCluster, match="no node has the 8 cores"):
        OnRay(1, 8, "host:1")


def test_a_device_that_is_not_there_is_no_outcome_of_the_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "request.json").write_text(json.dumps({"device": "cuda:999"}), encoding="utf-8")
    monkeypatch.setattr(variant, "follow", lambda parent: None)
    assert variant.main([str(tmp_path), "1"]) == 4
    assert "cuda:999" in capsys.readouterr().err and not (tmp_path / "outcome.json").exists()
