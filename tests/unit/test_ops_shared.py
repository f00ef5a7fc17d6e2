"""`shared_product` against a loop over tokens and boxes: values, explicit gradients, own errors, streaming."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from runtime.ops import stack
from runtime.ops.basic import l2norm
from runtime.ops.history import own_errors, past
from runtime.ops.shared import Running, Shared, shared_product
from runtime.ops.triangular import BLOCK

B, H, K = 2, 2, 4


def read_rates(reads, extras, weights):
    """Rate and retention read from boxes, as in HOPE."""
    zk, zv, ze, za = reads
    return (
        l2norm(zk),
        l2norm(zv) + 0.1 * extras[0],
        0.7 * (ze.squeeze(-1) + weights[0]).sigmoid(),
        F.logsigmoid(za.squeeze(-1) + 1),
    )


def fixed_rates(reads, extras, weights):
    """One rate per head, nothing forgotten."""
    zk, zv = reads
    return l2norm(zk), l2norm(zv) + 0.1 * extras[0], weights[0].sigmoid(), None


FLOWS = {
    "read": (read_rates, {"key": K, "value": K, "eta": 1, "alpha": 1}),
    "fixed": (fixed_rates, {"key": K, "value": K}),
}


class Case:
    """Inputs of one call; box `memory` is read from outside, box `aside` not at all."""

    def __init__(
        self,
        T: int,
        chunk: int,
        *,
        flow="read",
        to_start=True,
        fresh=False,
        two=False,
        seed=0,
        dtype=torch.float64,
        **options,
    ):
        """fresh: every box is at its start."""
        g = torch.Generator().manual_seed(seed)
        normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)
        self.flow, read = FLOWS[flow]
        self.rows = {**read, "memory": K, "aside": 3}
        make = lambda: {box: 0.5 * normal(B, H, n, K) for box, n in self.rows.items()}
        self.now, self.held, start = make(), make(), make()
        self.start = {box: x[0].clone() for box, x in start.items()} if to_start else None
        self.x, self.x2, self.q, self.extra = (normal(B, T, H, K) for _ in range(4))
        self.weight = normal(H)
        self.leaves = [*(self.start or {}).values()]
        self.leaves += [] if fresh else [*self.now.values(), *self.held.values()]
        self.leaves += [self.x, self.x2, self.q, self.extra, self.weight]
        for leaf in self.leaves:
            leaf.requires_grad_()
        if fresh:
            self.now = {box: x.expand(B, *x.shape) for box, x in self.start.items()}
            self.held = self.now
        self.boxes, self.chunk, self.two, self.options, self.T = list(read), chunk, two, options, T

    def states(self) -> dict[str, dict[str, Tensor]]:
        hold = lambda box: {"held.M": self.held[box]} if self.chunk > 1 else {}
        return {box: {"M": self.now[box], **hold(box)} for box in self.rows}

    def queries(self, part: slice = slice(None)):
        if self.two:
            return ((self.x[:, part], self.boxes[:1]), (self.x2[:, part], self.boxes[1:]))
        return ((self.x[:, part], self.boxes),)

    def fast(self, part: slice = slice(None), states=None, **more) -> tuple[Shared, Tensor]:
        options = self.options | more
        states = self.states() if states is None else states
        options |= {"chunk": self.chunk, "start": self.start}
        s = shared_product(self.flow, states, self.queries(part), (self.extra[:, part],), (self.weight,), **options)
        return s, s.read("memory", self.q[:, part])

    def values(self) -> list[Tensor]:
        s, y = self.fast()
        streams = [x for x in (s.k, s.v, s.rate, s.keep) if x is not None]
        return [*streams, y, *(s.state[box][n] for box in self.rows for n in s.state[box])]

    def naive(self) -> list[Tensor]:
        """Token by token: every box by its own rank-one write towards its own value."""
        o = {"phase": 0, "erase": True, "objective": "l2", "kept": False, "learn": True} | self.options
        now, held = dict(self.now), dict(self.held)
        streams, ys = [], []
        apply = lambda M, x: torch.einsum("bhrk,bhk->bhr", M, x)
        for t in range(self.T):
            if (o["phase"] + t) % self.chunk == 0:
                held = now
            seen = {box: past(M) for box, M in held.items()}
            zs = tuple(apply(seen[box], x[:, t])[:, None] for x, boxes in self.queries() for box in boxes)
            token = self.flow(zs, (self.extra[:, t : t + 1],), (self.weight,))
            ys.append(apply(seen["memory"], self.q[:, t]))
            k, v, e, keep = token
            e = e.expand(B, 1, H)
            streams.append([k, v, e] + ([] if keep is None else [keep]))
            if o["learn"]:
                a = 1.0 if keep is None else keep[:, 0].exp()[..., None, None]
                now = {box: self.written(box, now[box], held[box], k[:, 0], v[:, 0], e[:, 0], a, o) for box in now}
        if (o["phase"] + self.T) % self.chunk == 0:
            held = now
        ends = [x[box] for box in now for x in ((now, held) if self.chunk > 1 else (now,))]
        return [*(torch.cat(x, 1) for x in zip(*streams, strict=True)), torch.stack(ys, 1), *ends]

    def written(self, box, M, held, k, v, e, a, o: Mapping) -> Tensor:
        apply = lambda W, x: torch.einsum("bhrk,bhk->bhr", W, x)
        back = 0 if self.start is None else (1 - a) * self.start[box]
        u = -apply(held, v)
        if o["objective"] == "l2":
            u = u + apply(a * held + back if o["kept"] else held, k)
        if o["erase"]:
            u = u + apply(M, k)
        return a * M + back - e[..., None, None] * u[..., :, None] * k[..., None, :]


def probe(tensors) -> Tensor:
    g = torch.Generator().manual_seed(1)
    weigh = lambda x: torch.randn(x.shape, generator=g, dtype=torch.float64).to(x.dtype)
    return sum((weigh(x) * (x + x**2)).sum() for x in tensors)


def same(got, want, tolerance: float) -> None:
    floor = 1e-6 * max(x.norm().item() for x in want if x is not None)
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if a is None and b is None:
            continue
        a = torch.zeros_like(b) if a is None else a
        b = torch.zeros_like(a) if b is None else b
        error = (a - b).norm().item() / max(b.norm().item(), floor, 1e-300)
        assert error < tolerance, f"tensor {i}: relative error {error:.1e}"


def drawn(seed: int) -> Case:
    r = random.Random(seed)
    chunk = r.choice([1, 2, 4, 8, 16])
    to_start = r.random() < 0.6
    fresh = to_start and r.random() < 0.5
    return Case(
        r.choice([1, 3, 8, 16, 19]),
        chunk,
        flow=r.choice(["read", "read", "fixed"]),
        to_start=to_start,
        fresh=fresh,
        two=r.random() < 0.4,
        seed=seed,
        phase=0 if fresh else r.randrange(chunk),
        erase=r.random() < 0.7,
        objective=r.choice(["l2", "l2", "dot"]),
        kept=r.random() < 0.3,
        learn=r.random() < 0.9,
    )


@pytest.mark.parametrize("group", range(4))
def test_values_and_gradients_equal_the_loop(group):
    for seed in range(100 * group, 100 * group + 12):
        case = drawn(seed)
        got, want = case.values(), case.naive()
        same(got, want, 1e-10)
        a, b = (torch.autograd.grad(probe(x), case.leaves, allow_unused=True) for x in (got, want))
        same(a, b, 1e-9)


@pytest.mark.parametrize("group", range(3))
def test_own_errors_equal_the_loop(group):
    """Along a token's own path, and the outer gradient of those errors (meta: full)."""
    for seed in range(100 * group, 100 * group + 12):
        case = drawn(seed)
        found = []
        for values in (case.values(), case.naive()):
            streams = values[: 5 if case.flow is read_rates else 4]
            errors = own_errors(probe(streams), [case.x, case.x2, case.q, case.extra], create_graph=True)
            outer = torch.autograd.grad(probe(errors), case.leaves, allow_unused=True)
            found.append([*errors, *outer])
        same(*found, 1e-8)


