"""Texts and labels -> the label that a model finds likeliest after each text: log p(label, end of line | text, tab).

The text is read once.  From the state after it every label is read for itself, so that no label sees another, and no
text what was read in an earlier one.  A sum of log-probabilities only falls: a label whose beginning is already less
likely than some other whole label is not read to its end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from runtime.model import IGNORED, LanguageModel, State
from runtime.state import rows_of

ROWS = 256  # labels that are read at once: memory for the states of many more is asked of the system anew each time
PIECE = 4  # bytes of a label between two looks at which are still in question
PAD = ord("\n")


class Scores:
    """Of B texts and C labels: the sum so far of log-probabilities, and the best of a whole label.

    bytes_CL: the labels with their ends, padded; long_C: bytes of each.
    """

    def __init__(self, labels: Sequence[bytes], first_BV: Tensor, device: torch.device) -> None:
        wide = max(map(len, labels))
        self.bytes_CL = torch.tensor([[*label, *[PAD] * (wide - len(label))] for label in labels], device=device)
        self.long_C = torch.tensor([len(label) for label in labels], device=device)
        self.sum_BC = first_BV[:, self.bytes_CL[:, 0]].clone()
        self.whole_BC = torch.full_like(self.sum_BC, -torch.inf)
        self.take(*(x.flatten() for x in torch.meshgrid(
            torch.arange(len(first_BV), device=device), torch.arange(len(labels), device=device), indexing="ij"
        )), read=1)  # fmt: skip

    def take(self, b_N: Tensor, c_N: Tensor, read: int) -> None:
        """So many bytes of these labels have been read: those that have no more are whole."""
        over_N = self.long_C[c_N] <= read
        b_N, c_N = b_N[over_N], c_N[over_N]
        self.whole_BC[b_N, c_N] = self.sum_BC[b_N, c_N]

    @property
    def open_BC(self) -> Tensor:
        """Labels that could still be the likeliest."""
        best_B1 = self.whole_BC.max(1, keepdim=True).values
        return self.whole_BC.isinf() & (self.sum_BC > best_B1)


@torch.no_grad()
def likeliest(
    model: LanguageModel,
    text_BP: Tensor,
    labels: Sequence[bytes],
    *,
    taught: bool = False,
    state: State | None = None,
    learn: bool | Collection[str] = True,
) -> Tensor:
    """(B,) the place among `labels`, each with its end, of the one with the largest log-probability after its text.

    text_BP: the texts up to the byte that asks, equally long.  taught: whether a memory that learns from the loss may
    learn from the text, whose next bytes are known; a label it never may.  state: that every text goes on from.
    """
    following_BP = torch.full_like(text_BP, IGNORED)
    if taught:
        following_BP[:, :-1] = text_BP[:, 1:]
    logits_BPV, after = model.told(text_BP, following_BP, state, learn)
    scores = Scores(labels, nats(logits_BPV[:, -1]), text_BP.device)
    rows_B = torch.arange(len(text_BP), device=text_BP.device)
    leading_B = scores.sum_BC.argmax(1)
    first_B = scores.open_BC[rows_B, leading_B].nonzero().flatten()  # a whole label early leaves fewer in question
    follow(model, scores, after, first_B, leading_B[first_B], learn)
    open_N2 = scores.open_BC.nonzero()
    for at in range(0, len(open_N2), ROWS):
        b_N, c_N = open_N2[at : at + ROWS].unbind(1)
        still_N = scores.open_BC[b_N, c_N]
        follow(model, scores, after, b_N[still_N], c_N[still_N], learn)
    return scores.whole_BC.argmax(1)


def follow(
    model: LanguageModel, scores: Scores, after: State, b_N: Tensor, c_N: Tensor, learn: bool | Collection[str]
) -> None:
    """Read labels c from the states after texts b, a piece at a time, while they are in question."""
    if not len(b_N):
        return
    state, read = rows_of(after, b_N), 0
    while len(b_N):
        piece_Nk = scores.bytes_CL[c_N, read : read + PIECE]
        logits_NkV, state = model.told(piece_Nk, torch.full_like(piece_Nk, IGNORED), state, learn)
        log_NkV = nats(logits_NkV)
        for i in range(piece_Nk.shape[1]):  # after byte read + i: how likely the next one is
            there_N = scores.long_C[c_N] > read + i + 1
            if not there_N.any():
                break
            next_N = scores.bytes_CL[c_N, min(read + i + 1, scores.bytes_CL.shape[1] - 1)]
            found_N = log_NkV[:, i].gather(1, next_N[:, None])[:, 0]
            scores.sum_BC[b_N, c_N] += torch.where(there_N, found_N, 0.0)
        read += PIECE
        scores.take(b_N, c_N, read + 1)
        kept_n = scores.open_BC[b_N, c_N].nonzero().flatten()
        if len(kept_n) < len(b_N):
            b_N, c_N, state = b_N[kept_n], c_N[kept_n], rows_of(state, kept_n)


def nats(logits: Tensor) -> Tensor:
    """log p, in double precision: differences between labels are small beside their sums."""
    return logits.double().log_softmax(-1)
