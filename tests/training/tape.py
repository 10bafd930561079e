"""A stand-in for CUDA graphs: the operations of a call, recorded while it runs and replayed on the same
memory, on any device.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations that make the processor wait for the device, or whose result has as many numbers as the values
# say.
WAITS = {
    "_local_scalar_dense",
    "bincount",
    "equal",
    "histc",
    "is_nonzero",
    "lift_fresh",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
    "_unique2",
}


class NotReplayable(Exception):
    """An operation that no graph can hold."""


class Tape(TorchDispatchMode):
    """What a graph is: a fixed list of operations. Calling it runs them again, without Python."""

    def __init__(self, call: Callable[[], None]):
        super().__init__()
        self.entries: list[tuple] = []
        with self:
            call()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = function._schema.name.removeprefix("aten::")
        masked = name in ("index", "index_put", "index_put_") and any(
            t.dtype in (torch.bool, torch.uint8) for t in args[1] if t is not None
        )
        if name in WAITS or masked:
            raise NotReplayable(name)
        result = function(*args, **(kwargs or {}))
        self.entries.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def __call__(self) -> None:
        """What the first run left in memory is overwritten, what it read is read anew."""
        for function, args, kwargs, old in self.entries:
            known = {_memory(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            new = function(*args, **kwargs)
            for before, after in zip(tree_leaves(old), tree_leaves(new), strict=True):
                if (
                    isinstance(after, Tensor) and _memory(after) not in known
                ):  # neither a view nor written in place
                    before.copy_(after)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
