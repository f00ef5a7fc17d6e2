"""`memory`: the closed forms against the token loop, the token loop against the equations, gradients and own errors
too."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.ops.forms import Form, Matrix, Mlp, Swiglu, Vector
from runtime.ops.history import own_errors
from runtime.ops.memories import Write, memory
from runtime.ops.recurrence import log_share, plan

B, H, K, HIDDEN = 2, 2, 4, 5
MOMENTS = ("chunk", "before", "after")


def shapes(form: Form) -> dict[str, tuple[int, ...]]:
    if isinstance(form, Vector):
        return {"m": (H, K)}
    found: dict[str, tuple[int, ...]] = {}
    for i, layer in enumerate(form.layers):
        rows = K if layer is form.layers[-1] else HIDDEN
        columns = K if i == 0 or layer.weight == "W_in" else HIDDEN
        found[layer.weight] = (H, rows, columns)
        if layer.bias:
            found[layer.bias] = (H, rows)
    return found


class Case:
    """Inputs of one call, every tensor a leaf."""

    def __init__(
        self, write: Write, T: int, *, pairs: int = 1, to_start: bool = False, keep: str = "head", seed: int = 0
    ):
        g = torch.Generator().manual_seed(seed)
        normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
        make = lambda: {part: 0.5 * normal(B, *shape) for part, shape in shapes(write.form).items()}
        self.write, self.T = write, T
        self.state = make()
        if write.chunk > 1:
            self.state |= {f"held.{part}": x for part, x in make().items()}
        if write.momentum:
            self.state |= {f"rule.m.{part}": x for part, x in make().items()}
        self.start = {part: x[0].clone() for part, x in make().items()} if to_start else None
        P = (pairs,) if pairs > 1 else ()
        self.k = F.normalize(normal(B, T, *P, H, K), dim=-1)
        self.v = normal(B, T, *P, H, K)
        self.rate = 0.5 * torch.sigmoid(normal(B, T, H))
        logs = {"none": None, "head": (B, T, H), "channel": (B, T, H, K)}[keep]
        self.keep = None if logs is None else -0.3 * torch.rand(*logs, generator=g, dtype=torch.float64)
        self.beta = torch.sigmoid(normal(B, T, H)) if write.momentum else None
        self.queries = tuple((normal(B, T, H, K), when) for when in MOMENTS)
        self.tokens = [x for x in (self.k, self.v, self.rate, self.keep, self.beta) if x is not None]
        self.tokens += [q for q, _ in self.queries]
        self.leaves = [*self.state.values(), *(self.start or {}).values(), *self.tokens]
        for x in self.leaves:
            x.requires_grad_()

    def run(self, state: dict[str, Tensor] | None = None, part: slice = slice(None), **options):
        cut = lambda x: None if x is None else x[:, part]
        queries = tuple((q[:, part], when) for q, when in self.queries)
        options.setdefault("beta", cut(self.beta))
        state = self.state if state is None else state
        tokens = (cut(self.k), cut(self.v), cut(self.rate), cut(self.keep))
        return memory(self.write, state, *tokens, self.start, queries, **options)


def probe(tensors: list[Tensor]) -> Tensor:
    """A scalar that every entry moves differently, and not linearly."""
    total = torch.zeros((), dtype=torch.float64)
    g = torch.Generator().manual_seed(1)
    for x in tensors:
        total = total + (torch.randn(x.shape, generator=g, dtype=torch.float64) * (x + x**2)).sum()
    return total


def same(got: list[Tensor | None], want: list[Tensor | None], tolerance: float) -> None:
    """Relative error of every tensor, those near zero against the largest."""
    floor = 1e-6 * max((x.norm().item() for x in want if x is not None), default=1.0)
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if a is None and b is None:
            continue
        a = torch.zeros_like(b) if a is None else a
        b = torch.zeros_like(a) if b is None else b
        error = (a - b).norm().item() / max(b.norm().item(), floor, 1e-300)
        assert error < tolerance, f"tensor {i}: relative error {error:.1e}"


def results(case: Case, mode: str, **options) -> tuple[list[Tensor], list[Tensor | None]]:
    """Values, and gradients: of everything (`outer`), or own errors and the outer gradient of those (`own`)."""
    reads, state = case.run(**options)
    if mode == "own":
        errors = own_errors(probe(list(reads)), case.tokens, create_graph=True)
        outer = torch.autograd.grad(probe(list(errors)), case.leaves, allow_unused=True)
        return list(reads), [*errors, *outer]
    values = [*reads, *(state[name] for name in sorted(state))]
    return values, list(torch.autograd.grad(probe(values), case.leaves, allow_unused=True))


def mixing(p: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """An objective's slope that mixes the entries of one prediction, and stays bounded."""
    return torch.tanh(p - v) + 0.3 * torch.tanh((p - v).sum(-1, keepdim=True)) * k


