"""Weights of one network: their hash, and how they are read from a local file."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lossbench.base.errors import UserError, nearest

# Under which many training scripts keep the weights, beside the optimiser's state and the like.
WRAPPERS = ("state_dict", "model_state_dict", "model")


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Return sixteen hex digits over names, shapes and bytes of a cell's weights and buffers."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}{tuple(weights[name].shape)}".encode())
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_weights(module: nn.Module, path: str | Path) -> str:
    """Load a file of weights, as ``torch.save(module.state_dict(), path)`` writes it, and return their hash.

    Raises UserError as :func:`read_weights` and :func:`set_weights` do."""
    set_weights(module, read_weights(path), str(path))
    return weights_hash(module.state_dict())


def set_weights(module: nn.Module, weights: dict[str, Tensor], path: str) -> None:
    """Give a module the weights that ``path`` holds; UserError for some that are missing, unknown to the
    module or of another shape.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in weights]
    unknown = [name for name in weights if name not in own]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{path}: lacks '{missing[0]}'{more} of the network{nearest(missing[0], unknown, 3)}")
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(f"{path}: holds '{unknown[0]}'{more}, which the network does not have")
    # Names first: a shape is only worth a sentence where all of them are there.
    for name, value in own.items():
        if weights[name].shape != value.shape:
            raise UserError(
                f"{path}: '{name}' has the shape {tuple(weights[name].shape)}, the network needs "
                f"{tuple(value.shape)}"
            )
    module.load_state_dict(weights)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the weights that a file holds; it is read as data and nothing in it is run. UserError for a file
    that cannot be read so.
    """
    try:
        with warnings.catch_warnings():  # of torch, about files that it refuses anyway
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds more than tensors (pickled code, which is not run); write it by "
            "torch.save(module.state_dict(), path)"
        ) from None
    except Exception as error:  # a file of another kind, or a damaged one
        raise UserError(
            f"{path}: is no file of weights that torch.save wrote ({type(error).__name__})"
        ) from None
    # Some scripts wrap twice.
    for key in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise UserError(f"{path}: must hold a dictionary from names to tensors, such as module.state_dict()")
    return dict(held)
