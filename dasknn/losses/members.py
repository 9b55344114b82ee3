"""The loss of members that share a network: the mean of their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dasknn.losses.loss import BoundLoss, Loss


@dataclass(frozen=True)
class MemberLoss(Loss):
    """The mean of the members' losses, each of which is that of another loss.

    Outputs of the network (n, members * k) are those of all members side by side, as `layers.MemberHeads`
    puts them. It is never the loss of their mean: members that are trained on that do not become different.

    Parameters
    ----------
    loss : Loss
        The loss of one member.
    members : int
        Number of members.
    """

    loss: Any
    members: int

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the loss of one member."""
        return self.loss.name

    @property
    def takes_labels(self) -> bool:  # type: ignore[override]
        """Whether targets are labels (n,) of integers."""
        return self.loss.takes_labels

    @property
    def judges(self) -> str:  # type: ignore[override]
        """How it reads the outputs of a member."""
        return self.loss.judges

    @property
    def of_mean(self) -> Loss:
        return self.loss

    def bind(self, n_rows, n_outputs, dtype, output_activation):
        return _BoundMemberLoss(self, n_rows, n_outputs, dtype, output_activation)

    def check_targets(self, y, n_outputs):
        self.loss.check_targets(y, n_outputs)

    def divisor(self, n_rows, weight):
        return self.loss.divisor(n_rows, weight)


class _BoundMemberLoss(BoundLoss):
    def __init__(self, loss: MemberLoss, n_rows: int, n_outputs: int, dtype, output_activation: str):
        self.members = loss.members
        self.inner = loss.loss.bind(n_rows * loss.members, n_outputs, dtype, output_activation)
        self.to_logits = self.inner.to_logits
        self.n_outputs = n_outputs

    def __call__(self, P, y, weight, out) -> float:
        # (n, members * k) -> (n * members, k): all members of a row have its target and its weight.
        shape = (len(P) * self.members, self.n_outputs)
        y = np.repeat(y, self.members, axis=0)
        weight = None if weight is None else np.repeat(weight, self.members)
        total = self.inner(P.reshape(shape), y, weight, out.reshape(shape))
        np.divide(out, self.members, out=out)
        return total / self.members