FORMS = [
    Matrix(),
    Vector(),
    Mlp(),
    Mlp(bias=True, norm="layernorm", depth=3),
    Swiglu(bias=True),
    Mlp(normalise_hidden=True),
]
OBJECTIVES: list[tuple[str | Callable, tuple[float, ...]]] = [
    ("l2", ()), ("l2", ()), ("dot", ()), ("lp", (1.5,)), ("huber", (0.7,)), (mixing, ()),
]  # fmt: skip


def drawn(seed: int) -> tuple[Case, dict]:
    r = random.Random(seed)
    momentum = r.random() < 0.3
    objective, params = r.choice(OBJECTIVES)
    write = Write(
        form=r.choice([*FORMS, Matrix(), Matrix(), Matrix()]),
        objective=objective,
        erase=not momentum and r.random() < 0.6,
        chunk=r.choice([1, 1, 2, 3, 5, 16]),
        kept=r.random() < 0.3,
        meta=r.choice(["full", "full", "first_order", "none"]),
        self_values=r.random() < 0.4,
        momentum=momentum,
    )
    keeps = ["none", "head", "head"] + ["channel"] * isinstance(write.form, Vector)
    pairs = r.choice([1, 1, 1, 2])
    case = Case(write, r.choice([1, 2, 7, 19]), pairs=pairs, to_start=r.random() < 0.4, keep=r.choice(keeps), seed=seed)
    return case, {"phase": r.randrange(write.chunk), "params": params, "block": r.choice([4, 8, 64])}


@pytest.mark.parametrize("mode", ["outer", "own"])
@pytest.mark.parametrize("group", range(6))
def test_closed_forms_equal_the_token_loop(group, mode):
    """Drawn settings: every form, objective, rule, meta, chunk, phase, block, retention, pairs."""
    for seed in range(100 * group, 100 * group + 12):
        case, options = drawn(seed)
        for own in {True, mode == "own"}:
            got = results(case, mode, own=own, **options)
            want = results(case, mode, own=own, **options | {"block": 0})
            same(got[0], want[0], 1e-10)
            same(got[1], want[1], 1e-8)


@pytest.mark.parametrize("chunk", [1, 4, 16, 64])
@pytest.mark.parametrize("T", [1, 63, 100])
def test_lengths_and_chunks(T, chunk):
    case = Case(Write(erase=True, self_values=True, chunk=chunk), T, to_start=True)
    got, want = results(case, "outer"), results(case, "outer", block=0)
    same(got[0], want[0], 1e-10)
    same(got[1], want[1], 1e-8)


@pytest.mark.parametrize("block", [0, 8])
@pytest.mark.parametrize("form", [Matrix(), Mlp(bias=True), Vector()], ids=["matrix", "mlp", "vector"])
@pytest.mark.parametrize("split", [1, 4, 6, 12])
def test_pieces_equal_the_whole(split, form, block):
    case = Case(Write(form=form, momentum=True, chunk=4), 13, to_start=True)
    whole, last = case.run(phase=2, block=block)
    a, state = case.run(part=slice(0, split), phase=2, block=block)
    b, state = case.run(state, slice(split, None), phase=2 + split, block=block)
    same([torch.cat(x, 1) for x in zip(a, b, strict=True)], list(whole), 1e-12)
    same([state[n] for n in last], list(last.values()), 1e-12)