@pytest.mark.parametrize("together", [1, 2, 100])
def test_chunks_taken_together_give_the_same_gradient(together, monkeypatch):
    """All of them, as on a GPU, or each alone."""
    case = Case(40, 8, two=True)
    alone = torch.autograd.grad(probe(case.values()), case.leaves, allow_unused=True)
    monkeypatch.setattr(stack, "NUMBERS", together * case.x[:, :8].numel())
    same(torch.autograd.grad(probe(case.values()), case.leaves, allow_unused=True), alone, 1e-12)


@pytest.mark.parametrize("T", [63, 100])
def test_lengths_that_do_not_divide(T):
    case = Case(T, 16, phase=5)
    got, want = case.values(), case.naive()
    same(got, want, 1e-10)
    same(*(torch.autograd.grad(probe(x), case.leaves, allow_unused=True) for x in (got, want)), 1e-9)


@pytest.mark.parametrize("kept", [False, True])
def test_explicit_gradient_passes_gradcheck(kept):
    case = Case(6, 3, kept=kept)
    tensors = tuple(x for x in case.leaves if not any(x is h for h in case.held.values()))

    def run(*_: Tensor) -> tuple[Tensor, ...]:
        return tuple(case.values())

    assert gradcheck(run, tensors, fast_mode=True, atol=1e-6)


