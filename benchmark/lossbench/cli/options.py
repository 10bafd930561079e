"""Options that say where a sweep trains; checked together, before anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from lossbench.base.errors import UserError
from lossbench.sweep import work

Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Worker processes (default: one a core).")
]

Serial = Annotated[bool, typer.Option("--serial", help="Train in this process, one stack after the other.")]

Cluster = Annotated[
    str | None, typer.Option("--cluster", help="A TOML file that describes a batch system (dask-jobqueue).")
]

Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="Address or scheduler file of a running Dask cluster.")
]

Gpus = Annotated[
    str | None, typer.Option("--gpus", help="Train on graphics cards: how many (2), or which (0,1).")
]

PerGpu = Annotated[int, typer.Option("--per-gpu", min=1, help="Workers that share each card of --gpus.")]

Device = Annotated[str | None, typer.Option("--device", help="cpu (default) or cuda; --gpus means cuda.")]

Size = Annotated[
    str | None,
    typer.Option(
        "--stack", help="Cells trained together: a number, or auto to try (default: 4; auto on cards)."
    ),
]

TimeLimit = Annotated[
    float | None,
    typer.Option("--time-limit", min=1, help="Seconds after which a stack of cells is given up."),
]

Logs = Annotated[Path | None, typer.Option("--logs", help="Folder for what workers and jobs print.")]


def options(
    workers: int | None = None,
    serial: bool = False,
    cluster: str | None = None,
    scheduler: str | None = None,
    gpus: str | None = None,
    per_gpu: int = 1,
    device: str | None = None,
    stack: str | None = None,
    time_limit: float | None = None,
    logs: Path | None = None,
) -> dict[str, Any]:
    """Return the options of ``sweep.run``; UserError when two of them contradict each other, or there is no
    such card.
    """
    places = {"--serial": serial, "--cluster": cluster, "--scheduler": scheduler, "--gpus": gpus}
    given = [name for name, value in places.items() if value]
    if len(given) > 1:
        raise UserError(f"{given[0]} and {given[1]} name two places to train at; give one of them")
    if workers is not None and given and (scheduler or gpus or cluster):
        where = {
            "--gpus": "--per-gpu sets how many share a card",
            "--cluster": "the file's 'jobs' and 'cores' set it",
        }
        raise UserError(
            f"--workers counts processes of this machine; with {given[0]}, "
            f"{where.get(given[0], 'the scheduler has its own')}"
        )
    if serial and time_limit is not None:
        raise UserError(
            "--time-limit does nothing with --serial: a stack is stopped by ending its worker "
            "process; leave one of the two out"
        )
    if serial and logs is not None:
        raise UserError(
            "--logs does nothing with --serial: there are no workers, everything is printed here; "
            "leave one of the two out"
        )
    if device not in (None, "cpu", "cuda"):
        raise UserError(f"--device {device}: must be cpu or cuda")
    if gpus is None and per_gpu != 1:
        raise UserError("--per-gpu needs --gpus, which says on which cards")
    if gpus is not None and device == "cpu":
        raise UserError("--gpus and --device cpu contradict each other; leave one of the two out")
    if device == "cuda" and gpus is None and not (cluster or scheduler):
        _visible("--device cuda")
    cards = () if gpus is None else slots(gpus)
    device = "cuda" if gpus is not None else device or "cpu"
    return {
        "workers": workers, "serial": serial, "cluster": cluster, "scheduler": scheduler, "gpus": cards, "per_gpu": per_gpu,
        "device": device, "size": _size(stack or (str(work.CPU) if device == "cpu" else "auto")), "time_limit": time_limit, "logs": logs,
    }  # fmt: skip


def _size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or not 2 <= int(text) <= 10_000:
        raise UserError(f"--stack {text}: write a number of cells, 2 or more, or auto")
    return int(text)


def slots(text: str, visible: Callable[[str], list[str]] | None = None) -> tuple[str, ...]:
    """Return what CUDA_VISIBLE_DEVICES must hold for each card that ``text`` names: a number of cards, or
    indices joined by commas.

    Indices count the cards that this process may use, so that a share given by a batch system is kept.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if (
        not words
        or not all(word.isdecimal() for word in words)
        or len(set(words)) < len(words)
        or text.strip() == "0"
    ):
        raise UserError(
            f"--gpus {text}: write how many cards (2), or which ones (0,1; or 0, with a comma for "
            "card 0 alone)"
        )
    there = (visible or _visible)(f"--gpus {text}")
    wanted = [int(word) for word in words] if "," in text else list(range(int(text)))
    if max(wanted) >= len(there):
        last = f"0 to {len(there) - 1}" if len(there) > 1 else "0"
        raise UserError(
            f"--gpus {text}: this machine has {len(there)} usable graphics "
            f"card{'s' * (len(there) > 1)}, number {last}"
        )
    return tuple(there[number] for number in wanted)


def _visible(option: str) -> list[str]:
    """Return how CUDA names the cards that this process may use."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        why = (
            "this torch is built for processors alone"
            if torch.version.cuda is None and torch.version.hip is None
            else "torch sees none"
        )
        raise UserError(
            f"{option}: there is no usable graphics card here ({why}); leave the option out to train "
            "on the processor"
        )
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]