@pytest.mark.parametrize("block", [0, 64])
def test_equation_of_delta_gradient_descent(block):
    """M <- M (a I - e k k^T) - e (M' k - M' v) k^T, NL eqs. 88-93, in plain loops; reads before and after."""
    case = Case(Write(erase=True, self_values=True, chunk=3), 8)
    (chunk, before, after), state = case.run(block=block)
    for b in range(B):
        for h in range(H):
            M = held = case.state["M"][b, h]
            for t in range(8):
                if t % 3 == 0:
                    held = M
                k, v, e, a = case.k[b, t, h], case.v[b, t, h], case.rate[b, t, h], case.keep[b, t, h].exp()
                q = [x[b, t, h] for x, _ in case.queries]
                assert torch.allclose(chunk[b, t, h], held @ q[0])
                assert torch.allclose(before[b, t, h], M @ q[1])
                eye = torch.eye(K, dtype=torch.float64)
                M = M @ (a * eye - e * torch.outer(k, k)) - e * torch.outer(held @ k - held @ v, k)
                assert torch.allclose(after[b, t, h], M @ q[2])
            assert torch.allclose(state["M"][b, h], M)
            assert torch.allclose(state["held.M"][b, h], held)


@pytest.mark.parametrize("block", [0, 64])
def test_equation_of_the_gated_delta_rule_with_momentum(block):
    """m <- b m - e G(kept M), M <- a M + m: Titans' momentum; the gradient at the state after retention."""
    case = Case(Write(momentum=True, kept=True), 8)
    (_, _, after), state = case.run(block=block)
    M, m = case.state["M"], case.state["rule.m.M"]
    for t in range(8):
        k, v = case.k[:, t, :, :, None], case.v[:, t, :, :, None]
        e, a, b = (x[:, t, :, None, None] for x in (case.rate, case.keep.exp(), case.beta))
        m = b * m - e * (a * M @ k - v) @ k.mT
        M = a * M + m
        assert torch.allclose(after[:, t], (M @ case.queries[2][0][:, t, :, :, None]).squeeze(-1))
    assert torch.allclose(state["M"], M)
    assert torch.allclose(state["rule.m.M"], m)


def test_retention_per_key_channel():
    """M <- M diag(a) - e (M diag(a) k - v) k^T: Kimi delta attention."""
    case = Case(Write(kept=True), 6, keep="channel")
    (_, _, after), _ = case.run()
    M = case.state["M"]
    for t in range(6):
        k, v = case.k[:, t, :, :, None], case.v[:, t, :, :, None]
        M = M * case.keep[:, t].exp().unsqueeze(-2)
        M = M - case.rate[:, t, :, None, None] * (M @ k - v) @ k.mT
        assert torch.allclose(after[:, t], (M @ case.queries[2][0][:, t, :, :, None]).squeeze(-1))


def test_any_rule_is_called_once_for_each_write_and_part():
    """A rule without a closed form: normalised gradient descent that counts; then dgd written as such a rule."""
    counts = []

    def normalised(*, grad, lr, count, state, **_):
        counts.append(int(count.flatten()[0]))
        seen = state["n"] + grad**2
        return -lr * grad / (seen.sqrt() + 1e-8), {"n": seen}

    case = Case(Write(form=Mlp(bias=True), chunk=2, rule=normalised, rule_state=("n",)), 3)
    state = case.state | {f"rule.n.{part}": torch.zeros_like(case.state[part]) for part in case.write.form.parts}
    _, after = case.run(state | {"rule.count": torch.full((len(case.state["W_in"]),), 7.0)})
    assert sorted(counts) == sorted([8, 9, 10] * 4)
    assert all(after[f"rule.n.{part}"].any() for part in case.write.form.parts)

    def dgd(*, grad, weight, lr, gram, state, **_):
        return -lr * (grad + weight @ gram if gram.dim() == 4 else grad), state

    form = Mlp(bias=True)
    plain, written = Case(Write(form=form, erase=True, chunk=3), 7), Case(Write(form=form, rule=dgd, chunk=3), 7)
    same(results(plain, "outer")[0], results(written, "outer")[0], 1e-12)


def test_identical_keys_at_full_rate_stay_exact():
    """Repeated tokens make I + N far from the identity: substitution holds where a Neumann series loses all digits."""
    case = Case(Write(erase=True), 128, keep="none")
    case.k = case.k[:, :1].expand_as(case.k)
    case.rate = torch.full_like(case.rate, 0.999)
    exact, _ = case.run(block=0)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        low = {name: x.to(dtype) for name, x in case.state.items()}
        queries = tuple((q.to(dtype), when) for q, when in case.queries)
        got, _ = memory(case.write, low, case.k.to(dtype), case.v.to(dtype), case.rate.to(dtype), None, queries=queries)
        same([x.double() for x in got], list(exact), tolerance)


