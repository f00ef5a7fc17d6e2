"""The update rules of specs/rules in NumPy, each as its equations: what the other forms of a rule are judged by.

A rule is a function of (grad, weight, start, lr, count, gram, state, parameters) -> delta that changes `state`, a
dictionary that begins empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
A, B, C = 3.4445, -4.7750, 2.0315


def newton_schulz(G: Array, steps: int = 5) -> Array:
    X = G / (np.linalg.norm(G) + 1e-7)
    tall = X.shape[0] > X.shape[1]
    X = X.T if tall else X
    for _ in range(steps):
        S = X @ X.T
        X = A * X + (B * S + C * S @ S) @ X
    return X.T if tall else X


def kept(state: dict[str, Array], name: str, like: Array) -> Array:
    return state.get(name, np.zeros_like(like))


def gd(g, W, W0, lr, n, gram, s):
    return -lr * g


def momentum(g, W, W0, lr, n, gram, s, beta=0.9, nesterov=False):
    s["m"] = beta * kept(s, "m", g) - lr * g
    return beta * s["m"] - lr * g if nesterov else s["m"]


def preconditioned_momentum(g, W, W0, lr, n, gram, s, beta=0.9, beta2=0.99, eps=1e-8):
    s["p"] = beta2 * kept(s, "p", g) + (1 - beta2) * g**2
    s["m"] = beta * kept(s, "m", g) - lr * g / (np.sqrt(s["p"]) + eps)
    return s["m"]


def delta_momentum(g, W, W0, lr, n, gram, s, beta=0.9, target=1.0):
    P = target * np.eye(g.shape[0])
    s["m"] = kept(s, "m", g) @ (beta * np.eye(g.shape[1]) - lr * g.T @ g) - lr * P @ g
    return s["m"]


def adagrad(g, W, W0, lr, n, gram, s, eps=1e-10):
    s["total"] = kept(s, "total", g) + g**2
    return -lr * g / (np.sqrt(s["total"]) + eps)


def rmsprop(g, W, W0, lr, n, gram, s, beta=0.99, eps=1e-8):
    s["v"] = beta * kept(s, "v", g) + (1 - beta) * g**2
    return -lr * g / (np.sqrt(s["v"]) + eps)


def adam(g, W, W0, lr, n, gram, s, betas=(0.9, 0.999), eps=1e-8):
    b1, b2 = betas
    s["m"] = b1 * kept(s, "m", g) + (1 - b1) * g
    s["v"] = b2 * kept(s, "v", g) + (1 - b2) * g**2
    return -lr * s["m"] / (1 - b1**n) / (np.sqrt(s["v"] / (1 - b2**n)) + eps)


def adamw(g, W, W0, lr, n, gram, s, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    return adam(g, W, W0, lr, n, gram, s, betas, eps) - lr * weight_decay * W


def ftrl(g, W, W0, lr, n, gram, s, beta=1.0, l1=0.0, l2=0.0):
    """McMahan et al. 2013, algorithm 1, with alpha = lr, around W0."""
    total = kept(s, "n", g)
    sigma = (np.sqrt(total + g**2) - np.sqrt(total)) / lr
    s["z"] = kept(s, "z", g) + g - sigma * (W - W0)
    s["n"] = total + g**2
    z = s["z"]
    moved = -(z - np.sign(z) * l1) / ((beta + np.sqrt(s["n"])) / lr + l2)
    return W0 + np.where(np.abs(z) <= l1, 0.0, moved) - W


def muon(g, W, W0, lr, n, gram, s, beta=0.95, nesterov=True, ns_steps=5, weight_decay=0.0):
    s["m"] = beta * kept(s, "m", g) + g
    step = newton_schulz(g + beta * s["m"] if nesterov else s["m"], ns_steps)
    return -lr * (np.sqrt(max(1.0, g.shape[0] / g.shape[1])) * step + weight_decay * W)


def dgd(g, W, W0, lr, n, gram, s, exact=False):
    rate = lr / (1 + lr * np.trace(gram)) if exact else lr
    return W @ (np.eye(len(gram)) - rate * gram) - rate * g - W


def m3(
    g, W, W0, lr, n, gram, s, beta1=0.9, beta2=0.999, beta3=0.9, alpha=1.0, eps=0.1, period=10, ns_steps=5, ema=False
):
    """Algorithm 1: the slow momentum moves before step n where n > 1 and (n - 1) mod period = 0."""
    past = s.setdefault("past", [])
    if n > 1 and (n - 1) % period == 0:
        total = sum(past[-period:])
        s["m2"] = beta3 * kept(s, "m2", g) + (1 - beta3) * total if ema else kept(s, "m2", g) + beta3 * total
        s["o2"] = newton_schulz(s["m2"], ns_steps)
    past.append(g)
    if ema:
        s["m1"] = beta1 * kept(s, "m1", g) + (1 - beta1) * g
        s["v"] = beta2 * kept(s, "v", g) + (1 - beta2) * g**2
    else:
        s["m1"] = kept(s, "m1", g) + beta1 * g
        s["v"] = kept(s, "v", g) + beta2 * g**2
    return -lr * (newton_schulz(s["m1"], ns_steps) + alpha * kept(s, "o2", g)) / (np.sqrt(s["v"]) + eps)


def deep_momentum(g, W, W0, lr, n, gram, s, inner=0.01):
    """m(u) = B tanh(A u), one step on sum over columns of |m(u) - u|^2 / 2 with u = -g, then delta = lr m(u)."""
    u, size = -g, g.shape[0]
    A, B = s.get("A", np.eye(size)), s.get("B", np.eye(size))
    h = np.tanh(A @ u)
    e = B @ h - u
    s["A"], s["B"] = A - inner * ((B.T @ e) * (1 - h**2)) @ u.T, B - inner * e @ h.T
    return lr * s["B"] @ np.tanh(s["A"] @ u)


def feature_momentum(g, W, W0, lr, n, gram, s, inner=0.01):
    """m is linear in phi(u) = (u, u^2, u^3), u = -g: one step on |m phi(u) - u|^2 / 2, then delta = lr m phi(u)."""
    u = -g
    phi = np.concatenate([u, u**2, u**3])
    M = s.get("M", np.eye(len(u), len(phi)))
    s["M"] = M - inner * (M @ phi - u) @ phi.T
    return lr * s["M"] @ phi


def kl(g, W, W0, lr, n, gram, s):
    """MIRAS, Memora: softmax(log W - lr g); the first W is that of the logits W0."""
    z = np.exp((W0 if n == 1 else np.log(W)) - lr * g)
    return z / z.sum(-1, keepdims=True) - W


def lq(g, W, W0, lr, n, gram, s, q=3.0, eps=1e-6):
    """MIRAS, Moneta: A = A - lr g, W = A / |A|_q^(q - 2)."""
    s["a"] = s.get("a", W0) - lr * g
    return s["a"] / (np.abs(s["a"]) ** q).sum() ** ((q - 2) / q) - W


def elastic_net(g, W, W0, lr, n, gram, s, l1=0.001):
    u = W - lr * g
    return np.sign(u) * np.maximum(np.abs(u) - l1, 0) - W


def sphere(g, W, W0, lr, n, gram, s):
    """Column by column: s <- s - lr (I - s s^T) g, then to length 1."""
    new = np.empty_like(W)
    for i in range(W.shape[1]):
        slot = W[:, i] / np.linalg.norm(W[:, i])
        slot = slot - lr * (np.eye(len(slot)) - np.outer(slot, slot)) @ g[:, i]
        new[:, i] = slot / np.linalg.norm(slot)
    return new - W


EQUATIONS = (
    gd, momentum, preconditioned_momentum, delta_momentum, adagrad, rmsprop, adam, adamw, ftrl, muon, dgd, m3,
    deep_momentum, feature_momentum, kl, lq, elastic_net, sphere,
)  # fmt: skip
ORACLES: dict[str, Callable[..., Any]] = {f.__name__: f for f in EQUATIONS}
