"""The bias of a network's head, set to what the classes' frequencies say (head = "prior").

At the start a network knows nothing of an image, so the best it can predict is how frequent each class is.
With PyTorch's default it predicts about one half for each of two classes and spends its first steps on
unlearning that (Lin et al. 2017, section 3.3, set the bias for that reason). Where the bias lies is found by
behaviour: it is the one parameter whose shift moves every logit by exactly that shift."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lossbench.base.errors import UserError

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
