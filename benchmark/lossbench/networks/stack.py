"""K cells that train together: one vector of weights, whatever the network.

A network that can be grouped holds all cells; any other is a stack of one. Training sees no difference."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from lossbench.base.errors import UserError
from lossbench.networks.build import Network, seeded
from lossbench.networks.grouped import regroup

ALIGN = 16  # numbers: a layer's weights begin at a multiple of 64 bytes, as memory of their own would

PIECE = 2**17  # numbers that an update takes at a time on a CPU, so that its dozen passes stay in the cache


class Stack:
    """K cells in one network: each layer holds the weights of all cells, cell after cell along its first
    axis.

    All trained weights lie in one vector, ``values``, and all gradients in another, ``slopes``, layer after
    layer (``parts``); ``owner`` says for each number which cell's it is. So an update with a learning rate a
    cell takes a few operations, however many cells and layers there are. Calling it trains: it maps (B, K *
    in_channels, *S) to logits (B, K, classes, *S). ``infer`` does the same in evaluation mode."""

    def __init__(
        self,
        network: Network,
        starts: list[dict[str, Tensor]],
        device: str = "cpu",
        precision: str = "float32",
    ):
        if len(starts) > 1 and not network.spec.grouped:
            raise ValueError(f"{network} cannot be grouped: one cell at a time")
        self.network, self.count = network, len(starts)
        self.device = torch.device(device)
        self.precision = torch.bfloat16 if precision == "bfloat16" else None
        # Whether training draws random numbers, as dropout does; the first step shows it.
        self.draws: bool | None = None
        self.module = network.build(cells=self.count)
        trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        if not trained:
            raise UserError(f"{network} has no weights to train")
        lengths = [-(-value.numel() // ALIGN) * ALIGN for value in trained.values()]
        dtype = starts[0][next(iter(trained))].dtype  # float64 in tests
        self.values = torch.zeros(sum(lengths), dtype=dtype, device=self.device)
        self.slopes = torch.zeros_like(self.values)
        self.owner = torch.zeros(len(self.values), dtype=torch.int64, device=self.device)
        size = PIECE if self.device.type == "cpu" else max(len(self.values), 1)
        self.pieces = [slice(begin, begin + size) for begin in range(0, len(self.values), size)]
        begins = itertools.accumulate(lengths, initial=0)
        self.parts = {
            name: slice(begin, begin + value.numel())
            for begin, (name, value) in zip(begins, trained.items(), strict=False)
        }
        cells = torch.arange(self.count, device=self.device)
        # The module computes on views of the two vectors: autograd adds into ``slopes``, an update changes
        # ``values``, and nothing is copied in between.
        placed = {}
        for name, value in trained.items():
            part = self.parts[name]
            self.owner[part] = cells.repeat_interleave(value.numel() // self.count)
            placed[value] = nn.Parameter(self.values[part].view(value.shape))
            placed[value].grad = self.slopes[part].view(value.shape)
        _place(self.module, placed, self.device)
        exact = dtype is torch.float32 and self.precision is None
        if exact and self.device.type == "cuda" and torch.cuda.is_available():  # tests fake a card
            regroup(self.module)
        self.load(starts)
        # On a CPU the cells infer one after the other: without the copies that groups need, it is faster.
        alone = self.count > 1 and self.device.type == "cpu"
        self.singles = [self._single(cell) for cell in range(self.count)] if alone else []

    def _single(self, cell: int) -> nn.Module:
        """Return one cell's network, in evaluation mode, on the weights that lie in the stack."""
        module = self.network.build().eval()
        module.load_state_dict(self._views(cell), assign=True)
        return module.requires_grad_(False)

    def __len__(self) -> int:
        return self.count

    def __call__(self, images: Tensor, seed: int = 0) -> Tensor:
        """Return logits of one training step; what the network draws, as dropout does, is from ``seed``."""
        # A user's may draw from numpy or Python, which leaves no trace in PyTorch; no graph could hold that.
        own = self.network.spec.own and self.device.type == "cpu"
        if self.draws is False and not own:
            return self._forward(images, training=True)
        with seeded(seed, self.device, everything=own):
            before = self._random_state()
            logits = self._forward(images, training=True)
            self.draws = not torch.equal(before, self._random_state())
        if self.draws and self.count > 1:
            # Its masks would depend on how many cells there are.
            raise UserError(
                f"{self.network} draws random numbers, so its cells cannot be grouped; leave 'cells' out of "
                "its parameters"
            )
        return logits

    @torch.no_grad()
    def infer(self, images: Tensor) -> Tensor:
        """Return logits in evaluation mode, without gradients."""
        if not self.singles:
            return self._forward(images, training=False)
        logits = images.new_empty(len(images), self.count, self.network.classes, *images.shape[2:])
        with self._autocast():
            for cell, own in enumerate(images.chunk(self.count, 1)):
                logits[:, cell] = self.singles[cell](own)
        return logits

    def _forward(self, images: Tensor, training: bool) -> Tensor:
        if self.module.training is not training:  # setting it walks through all layers
            self.module.train(training)
        with self._autocast():
            logits = self.module(images)
        logits = logits if self.precision is None else logits.float()
        return logits.view(images.shape[0], self.count, self.network.classes, *images.shape[2:])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is not None)

    def _random_state(self) -> Tensor:
        on_card = self.device.type == "cuda"
        return torch.cuda.get_rng_state(self.device) if on_card else torch.get_rng_state()

    @property
    def state(self) -> list[Tensor]:
        """All that training changes: weights, and buffers such as running means."""
        return [self.values, *self.module.buffers()]

    def weights(self, cell: int) -> dict[str, Tensor]:
        """Return a copy of one cell's weights and buffers."""
        return {name: value.clone() for name, value in self._views(cell).items()}

    def _views(self, cell: int) -> dict[str, Tensor]:
        """Return one cell's weights and buffers as they lie in the stack."""
        return {
            name: value if value.ndim == 0 else self._of_cells(value)[cell]
            for name, value in self.module.state_dict().items()
        }

    def _of_cells(self, value: Tensor) -> Tensor:
        """Return (K, *its shape in one cell) of a weight or buffer."""
        return value.reshape(self.count, -1, *value.shape[1:])

    @torch.no_grad()
    def load(self, weights: list[dict[str, Tensor]]) -> None:
        """Overwrite weights and buffers of all cells; a single number, such as a counter, is shared."""
        for name, value in self.module.state_dict().items():
            value.copy_(weights[0][name] if value.ndim == 0 else torch.cat([own[name] for own in weights]))

    def norms(self, vector: Tensor) -> Tensor:
        """Return the norm of each cell's part of a vector like ``slopes``, (K,): that of its layers' norms,
        as ``clip_grad_norm_`` computes it.
        """
        of_layers = [
            torch.linalg.vector_norm(vector[part].view(self.count, -1), dim=1) for part in self.parts.values()
        ]
        return torch.linalg.vector_norm(torch.stack(of_layers, 1), dim=1)

    def each(self, numbers: Tensor, piece: slice = slice(None)) -> Tensor:
        """Return one number a cell, (K,), for each number of the vectors, or of a piece of them; a single
        one, (1,), is that of all.
        """
        return numbers if len(numbers) == 1 else numbers.index_select(0, self.owner[piece])


def _place(module: nn.Module, placed: dict[nn.Parameter, nn.Parameter], device: torch.device) -> None:
    """Put the parameters ``placed`` in the stead of a module's own, wherever each is used, and the rest onto
    the device.
    """
    for layer in module.modules():
        for name, value in list(layer.named_parameters(recurse=False, remove_duplicate=False)):
            # What does not ask for a gradient stays as it starts.
            kept = nn.Parameter(value.detach().to(device), requires_grad=False)
            setattr(layer, name, placed.get(value, kept))
        for name, value in list(layer.named_buffers(recurse=False, remove_duplicate=False)):
            setattr(layer, name, value.to(device))
