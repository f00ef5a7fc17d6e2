"""Operators, forms and `past` against their equations, forward and in two derivatives."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from nlc.interpret.operators import FUNCTIONS
from runtime.ops import basic
from runtime.ops.forms import Form, Matrix, Mlp, Swiglu, Vector, read
from runtime.ops.history import own_errors, past


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """Whichever tests ran before."""
    torch.manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_the_gradient_of_a_norm_of_tiny_numbers_is_finite() -> None:
    """norm^(p-1) is 0 in float32 from 1e-23 on for p = 3."""
    for x in (torch.full((2, 3), 1e-25), torch.full((2, 3), 1e-312, dtype=torch.float64), torch.zeros(2, 3)):
        x.requires_grad_()
        (got,) = torch.autograd.grad(basic.norm(x, 3.0).sum(), x)
        want = float(x.any()) * 3 ** (-2 / 3)  # (x / norm)^2
        assert torch.allclose(got, torch.full_like(got, want), rtol=1e-3)


@pytest.mark.parametrize("f", [basic.rmsnorm, basic.layernorm, basic.l2norm], ids=lambda f: f.__name__)
def test_norms_have_two_derivatives(f):
    x = normal(2, 3, 5)
    assert gradcheck(f, x)
    assert gradgradcheck(f, x)


def test_norms_match_equations():
    x, gain, bias = normal(2, 3, 5), normal(5), normal(5)
    mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    assert torch.allclose(basic.rmsnorm(x, gain), x / ((x**2).mean(-1, keepdim=True) + 1e-5).sqrt() * gain)
    assert torch.allclose(basic.layernorm(x, gain, bias), (x - mean) / (var + 1e-5).sqrt() * gain + bias)
    assert torch.allclose(basic.l2norm(x), x / x.norm(dim=-1, keepdim=True))


def test_l2norm_keeps_its_value_and_one_number_a_vector():
    x, kept = normal(2, 3, 5), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        basic.l2norm(x)
    assert kept == [(2, 3, 5), (2, 3, 1)]


def test_l2norm_of_a_tiny_vector_divides_by_the_floor():
    x = torch.full((1, 4), 1e-8, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(basic.l2norm(x).sum(), x)
    assert torch.allclose(basic.l2norm(x), x / 1e-6)
    assert torch.allclose(g, torch.full_like(x, 1e6))
    zero = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(basic.l2norm(zero).sum(), zero)
    assert torch.isfinite(g).all()


def test_softplus_is_exact_where_torch_takes_its_argument_for_it():
    x = torch.tensor(
        [-800.0, -50.0, -1.0, 0.0, 19.9, 20.1, 25.0, 39.9, 40.1, 800.0], dtype=torch.float64, requires_grad=True
    )
    exact = torch.tensor([math.log1p(math.exp(-abs(v))) + max(v, 0.0) for v in x.tolist()], dtype=torch.float64)
    for softplus in (basic.softplus, FUNCTIONS["softplus"]):
        (slope,) = torch.autograd.grad(softplus(x).sum(), x, create_graph=True)
        (curve,) = torch.autograd.grad(slope.sum(), x)
        assert torch.allclose(softplus(x), exact, rtol=1e-15, atol=0)
        share = torch.sigmoid(x.detach())
        assert torch.allclose(slope, share, rtol=1e-14, atol=0)
        assert torch.allclose(curve, share * torch.sigmoid(-x.detach()), rtol=1e-12, atol=2e-16)  # a slope of 1 rounds


def test_linear_has_one_weight_per_head():
    x, W, b, w = normal(2, 3, 4, 5), normal(4, 6, 5), normal(4, 6), normal(4, 1, 5)
    assert torch.allclose(basic.linear(x, W, b), torch.einsum("bthi,hoi->btho", x, W) + b)
    assert torch.allclose(basic.readout(x, w), torch.einsum("bthi,hi->bth", x, w[:, 0]))
    deep, V = normal(2, 3, 2, 2, 5), normal(2, 2, 6, 5)
    assert torch.allclose(basic.linear(deep, V), torch.einsum("btghi,ghoi->btgho", deep, V))


def test_align_appends_axes():
    assert basic.align(torch.zeros(2, 3, 4), 2).shape == (2, 3, 4, 1)
    assert basic.align(torch.zeros(2, 3), 0).shape == (2, 3)


@pytest.mark.parametrize("taps", [1, 2, 4])
def test_conv_streams_as_the_whole(taps):
    x, w = normal(2, 9, 3), normal(taps, 3)
    fresh = torch.zeros(2, taps - 1, 3, dtype=torch.float64)
    whole, last = basic.causal_conv(x, w, fresh)
    padded = torch.cat((fresh, x), 1)
    expected = sum(w[j] * padded[:, j : j + 9] for j in range(taps))
    assert torch.allclose(whole, expected)
    a, history = basic.causal_conv(x[:, :4], w, fresh)
    b, history = basic.causal_conv(x[:, 4:], w, history)
    assert torch.equal(torch.cat((a, b), 1), whole)
    assert torch.equal(history, last)


@pytest.mark.parametrize("taps", [1, 3])
def test_conv_has_two_derivatives(taps):
    x, w, history = normal(2, 5, 2, 3), normal(taps, 3), normal(2, taps - 1, 2, 3)
    assert gradcheck(basic.causal_conv, (x, w, history))
    assert gradgradcheck(basic.causal_conv, (x, w, history))


def test_conv_own_error_passes_the_last_tap_only():
    x, w = normal(1, 5, 3), normal(3, 3)
    y, _ = basic.causal_conv(x, w, torch.zeros(1, 2, 3, dtype=torch.float64))
    (error,) = own_errors(y.sum(), [x])
    assert torch.allclose(error, w[-1].expand_as(x))


def test_previous_streams_as_the_whole():
    x = normal(2, 5, 3)
    y, history = basic.previous(x, torch.zeros(2, 1, 3, dtype=torch.float64))
    assert torch.equal(y[:, 1:], x[:, :-1])
    assert not y[:, 0].any()
    assert torch.equal(history, x[:, -1:])


def test_rope_turns_pairs_by_position():
    x = normal(1, 3, 2, 4)
    y = basic.rope(x, position=5, base=100.0)
    for t in range(3):
        for i in range(2):
            angle = (5 + t) * 100.0 ** (-2 * i / 4)
            a, b = x[:, t, :, i], x[:, t, :, i + 2]
            assert torch.allclose(y[:, t, :, i], a * math.cos(angle) - b * math.sin(angle))
            assert torch.allclose(y[:, t, :, i + 2], a * math.sin(angle) + b * math.cos(angle))
    with pytest.raises(ValueError, match="must be even, not 3"):
        basic.rope(torch.zeros(1, 1, 3))


def test_newton_schulz_cubic_reaches_the_polar_factor():
    G = normal(2, 6, 4)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    assert torch.allclose(basic.newton_schulz(G, 40, basic.CUBIC), U @ Vh, atol=1e-8)


@pytest.mark.parametrize("shape", [(2, 6, 4), (6, 4), (2, 3, 6, 4)], ids=str)
def test_newton_schulz_of_a_transpose_is_the_transpose(shape):
    G = normal(*shape)
    assert torch.allclose(basic.newton_schulz(G.mT).mT, basic.newton_schulz(G), atol=1e-13)
    half = basic.newton_schulz_bfloat16(G.float())
    assert half.dtype == torch.float32 and half.is_contiguous()  # as the weights: what it meets is not walked across
    assert (half - basic.newton_schulz(G)).norm() < 0.03 * half.norm()  # 8 bits, five times


def test_small_operators():
    x, A, b = normal(2, 3, 4), normal(2, 3, 5, 4), normal(2, 3, 4)
    assert torch.equal(basic.poly(x, 3), torch.cat((x, x**2, x**3), -1))
    assert torch.allclose(basic.apply_matrix(A, b), torch.einsum("btnm,btm->btn", A, b))
    assert torch.allclose(basic.outer(x, b), torch.einsum("bti,btj->btij", x, b))
    assert torch.allclose(basic.trace(A[..., :4, :]), torch.einsum("btii->bt", A[..., :4, :]))
    assert torch.allclose(basic.norm(x, 3.0), (x.abs() ** 3).sum(-1) ** (1 / 3))
    assert torch.equal(basic.merge(basic.heads(x, 2)), x)


# ---- past


def test_past_is_open_outside_and_closed_inside():
    x, y = normal(3), normal(3)
    loss = (past(x) * y * y).sum()
    assert torch.allclose(torch.autograd.grad(loss, x, retain_graph=True)[0], y * y)
    a, b = own_errors(loss, [x, y], create_graph=True)
    assert not a.any()
    assert torch.allclose(b, 2 * x * y)
    assert torch.allclose(torch.autograd.grad(b.sum(), x)[0], 2 * y)  # the outer gradient sees the history


def test_own_errors_gives_zeros_where_nothing_reaches():
    x, y = normal(3), normal(2)
    constant = torch.ones(4)
    a, b, c = own_errors((x**2).sum(), [x, y, constant])
    assert torch.allclose(a, 2 * x)
    assert not b.any()
    assert not c.any()


# ---- forms

FORMS: dict[str, Form] = {
    "matrix": Matrix(),
    "vector": Vector(),
    "mlp": Mlp(),
    "mlp-norm-bias": Mlp(act="silu", norm="layernorm", bias=True),
    "mlp-deep": Mlp(act="tanh", depth=3, norm="rmsnorm", bias=True),
    "mlp-one": Mlp(depth=1, bias=True),
    "mlp-normalised": Mlp(normalise_hidden=True, residual=False),
    "mlp-softplus": Mlp(act="softplus"),
    "swiglu": Swiglu(),
    "swiglu-all": Swiglu(norm="rmsnorm", bias=True, normalise_hidden=True, residual=False),
}


def weights(form: Form, heads: int, width: int, hidden: int) -> dict[str, torch.Tensor]:
    if isinstance(form, Vector):
        return {"m": normal(2, heads, width)}
    first = {"W_in", "W_gate"} if isinstance(form, Swiglu) else {form.layers[0].weight}
    made = {}
    for layer in form.layers:
        rows = width if layer is form.layers[-1] else hidden
        columns = width if layer.weight in first else hidden
        made[layer.weight] = normal(2, heads, rows, columns)
        if layer.bias:
            made[layer.bias] = normal(2, heads, rows)
    return made


@pytest.mark.parametrize("name", FORMS)
def test_form_factors_equal_autograd(name):
    form = FORMS[name]
    W, x, u = weights(form, 2, 4, 5), normal(2, 6, 2, 4), normal(2, 6, 2, 4)
    scale = torch.rand(2, 6, 2, dtype=torch.float64)
    y, taps = form.read(W, x)
    grads, grams = form.sums(taps, form.errors(W, taps, u), weights=scale, gram=True)
    expected = torch.autograd.grad((y * u * scale[..., None]).sum(), list(W.values()))
    assert set(grads) == set(W) == set(form.parts)
    for got, want in zip((grads[n] for n in W), expected, strict=True):
        assert torch.allclose(got, want, atol=1e-12)
    for layer, (a, *_) in zip(form.layers, taps, strict=True):
        if layer.weight in grams:
            assert torch.allclose(grams[layer.weight], torch.einsum("bth,bthi,bthj->bhij", scale, a, a))
    first, _ = form.sums(taps, form.errors(W, taps, u), first_order=True)
    assert not any(g.requires_grad for g in first.values())


@pytest.mark.parametrize("name", FORMS)
def test_errors_of_a_form_do_not_need_what_its_read_knows_of_lengths(name):
    form = FORMS[name]
    W, x, u = weights(form, 2, 4, 5), normal(2, 6, 2, 4), normal(2, 6, 2, 4)
    _, taps = form.read(W, x)
    for mine, other in zip(form.errors(W, taps, u), form.errors(W, [tap[:2] for tap in taps], u), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 5), (1, 64, 1024)])
def test_gelu_of_few_and_of_many_numbers(shape):
    z, d = (normal(*shape).detach().float().requires_grad_() for _ in range(2))
    (slope,) = torch.autograd.grad(F.gelu(z), z, d)
    torch.testing.assert_close(basic.gelu(z), F.gelu(z))
    torch.testing.assert_close(torch.autograd.grad(basic.gelu(z), z, d)[0], slope)
    torch.testing.assert_close(basic.gelu_pull(z, d), slope)


@pytest.mark.parametrize("name", FORMS)
def test_form_reads_shared_weights(name):
    form = FORMS[name]
    W, x = weights(form, 2, 4, 5), normal(2, 6, 2, 4)
    shared = {n: w[0] for n, w in W.items()}
    copies = {n: w[:1].expand_as(w) for n, w in W.items()}
    assert torch.allclose(form.read(shared, x)[0], form.read(copies, x)[0])
    one = {n: w[:1] for n, w in shared.items()}
    assert torch.allclose(form.read(one, x[:, :, :1])[0], form.read(shared, x)[0][:, :, :1])


@pytest.mark.parametrize("heads", [0, 1, 2], ids=["no heads", "one for all heads", "heads"])
@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_is_called_is_read(name, heads):
    """Value, gradients and gradients of gradients."""
    form = FORMS[name]
    W = {n: w[0].detach() for n, w in weights(form, max(heads, 1), 4, 5).items()}
    W = {n: (w if heads else w[0]).requires_grad_() for n, w in W.items()}
    x = normal(2, 3, 2, 4) if heads else normal(2, 3, 4)
    y, (z, _) = form(W, x), form.read(W, x)
    u, leaves = torch.randn_like(y), [x, *W.values()]
    assert torch.equal(y, z)
    for got, want in zip(torch.autograd.grad(y, leaves, u), torch.autograd.grad(z, leaves, u), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    twice = [second(lambda: form(W, x), leaves, u), second(lambda: form.read(W, x)[0], leaves, u)]
    for got, want in zip(*twice, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def second(value, leaves, u):
    first = torch.autograd.grad(value().square(), leaves, u, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)


def test_a_form_that_is_called_multiplies_in_bfloat16_both_ways():
    form, x = FORMS["mlp-norm-bias"], torch.randn(2, 3, 4, requires_grad=True)
    W = {n: w[0, 0].detach().float().requires_grad_() for n, w in weights(form, 1, 4, 5).items()}
    leaves = [x, *W.values()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, (z, _) = form(W, x), form.read(W, x)
    assert torch.equal(y, z) and y.dtype == torch.float32
    for got, want in zip(torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(z.sum(), leaves), strict=True):
        assert got.dtype == torch.float32
        assert (got - want).norm() <= 1e-2 * want.norm()


def test_a_form_that_is_called_keeps_its_input_and_its_layers_outputs():
    form, x, kept = FORMS["mlp-norm-bias"], normal(2, 3, 4), []
    W = {n: w[0, 0].detach().requires_grad_() for n, w in weights(form, 1, 4, 5).items()}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        form(W, x)
    assert [t.shape for t in kept if not any(t is w for w in W.values())] == [x.shape, (2, 3, 5)]


def test_a_token_s_own_error_passes_a_called_form_to_its_input_only():
    form, x = FORMS["mlp"], normal(2, 3, 4)
    W = {n: w[0, 0].detach().requires_grad_() for n, w in weights(form, 1, 4, 5).items()}
    (own,) = own_errors(form(W, x).square().sum(), [x])
    (whole,) = torch.autograd.grad(form.read(W, x)[0].square().sum(), x)
    assert torch.allclose(own, whole)


def test_mlp_matches_its_equation():
    W, x = weights(Mlp(), 1, 4, 5), normal(2, 3, 1, 4)
    h = F.gelu(x.squeeze(2) @ W["W_in"][:, 0].mT)
    assert torch.allclose(read(Mlp(), W, x).squeeze(2), x.squeeze(2) + h @ W["W_out"][:, 0].mT)


def test_read_of_a_state_has_no_own_error():
    W, x = weights(Matrix(), 2, 4, 5), normal(2, 3, 2, 4)
    y = read(Matrix(), W, x)
    to_state, to_query = own_errors((y**2).sum(), [W["M"], x])
    assert not to_state.any()
    assert to_query.any()
    assert torch.autograd.grad((y**2).sum(), W["M"])[0].any()


def test_no_module_hides_behind_a_function_of_its_name():
    """`runtime.ops.x` is one thing."""
    import pkgutil

    import runtime.ops

    modules = {m.name for m in pkgutil.iter_modules(runtime.ops.__path__)}
    assert not [name for name in modules if callable(getattr(runtime.ops, name, None))]


def test_a_form_read_twice_is_differentiated_twice_by_each_read_alone():
    """The second read's input depends on the same parts: what reaches them by way of it is counted once."""
    form = Mlp(norm="layernorm", bias=True)
    g = torch.Generator().manual_seed(0)
    shapes = {"W_in": (6, 4), "b_in": (6,), "W_out": (4, 6), "b_out": (4,)}
    W = {name: torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_() for name, shape in shapes.items()}
    x = torch.randn(2, 3, 4, generator=g, dtype=torch.float64).requires_grad_()
    leaves = [x, *W.values()]

    def twice(read, create_graph):
        return torch.autograd.grad((read(read(x)) ** 2).sum(), leaves, create_graph=create_graph)

    plain = twice(lambda x: form.read(W, x)[0], True)
    for create_graph in (False, True):
        lean = twice(lambda x: form(W, x), create_graph)
        for a, b in zip(lean, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    second = [torch.autograd.grad(sum((d**2).sum() for d in found), leaves) for found in (lean, plain)]
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
