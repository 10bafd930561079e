"""What ``get_loss`` returns: a torch module around the functions that a spec names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lossbench.base.errors import UserError
from lossbench.catalogue.inputs import (
    MEANING,
    check_labels,
    check_shares,
    check_sums,
    check_supplied,
    check_tensors,
)


class Part(NamedTuple):
    """One summand of a loss: a function, its parameters, and the keywords of a call that it takes."""

    weight: float
    function: Callable[..., Tensor]
    params: dict[str, Any]
    takes: frozenset[str]
    guest: bool  # not one of ours, which leave void pixels out themselves
    soft: bool = False  # takes the shares of the classes as a target, too


class Loss(nn.Module):
    """A loss for any training loop: ``loss(logits, target) -> scalar``.

    logits (N, C, *S) of floats, computed in float32; target (N, *S) of class ids below C or ``ignore_index``;
    one channel stands for two classes. Soft losses (``ce_soft`` and its kin) take shares (N, C, *S) of the
    classes as well, of floats. Keywords: ``ignore_index`` (label of void pixels), ``progress`` (0 to
    1), ``distance_map`` (N, C, *S), ``class_frequency`` (C,), where the loss needs them.

    With ``check`` a wrong call raises UserError with one sentence: types, shapes and keywords are looked at
    in each eager call, labels as ``inputs.check_labels`` says, nothing under ``torch.compile``."""

    def __init__(
        self,
        text: str,
        parts: tuple[Part, ...],
        check: bool = True,
        again: Callable[[], Loss] | None = None,
    ):
        super().__init__()
        self.text, self.parts, self.check = text, parts, check
        self.needs = frozenset(name for part in parts for name in part.takes & MEANING.keys())
        self._void = {part.params["ignore_index"] for part in parts if "ignore_index" in part.params}
        self._takes_shares = all(part.soft for part in parts)
        self._again = again or partial(Loss, text, parts, check)

    def forward(self, logits: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        # None is what a trainer passes for what its data do not have.
        supplied = {name: value for name, value in supplied.items() if value is not None}
        # Reading labels would break a graph; a compiled step has been tried in eager mode before.
        if self.check and not torch.compiler.is_compiling():
            check_supplied(supplied, self.needs)
            if self._takes_shares and isinstance(target, Tensor) and target.is_floating_point():
                check_shares(logits, target)
                if target.shape[1] > 1:
                    check_sums(target)
            else:
                check_tensors(logits, target)
                check_labels(logits, target, (*self._void, supplied.get("ignore_index")))
        total = None
        for part in self.parts:
            value = _call(part, logits, target, supplied)
            # Without the product where it would change nothing, for speed and to the last bit.
            value = value if part.weight == 1 else part.weight * value
            total = value if total is None else total + value
        return total

    def extra_repr(self) -> str:
        return self.text if self.check else f"{self.text}, check=False"

    def __reduce__(self):
        # A user's function, or one around a library's loss, cannot be pickled: the loss is made again.
        return self._again, ()


class MultiLabel(nn.Module):
    """Classes that do not exclude each other: one sigmoid and one loss for each, and the mean of these.

    logits (N, C, *S); target (N, C, *S) of 0 and 1, or ``ignore_index``; the loss sees one channel at a
    time. Raises UserError for a loss that needs distances or frequencies, which are those of exclusive
    classes."""

    def __init__(self, loss: Loss):
        super().__init__()
        for name in loss.needs - {"progress"}:
            raise UserError(
                f"{loss.text} needs {name}=..., which there is for classes that exclude each other"
            )
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        if not isinstance(logits, Tensor) or not isinstance(target, Tensor) or logits.shape != target.shape:
            raise UserError("a loss of several labels takes logits and a target of one shape, (N, C, *S)")
        channels = zip(logits.split(1, 1), target.unbind(1), strict=True)
        return torch.stack([self.loss(z, y, **supplied) for z, y in channels]).mean()


def _call(part: Part, logits: Tensor, target: Tensor, supplied: dict[str, Any]) -> Tensor:
    arguments = {name: supplied[name] for name in part.takes if name in supplied} | part.params
    if part.guest and "ignore_index" in arguments:
        # No NaN of a void pixel may reach the sums. Finite logits stay as they are, so that ``lossbench
        # check`` still sees a loss that counts void pixels.
        soft = target.is_floating_point()
        void = target.sum(1) == 0 if soft else target == arguments["ignore_index"]
        void = void.unsqueeze(1)
        logits = logits.masked_fill(void & ~logits.isfinite(), 0)
    return part.function(logits, target, **arguments)