@pytest.mark.parametrize("split", [1, 5, 8, 13, 18])
def test_pieces_equal_the_whole(split):
    case = Case(19, 8)
    whole, y = case.fast(phase=3)
    a, first = case.fast(slice(0, split), phase=3)
    b, second = case.fast(slice(split, None), a.state, phase=3 + split)
    same([torch.cat((first, second), 1), torch.cat((a.k, b.k), 1)], [y, whole.k], 1e-12)
    for box, parts in whole.state.items():
        same([b.state[box][n] for n in parts], list(parts.values()), 1e-12)


@pytest.mark.parametrize("phase", [0, 3])
def test_a_readout_is_the_read_of_the_whole_box(phase):
    """w S obeys the product that S does: the same values and gradients, read-out weights included."""
    case = Case(19, 8, flow="fixed", phase=phase)
    w = torch.randn(H, K, 3, dtype=torch.float64, requires_grad=True)

    def inside(reads, extras, weights):
        return fixed_rates((reads[0], torch.einsum("bthr,hor->btho", reads[1], weights[1])), extras, weights)

    case.boxes = ["key", "aside"]
    found = []
    for flow, weights, readouts in ((inside, (case.weight, w), None), (fixed_rates, (case.weight,), {"aside": w})):
        options = {"chunk": 8, "phase": phase, "start": case.start, "readouts": readouts}
        s = shared_product(flow, case.states(), case.queries(), (case.extra,), weights, **options)
        y = s.read("memory", case.q)
        state = [s.state[box]["M"] for box in case.rows]
        for used in ([y], [y, *state]):
            found.append(
                [*used, *torch.autograd.grad(probe(used), [*case.leaves, w], allow_unused=True, retain_graph=True)]
            )
    same(found[2], found[0], 1e-9)
    same(found[3], found[1], 1e-9)


