"""Python's numbers inside a loss, kept on the device: bringing them there at every call would wait for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

MOST = 1000  # constants kept: a loss whose numbers change from call to call must not fill the memory


class Constants(TorchFunctionMode):
    """While it is active, what a loss makes of Python's numbers is made once and copied from then on.

    No graph can hold the way from the processor to the card."""

    MAKERS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple, Tensor] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        source, others = None, args
        if args and function in self.MAKERS:
            source, others = _numbers(args[-1]), args[:-1]
        elif function is Tensor.to:  # of a tensor that was made here a moment ago
            source, others = getattr(args[0], "_made_of", None), args[1:]
        if source is None or kwargs.get("requires_grad"):
            return function(*args, **kwargs)
        how = [*others, *(item for pair in sorted(kwargs.items()) for item in pair)]
        key = (function, source, *map(_mark, how))
        if key not in self.kept:
            if len(self.kept) >= MOST:
                return function(*args, **kwargs)
            self.kept[key] = function(*args, **kwargs)
        made = self.kept[key].clone()  # the loss may write into it
        made._made_of = key  # so that moving it to the device is known, too
        return made


def _mark(option: Any) -> Any:
    """Return what tells one option of a call from another."""
    return (option.dtype, option.device) if isinstance(option, Tensor) else str(option)


def _numbers(value: Any) -> tuple | None:
    """Return what tells plain numbers, or lists of them, from others; None for anything else, which may
    change behind its name.
    """
    if type(value) in (bool, int, float):
        return type(value), repr(value)
    if type(value) not in (list, tuple):
        return None
    parts = tuple(_numbers(part) for part in value)
    return None if None in parts else parts
