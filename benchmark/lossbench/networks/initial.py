"""What a network starts from beside its seed: weights of a local file, and the bias of its head, set to what
the classes' frequencies say (head = "prior").

At the start a network knows nothing of an image, so the best it can predict is how frequent each class is.
With PyTorch's default it predicts about one half for each of two classes and spends its first steps on
unlearning that (Lin et al. 2017, section 3.3, set the bias for that reason). Where the bias lies is found by
behaviour: it is the one parameter whose shift moves every logit by exactly that shift."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping, Sequence
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


# --- the bias of the head


FLOOR = 1e-6  # a class that training never shows still has a finite logit
CLOSE = 1e-5  # of the logits: how exactly a shift must come out


def prior_bias(frequencies: Sequence[float] | Tensor) -> Tensor:
    """Return float32 (classes,), log(max(f, 1e-6)) less its mean: its softmax is ``frequencies``."""
    logs = torch.as_tensor(frequencies, dtype=torch.float64).clamp_min(FLOOR).log()
    return (logs - logs.mean()).float()


@torch.no_grad()
def find_heads(module: nn.Module, images: Tensor, classes: int, name: str = "the network") -> list[str]:
    """Return the names of the parameters of length ``classes`` whose shift by a random vector shifts every
    logit of ``images`` (N, C, *S) by exactly that vector, in evaluation mode; the module is not changed.

    A network that sums several heads has several. Raises UserError, naming what was tried, when none has."""
    training = module.training
    module.eval()
    # Another number for each class, so that no sum or mean of them is mistaken for the shift.
    shift = torch.randn(classes, generator=torch.Generator().manual_seed(1))
    before = module(images)
    wanted = before + shift.view(1, -1, *[1] * (before.ndim - 2))
    allowed = CLOSE * max(1.0, float(wanted.abs().max()))
    # A bias has one number a class; no weight of a convolution is a vector.
    tried = [key for key, value in module.named_parameters() if tuple(value.shape) == (classes,)]
    found = [key for key in tried if _apart(module, key, shift, images, wanted) <= allowed]
    module.train(training)
    if not found:
        shown = ", ".join(f"'{key}'" for key in tried) or f"it has none of length {classes}, one a class"
        raise UserError(
            f"{name} has no bias that shifts its logits one for one, which head = 'prior' needs "
            f"(tried: {shown}); use head = 'default'"
        )
    return found


def _apart(module: nn.Module, key: str, shift: Tensor, images: Tensor, wanted: Tensor) -> float:
    """Return how far the logits are from ``wanted`` while a parameter is shifted."""
    parameter = module.get_parameter(key)
    kept = parameter.detach().clone()
    parameter.add_(shift)  # and taken back by copying, since subtracting would round
    apart = float((module(images) - wanted).abs().max())
    parameter.copy_(kept)
    return apart


@torch.no_grad()
def set_head(module: nn.Module, bias: Tensor, names: Sequence[str]) -> None:
    """Set the first of the parameters that :func:`find_heads` names to ``bias`` (classes,), the others to
    zero; the head's weights stay as they are.
    """
    for turn, name in enumerate(names):
        parameter = module.get_parameter(name)
        parameter.copy_(bias if turn == 0 else torch.zeros_like(bias))