def test_strong_forgetting_does_not_divide():
    case = Case(Write(erase=True), 70)
    case.keep = torch.full_like(case.keep, -40.0)
    reads, state = case.run()
    assert all(torch.isfinite(x).all() for x in (*reads, state["M"]))
    same(list(reads), list(case.run(block=0)[0]), 1e-10)


def test_learning_off_reads_and_holds():
    case = Case(Write(chunk=4, erase=True), 6)
    (chunk, before, after), state = case.run(phase=2, learn=False)
    now, held = case.state["M"], case.state["held.M"]
    see = lambda M, q, part: torch.einsum("bhoi,bthi->btho", M, q[:, part])
    q = [x for x, _ in case.queries]
    assert torch.allclose(chunk[:, :2], see(held, q[0], slice(0, 2)))
    assert torch.allclose(chunk[:, 2:], see(now, q[0], slice(2, 6)))
    assert torch.allclose(before, see(now, q[1], slice(None)))
    assert torch.allclose(after, see(now, q[2], slice(None)))
    assert torch.equal(state["M"], now)
    assert torch.equal(state["held.M"], now)
    _, early = case.run(part=slice(0, 1), phase=2, learn=False)
    assert torch.equal(early["held.M"], held)


def test_numbers_and_key_heads_broadcast():
    case = Case(Write(), 5, keep="none")
    k, v = case.k[:, :, :1], case.v[:, :, :1]
    few = memory(case.write, case.state, k, v, 0.5, torch.tensor(-0.1, dtype=torch.float64), None, case.queries)
    full = torch.full((B, 5, H), 0.5, dtype=torch.float64)
    many = memory(
        case.write, case.state, k.expand_as(case.k), v.expand_as(case.v), full, -0.2 * full, None, case.queries
    )
    same(list(few[0]), list(many[0]), 1e-12)


def test_settings_that_do_not_fit_are_refused():
    case = Case(Write(form=Mlp()), 2, keep="channel")
    with pytest.raises(ValueError, match="retention per key channel"):
        case.run()
    with pytest.raises(ValueError, match="momentum needs beta"):
        Case(Write(momentum=True), 2).run(beta=None)
    with pytest.raises(ValueError, match="do not divide"):
        memory(Write(), {"M": torch.zeros(1, 2, 4, 4)}, torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4), 1.0, None)


@pytest.mark.parametrize("phase", [0, 3])
@pytest.mark.parametrize(("chunk", "block"), [(1, 8), (5, 16), (7, 4), (16, 16)])
def test_plan_covers_every_token_once(chunk, block, phase):
    for T in (1, 6, 33):
        blocks = plan(T, chunk, phase, block)
        assert [b.first for b in blocks] == [sum(b.tokens for b in blocks[:i]) for i in range(len(blocks))]
        assert sum(b.tokens for b in blocks) == T
        for b in blocks:
            fresh = (b.first + phase) % chunk == 0
            assert b.outside == (not fresh)
            assert b.length <= max(block, 1)
            assert b.count == 1 or b.length % chunk == 0


def test_the_logarithm_of_a_share_is_finite_at_zero_and_nothing_below():
    share = torch.tensor([0.0, 1e-30, 0.25, 1.0], dtype=torch.float64, requires_grad=True)
    log = log_share(share)
    (slope,) = torch.autograd.grad(log.sum(), share)
    assert torch.allclose(log.exp(), share, rtol=0, atol=1e-12)
    assert slope.tolist() == pytest.approx([0.0, 1e30, 4.0, 1.0])
    assert log_share(torch.tensor([-1e-7])).isfinite().all()
    assert log_share(torch.tensor([-0.5])).isnan().all()


@pytest.mark.parametrize("form", [Matrix(), Vector(), Mlp()])
def test_momentum_below_zero_needs_the_token_loop(form):
    case = Case(Write(form=form, momentum=True, chunk=3), 5)
    case.beta = -case.beta.detach()
    assert all(y.isfinite().all() for y in case.run(block=0)[0])
    assert any(y.isnan().any() for y in case.run(block=16)[0])


@pytest.mark.parametrize("block", [0, 16])
def test_a_vectors_register_may_hold_more_than_vectors(block):
    case = Case(Write(form=Vector(), chunk=3), 5)
    reads, state = case.run(block=block)
    more, after = case.run(state=case.state | {"origin": torch.zeros(B)}, block=block)
    same([*reads, *state.values()], [*more, *(after[name] for name in state)], 1e-12)