@pytest.mark.parametrize("splits", [(), (5,), (8,), (8, 16), (3, 5, 18)], ids=str)
@pytest.mark.parametrize("learn", [True, False])
def test_a_final_state_that_began_from_its_start_goes_on_as_one_product(splits, learn):
    """Where nobody reads the states: the same to every read, in any pieces, and to whoever asks for them after all."""
    case = Case(19, 8, fresh=True, learn=learn)
    w = torch.randn(H, 1, K, dtype=torch.float64, requires_grad=True)
    case.options["readouts"] = {"eta": w}
    case.start["eta"] = (0.9 * case.start["key"]).detach().requires_grad_()
    case.now["eta"] = case.held["eta"] = case.start["eta"].expand(B, H, K, K)
    found = []
    for final in (False, True):
        states, parts = case.states(), []
        for a, b in pairwise((0, *splits, 19)):
            shared, y = case.fast(slice(a, b), states, phase=a % 8, final=final or (a > 0 and b < 19))
            states, parts = shared.state, [*parts, y]
            assert set(states["memory"]) == ({"product", "held.product"} if final else {"M", "held.M"}) or b < 19
        if final:
            shared, _ = case.fast(slice(0, 1), states, phase=3, learn=False)  # and now somebody does
        ys = [torch.cat(parts, 1), shared.state["memory"]["M"], shared.state["eta"]["M"]]
        found.append([*ys, *torch.autograd.grad(probe(ys), [*case.leaves, w], allow_unused=True)])
    same(found[1], found[0], 1e-12)


@pytest.mark.parametrize("own", [lambda x: x.detach().clone(), lambda x: x.detach()], ids=["copied", "on the start"])
def test_a_state_of_ones_own_gets_its_gradient(own):
    """Whatever memory its numbers lie in."""
    case = Case(11, 4, fresh=True)
    mine = {box: own(x).requires_grad_() for box, x in case.now.items()}
    case.now = case.held = mine
    got, want = case.values(), case.naive()
    leaves = [*case.leaves, *mine.values()]
    same(*(torch.autograd.grad(probe(x), leaves, allow_unused=True) for x in (got, want)), 1e-9)


@pytest.mark.parametrize("T, chunk", [(3, 8), (19, 8), (3, 1)])
def test_a_few_tokens_are_written_row_by_row(T, chunk, monkeypatch):
    """As in generation; the same values and gradients as by products."""
    case = Case(T, chunk)
    by_products = case.values()
    gradients = torch.autograd.grad(probe(by_products), case.leaves, allow_unused=True)
    monkeypatch.setattr(Running, "few", lambda self, tokens: tokens < 8)
    by_rows = case.values()
    same(by_rows, by_products, 1e-12)
    same(torch.autograd.grad(probe(by_rows), case.leaves, allow_unused=True), gradients, 1e-10)


def test_identical_tokens_in_float32():
    case, low = Case(128, 64, seed=3), Case(128, 64, seed=3, dtype=torch.float32)
    for c in (case, low):
        c.x, c.extra = (x[:, :1].expand_as(x) for x in (c.x, c.extra))
        c.weight = torch.full_like(c.weight, 8.0)
    same([x.double() for x in low.values()], case.values(), 1e-4)


def test_only_boundaries_are_saved():
    """Bytes kept for backward: the inputs, one product per chunk, what each token is written with and its row of a
    block; nothing per pair of a chunk's tokens."""
    case = Case(256, 128, fresh=True)
    saved: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        case.fast(outputs=False)
    start = sum(x.nbytes for x in case.start.values())
    product = B * H * K * K * case.x.element_size()  # also the size of the box that is read from outside
    tokens = sum(x.nbytes for x in (case.x, case.extra, case.q))
    rows = B * 256 * H * (K + BLOCK) * case.x.element_size()
    assert sum(saved.values()) < 2 * start + 2 * (256 // 128 + 1) * product + 2 * tokens + rows


def test_outputs_may_be_left_out():
    case = Case(10, 4)
    s, y = case.fast(outputs=False)
    assert s.k is s.v is s.rate is s.keep is None
    same([y], [case.fast()[1]], 1e-14)


def test_a_second_derivative_is_refused():
    case = Case(8, 4)
    with pytest.raises(RuntimeError, match="no second derivative outside own_errors"):
        torch.autograd.grad(probe(case.values()), case.x, create_graph=True)
