"""Runs on a Ray cluster: each is a task of one worker, which starts the same process as on this machine and watches it.

A worker that is lost, with its node or alone, costs one retry; lost again, the run is recorded as crashed.  One that is
there and could not begin the process, since its disk is full or nlc is missing, says nothing of the variant.

nlc must be installed on the nodes, at the same version; a cluster that is begun here, on this machine, takes it from
where it is.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

import nlc
from nlc.variants.local import alone
from nlc.variants.runs import CRASHED, UNABLE, Outcome, Request

RETRIES = 1  # of a run
TRIES = 3  # to begin a cluster here again: ray gives a node half a minute, which a busy machine may need
WAIT = 0.2  # seconds


def work(request: Request) -> Outcome:
    """In a worker."""
    with TemporaryDirectory(prefix="nlc-search-") as folder:
        return alone(request, Path(folder) / request.name)


class NoCluster(Exception):
    """There is none at the address, or none could be begun here."""


class OnRay:
    """So many runs at a time, each with the cores that it has threads for.  Raises NoCluster.

    address: of a cluster that is there; one of this machine is begun otherwise, for as long as the search takes.
    """

    def __init__(self, jobs: int, threads: int, address: str | None) -> None:
        self.jobs, self.threads = jobs, threads
        self.going: dict[Any, tuple[Request, int]] = {}
        self.words = redirect_stdout(sys.stderr)  # ray says on stdout which worker it lost; results stand there
        self.words.__enter__()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        heard = signal.getsignal(signal.SIGTERM)
        try:
            for left in range(TRIES, -1, -1):
                try:
                    self._join(address)
                    break
                except Exception as error:  # a node that is slow to begin is a plain Exception, too
                    ray.shutdown()
                    if not left or address is not None:
                        raise NoCluster(" ".join(str(error).split())) from None
        except BaseException:
            self.words.__exit__(None, None, None)
            raise
        finally:
            signal.signal(signal.SIGTERM, heard)  # ray has one of its own, which ends the process with another status

    def _join(self, address: str | None) -> None:
        home = str(Path(nlc.__file__).resolve().parent.parent)
        environment = {} if address else {"env_vars": {"PYTHONPATH": home}}
        ray.init(
            address=address, ignore_reinit_error=True, include_dashboard=False, log_to_driver=False,
            num_cpus=None if address else self.jobs * self.threads, runtime_env=environment, logging_level="error",
        )  # fmt: skip
        if self.threads > max([1, *(node["Resources"].get("CPU", 0) for node in ray.nodes())]):
            raise NoCluster(f"no node has the {self.threads} cores of a run")

    @property
    def free(self) -> bool:
        return len(self.going) < self.jobs

    def begin(self, request: Request) -> None:
        self._begin(request, 0)

    def _begin(self, request: Request, retries: int) -> None:
        task = ray.remote(max_retries=0, num_cpus=request.threads)(work)
        self.going[task.remote(request)] = request, retries

    def ended(self) -> list[tuple[Request, Outcome]]:
        if not self.going:
            return []
        done, _ = ray.wait(list(self.going), num_returns=1, timeout=WAIT)
        found = []
        for reference in done:
            request, retries = self.going.pop(reference)
            try:
                outcome: Outcome = ray.get(reference)
            except RayTaskError as failed:  # in the worker, outside the process of the run
                outcome = Outcome(UNABLE, str(failed).strip().splitlines()[-1])
            except RayError as lost:  # the worker, or the machine that it was on
                if retries < RETRIES:
                    self._begin(request, retries + 1)
                    continue
                outcome = Outcome(CRASHED, f"its worker was lost: {str(lost).splitlines()[0]}")
            found.append((request, replace(outcome, retries=retries)))
        return found

    def close(self) -> None:
        for reference in self.going:
            ray.cancel(reference, force=True)
        self.going.clear()
        ray.shutdown()
        self.words.__exit__(None, None, None)
