"""What is recorded as a CUDA graph may not wait for the device, nor copy from or to it: of every kind of step.

The device here is "meta", which computes nothing: a number that is asked of it is an error there too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import nlc
from nlc.verify.small import small_settings
from runtime.cuda_graphs import CudaGraphs
from runtime.recordings import Counted, Function, Made

SIZES = {"sizes.context": 48, "sizes.layers": 1, "run.batch": 2}
SPANS = {"run.memory": "0 B", "levels.titans.chunk": 8, "levels.cms.memories.mid.every": "16 tokens"}
COPYING = {"tensor", "as_tensor", "new_tensor", "from_numpy"}  # numbers of the host


def devices(*tree: Any) -> set[str]:
    return {x.device.type for x in tree_leaves(tree) if isinstance(x, Tensor)}


class FromHost(TorchFunctionMode):
    """Tensors made of numbers of the host, which no dispatcher sees."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if getattr(function, "__name__", "") in COPYING and "meta" in devices(out):
            self.found.append(function.__name__)
        return out


class Crossed(TorchDispatchMode):
    """Operations on tensors of two devices, a tensor of one number included: a graph would keep that number."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if len(devices(args, kwargs, out)) > 1:
            self.found.append(str(function))
        return out


class Looked(CudaGraphs):
    """Looks at all that would be recorded."""

    def __init__(self) -> None:
        super().__init__(pytest.fail, lambda run: (run(), lambda: None))
        self.found: list[str] = []
        self.patterns: set[Hashable] = set()

    def run(self, model: Counted, pattern: Hashable, function: Function, given: list[Tensor]) -> Made:
        self.patterns.add(pattern)
        with FromHost(self.found), Crossed(self.found):
            return function(given)


def step(spec: str, settings: dict[str, object]) -> Looked:
    small = small_settings(nlc.load(spec)) | SIZES | settings
    model: Any = nlc.compile(nlc.load(spec, set=small), target="cuda").model(seed=0).to("meta")
    model.span, graphs = 16 if "run.memory" in settings else None, Looked()
    model.recordings, graphs.on = graphs, True
    tokens = torch.zeros(2, 48, dtype=torch.long, device="meta")
    model.loss(tokens, tokens, final=True)[0].backward()
    return graphs


@pytest.mark.parametrize("spec", ["transformer", "titans_lmm", "hope_attention", "hope"])
def test_a_step_stays_on_its_device(spec: str) -> None:
    graphs = step(spec, {})
    assert len(graphs.patterns) == 1 and not graphs.found


def test_spans_and_their_gradients_stay_on_their_device() -> None:
    graphs = step("hope", SPANS)
    assert len(graphs.patterns) > 2 and not graphs.found


@pytest.mark.parametrize(
    "crossing",
    [
        lambda x: x + x.new_tensor(2.0),
        lambda x: x * torch.tensor(2.0),
        lambda x: x[torch.arange(2)],
        lambda x: x + torch.zeros(4).to(x.device),
    ],
    ids=["a number", "a number of the host", "an index of the host", "a copy"],
)
def test_what_does_not_stay_there_is_seen(crossing: Callable[[Tensor], Tensor]) -> None:
    graphs = Looked()
    graphs.run(None, "", lambda given: [crossing(given[0])], [torch.zeros(4, device="meta")])  # type: ignore[arg-type]
    assert graphs.found


@pytest.mark.parametrize(
    "asking", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool(x.any())], ids=["number", "mask", "truth"]
)
def test_a_number_that_is_asked_of_the_device_is_refused(asking: Callable[[Tensor], Any]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        asking(torch.zeros(4, device="meta"))
