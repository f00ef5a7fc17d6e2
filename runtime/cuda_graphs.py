"""Training steps as CUDA graphs: `nlc train --cuda-graphs`.

A step of a nested model is thousands of short kernels, and Python starts each: on a GPU the host is what is waited for.
Here what a step computes is recorded (`runtime.recordings`), after it has been run a few times as always, and then
started by one call.

    with on_own_stream(graphs):
        graphs.on = True                    a training step begins
        made = graphs.run(model, pattern, function, given)

The same kernels run on the same numbers, so results are those of a step that is run as always.  Graphs keep memory for
activations of their own, as much as the largest of them needs, beside what is run as always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from runtime.recordings import Made, Recorder, Recordings

WARM = 2  # calls of a pattern before it is recorded: they compile kernels, and make what libraries keep


class CudaGraphs(Recordings):
    """CUDA graphs of one model's steps."""

    name, warm = "CUDA graphs", WARM

    def __init__(self, say: Callable[[str], None], record: Recorder | None = None) -> None:
        super().__init__(say, record or Recorded())


class Recorded:
    """Records CUDA graphs.  They share their memory: what one has made is copied out before another runs.

    abandoned: those that failed, which torch's allocators may still ask.
    """

    def __init__(self) -> None:
        self.pool: Any = None
        self.abandoned: list[torch.cuda.CUDAGraph] = []

    def __call__(self, run: Callable[[], Made]) -> tuple[Made, Callable[[], None]]:
        """A CUDA graph of `run`, recorded on the current stream: where its results will lie, and what computes them.

        Raises RuntimeError for what cannot be recorded: the first that was refused, not what came of it.
        """
        graph, self.pool = torch.cuda.CUDAGraph(), self.pool or torch.cuda.graph_pool_handle()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        # A library may load a kernel meanwhile; what asks a number of the device is refused in every mode.
        graph.capture_begin(self.pool, capture_error_mode="relaxed")
        try:
            made = run()
        except BaseException:
            with suppress(RuntimeError):
                self.ended(graph)
            raise
        self.ended(graph)
        return made, graph.replay

    def ended(self, graph: torch.cuda.CUDAGraph) -> None:
        """Raises RuntimeError where something that was refused has spoilt the graph."""
        try:
            graph.capture_end()
        except RuntimeError:
            self.abandoned.append(graph)
            with suppress(RuntimeError):  # it had come to that itself
                device = torch.cuda.current_device()
                torch._C._cuda_endAllocateToPool(device, self.pool)  # else all that is asked for later would lie there
                torch._C._cuda_releasePool(device, self.pool)
            self.pool = None
            raise


@contextmanager
def on_own_stream(graphs: Recordings | None) -> Iterator[None]:
    """In here all runs on one stream, which is not the device's default: nothing can be recorded on that.

    A step waits for the stream on which a weight's last gradient was summed.  Were it another, what is recorded would
    wait for what is not.
    """
    if not isinstance(graphs, CudaGraphs) or not torch.cuda.is_available():
        yield
        return
    before, own = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    own.wait_stream(before)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        before.wait_stream(own)
