"""Networks of other libraries under one call: channels, classes and axes by the library's own names, one
tensor of logits out.

``smp:NAME``, ``monai:NAME`` and ``torchvision:NAME`` take the library's own constructor arguments. A library
is imported when one of its networks is built, never before. No weights are downloaded: every argument that
would fetch some is set to None."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from torch import Tensor, nn

from lossbench.base.errors import UserError, nearest
from lossbench.catalogue.registry import PRETRAINED

# What libraries call the same three numbers; one of each pair stands in a constructor's signature.
IN_CHANNELS = ("in_channels", "num_channels")
CLASSES = ("classes", "num_classes", "out_channels")
DIMS = ("spatial_dims",)


@dataclass(frozen=True)
class Library:
    """Where a library keeps its segmentation networks, and what of their arguments lossbench sets."""

    module: str
    distribution: str
    fixed: dict[str, Any]  # so that logits are all that comes out


LIBRARIES = {
    "smp": Library(
        "segmentation_models_pytorch",
        "segmentation-models-pytorch",
        {"activation": None, "aux_params": None},
    ),
    "monai": Library("monai.networks.nets", "monai", {}),
    "torchvision": Library(
        "torchvision.models.segmentation", "torchvision", {"aux_loss": None, "progress": False}
    ),
}


def version(library: str) -> str:
    """Return the installed version of a library, by its short name; UserError when it is not installed."""
    try:
        return metadata.version(LIBRARIES[library].distribution)
    except metadata.PackageNotFoundError:
        raise UserError(_missing(library)) from None


def names(library: str) -> list[str]:
    """Return the names of a library's networks, as far as their signatures say what they are."""
    return sorted(name for name, value in vars(_module(library)).items() if _is_network(value))


def build(
    library: str, name: str, arguments: dict[str, Any], in_channels: int, classes: int, dims: int
) -> nn.Module:
    """Return a network of a library for images with ``in_channels`` and ``dims`` axes, with weights drawn
    from the global generator.

    Raises UserError for a missing library, a name that is no segmentation network, arguments that do not
    exist, are set here or that the library refuses, and axes that it is not made for."""
    where, constructor = f"{library}:{name}", _constructor(library, name)
    parameters = inspect.signature(constructor).parameters
    sizes = {
        _first(IN_CHANNELS, parameters): in_channels,
        _first(CLASSES, parameters): classes,
        _first(DIMS, parameters): dims,
    }
    # A library's own defaults would download weights.
    fixed = {**LIBRARIES[library].fixed, **dict.fromkeys(PRETRAINED), **sizes}
    fixed = {key: value for key, value in fixed.items() if key in parameters}
    if "pretrained" in fixed:
        fixed["pretrained"] = False  # the one that is a switch
    _check_arguments(where, arguments, fixed, parameters)
    if dims != 2 and _first(DIMS, parameters) is None:
        raise UserError(f"{where} is for 2-D images, the data set is {dims}-D")
    try:
        network = constructor(**arguments, **fixed)
    except Exception as error:  # a wrong value, or a package that this network alone needs
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UserError(f"{where}({shown}) is refused by the library: {said}") from None
    if _first(IN_CHANNELS, parameters) is None and in_channels != 3:
        _replace_first_convolution(network, in_channels, where)
    # A hook, and no wrapper around the network, so that the weights keep the library's own names.
    network.register_forward_hook(lambda module, images, output: _logits(output))
    return network


def _logits(output: Any) -> Any:
    """Return the logits of what a library's network gives: torchvision's are one of several by name, some
    of MONAI's a list of one.
    """
    if isinstance(output, dict) and "out" in output:
        return output["out"]
    if isinstance(output, list) and len(output) == 1 and isinstance(output[0], Tensor):
        return output[0]
    return output


def _replace_first_convolution(network: nn.Module, in_channels: int, where: str) -> None:
    """Put a convolution for ``in_channels``, with PyTorch's own start, in the place of the first one, which
    is for three.
    """
    for name, layer in network.named_modules():
        # The first in the order of definition, which is that of the forward pass in torchvision.
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 3 and layer.groups == 1:
            parent, _, child = name.rpartition(".")
            new = nn.Conv2d(
                in_channels,
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.dilation,
                bias=layer.bias is not None,
                padding_mode=layer.padding_mode,
            )
            setattr(network.get_submodule(parent), child, new)
            return
    raise UserError(f"{where} is for images of 3 channels, the data set has {in_channels}")


def _constructor(library: str, name: str) -> Callable[..., nn.Module]:
    constructor = getattr(_module(library), name, None)
    if constructor is None or not _is_network(constructor):
        known = names(library)
        raise UserError(f"{library}:{name} is not one of its segmentation networks{nearest(name, known, 20)}")
    return constructor


def _module(library: str) -> Any:
    try:
        return importlib.import_module(LIBRARIES[library].module)
    except ImportError:
        raise UserError(_missing(library)) from None


def _is_network(thing: Any) -> bool:
    """Return whether something builds a network for a number of classes, as far as its signature says."""
    if inspect.isclass(thing):
        if not issubclass(thing, nn.Module):
            return False
    elif not inspect.isfunction(thing) or thing.__name__.startswith("_"):
        return False
    return _first(CLASSES, inspect.signature(thing).parameters) is not None


def _first(names: tuple[str, ...], parameters: Any) -> str | None:
    return next((name for name in names if name in parameters), None)


def _check_arguments(where: str, arguments: dict, fixed: dict, parameters: Any) -> None:
    # A constructor that takes ** would swallow a misspelt name, so only names of its own are let through.
    own = [key for key, value in parameters.items() if value.kind is not value.VAR_KEYWORD]
    free = [key for key in own if key not in fixed]
    for key in arguments:
        if key in fixed:
            raise UserError(
                f"'{key}' of {where} is set by lossbench; its free arguments are: {', '.join(free)}"
            )
        if key not in own:
            raise UserError(f"{where} has no argument '{key}'{nearest(key, free, limit=30)}")


def _missing(library: str) -> str:
    distribution = LIBRARIES[library].distribution
    extra = "" if library == "torchvision" else "; pip install 'lossbench[peers]'"
    return f"'{library}:' networks need {distribution}, which is not installed{extra}"
