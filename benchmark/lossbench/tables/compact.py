"""Records become tidy tables here: `cells`, `images`, `curves` and `recipes`, the only input of analysis,
figures and report.

cells    one row a cell: what was run (dataset, loss, seed, recipe, block), how it ended, its certificate,
cost and metrics images   one row a cell x test image x foreground class
curves   one row a cell x logged step
thresholds   one row a cell x threshold: Dice on the validation images, from which the threshold is chosen
reliability  one row a cell x foreground class x region x bin of predicted probability, on the test images
recipes  one row a recipe: its eight hex digits and every parameter
origins  one row a distinct provenance (commit, versions, hardware, device), with its number of cells
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import median_filter, uniform_filter1d
from scipy.stats import rankdata

from lossbench.base.errors import UserError, nearest
from lossbench.experiment.cells import LATER
from lossbench.tables.freshness import is_changed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TABLES = ("cells", "images", "curves", "thresholds", "reliability", "recipes", "origins")

BESIDE = {"panel": "python -m tools.panel"}  # tables that no record holds, and the command that makes each

LEADING = (
    "key",
    "experiment",
    "parts",
    "dataset",
    "dataset_name",
    "data_label",
    "loss",
    "loss_label",
    "family",
    "seed",
    "recipe",
    "block",
    "outcome",
    "collapse",
    "init_hash",
    "order_hash",
    "split_hash",
    "seconds",
    "device",
    "n_test",
)

TRAILING = ("commit", "dirty", "loss_fingerprint", "data_identity", "protocol", "cpu_seconds")

COLUMNS = {
    "cells": (*LEADING, *TRAILING),
    "images": ("key",),
    "curves": ("key", "step"),
    "thresholds": ("key", "threshold"),
    "recipes": ("recipe",),
}

SORT = ["dataset", "recipe", "loss", "seed", "key"]


def compact(records: Iterable[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Return the tables of an iterable of records (their schema: ``lossbench.store.store``); the order of the
    records does not matter.

    Raises UserError when two records hold the same cell, since then one of them is stale and should not have
    been passed on.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    images, curves, thresholds, reliability = _Long(), _Long(), _Long(), _Long()
    recipes: dict[str, dict[str, Any]] = {}
    origins: dict[str, dict[str, Any]] = {}
    for record in records:
        row = _cell_row(record)
        rows.append(row)
        recipes[row["recipe"]] = {"recipe": row["recipe"], **LATER, **record["cell"]["recipe"]}
        origin = _origin(record.get("provenance", {}))
        origins.setdefault(json.dumps(origin, sort_keys=True), {**origin, "cells": 0})["cells"] += 1
        images.add(row["key"], record.get("images") or {})
        curves.add(row["key"], record.get("curves") or {})
        thresholds.add(row["key"], _thresholds(record.get("threshold_curve") or []))
        reliability.add(row["key"], record.get("reliability") or {})
    cells = pd.DataFrame(rows, columns=_columns(rows))
    doubled = cells[cells["key"].duplicated()]
    if len(doubled):
        row = doubled.iloc[0]
        what = f"{row['key']} ({row['dataset']}, {row['loss']}, seed {row['seed']})"
        raise UserError(f"two records of the cell {what} were given; keep the current one")
    cells = cells.sort_values(SORT, ignore_index=True) if rows else cells
    rank = {key: place for place, key in enumerate(cells["key"])}
    return {
        "cells": cells,
        "images": images.frame(rank, ["image", "class"]),
        "curves": curves.frame(rank, ["step"]),
        "thresholds": thresholds.frame(rank, ["threshold"]),
        "reliability": reliability.frame(rank, ["class", "region", "bin"]),
        "recipes": pd.DataFrame(
            [{k: _plain(v) for k, v in recipes[name].items()} for name in sorted(recipes)]
        ),
        "origins": pd.DataFrame([origins[name] for name in sorted(origins)]),
    }


def write_tables(frames: dict[str, pd.DataFrame], folder: str | Path) -> list[Path]:
    """Write every frame as Parquet and `cells` also as CSV (%.6g); equal frames give equal bytes. Returns the
    paths.
    """
    folder = Path(folder)
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in sorted(frames.items()):
            paths.append(
                _atomically(
                    folder / f"{name}.parquet",
                    lambda path, f=frame: _one_kind(f).to_parquet(path, index=False, compression="zstd"),
                )
            )
        if "cells" in frames:
            paths.append(write_csv(frames["cells"], folder / "cells.csv"))
    except OSError as error:
        raise UserError(f"cannot write the tables to {folder}: {error.strerror or error}") from None
    return paths


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Write a frame as CSV with six significant digits and Unix line ends, so that a change shows as a small
    diff.
    """
    return _atomically(path, lambda p: frame.to_csv(p, index=False, float_format="%.6g", lineterminator="\n"))


def load_table(results: str | Path, name: str = "cells") -> pd.DataFrame:
    """Return one table of a results folder as a pandas DataFrame; UserError with what to run when it is not
    there.
    """
    import pandas as pd

    if name not in (*TABLES, *BESIDE):
        raise UserError(f"there is no table '{name}'{nearest(name, (*TABLES, *BESIDE))}")
    path = Path(results) / "tables" / f"{name}.parquet"
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; `lossbench {BESIDE.get(name, 'sweep')} --results {results}` "
            "trains the cells and writes it"
        )
    again = f"`lossbench {BESIDE.get(name, 'report')} --results {results}` rebuilds it from the records"
    if is_changed(path):
        raise UserError(f"{path} is damaged: it is not what was written there; {again}")
    try:
        return pd.read_parquet(path)
    except Exception as error:  # a reader that stumbles over damaged bytes raises whatever it stumbled over
        raise UserError(
            f"{path} cannot be read ({' '.join(str(error).split())[:200] or type(error).__name__}); {again}"
        ) from None


def stored(results: str | Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return the named tables, and of those that no record holds the ones that have been made."""
    beside = [name for name in BESIDE if (Path(results) / "tables" / f"{name}.parquet").is_file()]
    found = {name: load_table(results, name) for name in (*names, *beside)}
    for name, needed in COLUMNS.items():
        lacks = [column for column in needed if name in found and column not in found[name]]
        if lacks and len(found[name]):
            path = Path(results) / "tables" / f"{name}.parquet"
            raise UserError(
                f"{path} lacks the column '{lacks[0]}'; `lossbench report --results {results}` "
                "rebuilds it from the records"
            )
    return found


def digest(value: Any) -> str:
    """Return the eight hex digits that name a recipe or a block."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    ).hexdigest()[:8]


def _cell_row(record: dict[str, Any]) -> dict[str, Any]:
    cell, proof = record["cell"], record.get("certificate", {})
    cost, origin = record.get("cost", {}), record.get("provenance", {})
    name, params = cell.get("dataset_name"), cell.get("data_params")
    if name is None or params is None:
        name, params = _data_params(cell["dataset"])
    recipe = cell.get("recipe_digest") or digest(cell["recipe"])
    shared = [cell.get("protocol"), cell["dataset"], cell.get("data_identity"), cell["seed"], recipe]
    return {
        **record.get("metrics", {}),  # first: no metric takes the name of a fact
        "key": record["key"],
        "experiment": record.get("experiment", ""),
        "parts": record.get("parts", ""),
        "dataset": cell["dataset"],
        "dataset_name": name,
        "data_label": cell.get("data_label") or cell["dataset"],
        "loss": cell["loss"],
        "loss_label": record.get("loss_label") or cell["loss"],
        "family": record.get("family", ""),
        "seed": cell["seed"],
        "recipe": recipe,
        "block": cell.get("block") or digest(shared),
        "outcome": record["outcome"],
        "collapse": record.get("collapse") or "",
        "init_hash": proof.get("init", ""),
        "order_hash": proof.get("order", ""),
        "split_hash": proof.get("split", ""),
        "seconds": cost.get("seconds"),
        "device": origin.get("device", ""),
        **{f"data.{key}": _plain(value) for key, value in params.items()},
        **derived(record),
        "commit": origin.get("commit") or "",
        "dirty": bool(origin.get("dirty", False)),
        "loss_fingerprint": record.get("loss_fingerprint", ""),
        "data_identity": cell.get("data_identity", ""),
        "protocol": cell.get("protocol"),
        "cpu_seconds": cost.get("cpu_seconds"),
    }


def _origin(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return what the report shows of a provenance: flat, without what differs from cell to cell."""
    hardware = provenance.get("hardware") or {}
    packages = provenance.get("packages") or {}
    return {
        "commit": provenance.get("commit") or "",
        "dirty": bool(provenance.get("dirty", False)),
        **{name: provenance.get(name, "") for name in ("version", "python", "platform", "threads", "device")},
        "cpu": hardware.get("cpu", ""),
        "cores": hardware.get("cores"),
        "packages": ", ".join(f"{name} {packages[name]}" for name in sorted(packages)),
    }


@lru_cache(maxsize=4096)
def _data_params(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name of a data set spec and its parameters, for a record that does not hold them; defaults
    where its builder is still known.

    A text that is no spec is a name without parameters.
    """
    from lossbench.base import specs
    from lossbench.catalogue.registry import parse_dataset

    try:
        spec = parse_dataset(text)
        return spec.name, spec.params
    except UserError:
        with contextlib.suppress(UserError):
            term = specs.parse(text, "data set")[0]
            return term.name, term.arguments
    return text, {}


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    found = {column: None for row in rows for column in row}
    data = sorted(c for c in found if c.startswith("data."))
    fixed = {*LEADING, *TRAILING, *data}
    return [*LEADING, *data, *sorted(c for c in found if c not in fixed), *TRAILING]


def _thresholds(dice: list[float]) -> dict[str, list]:
    """Return the columns of a threshold curve: its values stand at equal steps strictly between 0 and 1 (.01
    ... .99).
    """
    return (
        {"threshold": [(i + 1) / (len(dice) + 1) for i in range(len(dice))], "val_dice": dice} if dice else {}
    )


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


class _Long:
    """Collects column lists of many cells and joins them once; columns that a cell lacks become nan."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, dict[str, list]]] = []
        self.columns: dict[str, None] = {}

    def add(self, key: str, columns: dict[str, list]) -> None:
        if columns:
            self.parts.append((key, columns))
            self.columns.update(dict.fromkeys(columns))

    def frame(self, rank: dict[str, int], order: list[str]) -> pd.DataFrame:
        import numpy as np
        import pandas as pd

        parts = sorted(self.parts, key=lambda part: rank[part[0]])
        lengths = [len(next(iter(columns.values()))) for _, columns in parts]
        joined: dict[str, Any] = {"key": np.repeat([key for key, _ in parts], lengths) if parts else []}
        leading = [c for c in order if c in self.columns]
        for name in [*leading, *(c for c in sorted(self.columns) if c not in leading)]:
            pieces = [
                np.asarray(c[name]) if name in c else np.full(n, np.nan)
                for (_, c), n in zip(parts, lengths, strict=True)
            ]
            whole = np.concatenate(
                [p.astype(float) if p.dtype == object and _numeric(p) else p for p in pieces]
            )
            # Metrics of single images need no more than six digits; halving them keeps a large study in
            # memory.
            joined[name] = _halved(whole) if whole.dtype == np.float64 else whole
        return pd.DataFrame(joined)


def _one_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with words in every column that mixes words and numbers, as a parameter of two data
    sets may; a file's column has one kind.
    """
    mixed = {}
    for name in (name for name, kind in frame.dtypes.items() if kind.name == "object"):
        kinds = {type(value) for value in frame[name] if value is not None and value == value}
        if len(kinds) > 1 and not kinds <= {int, float, bool}:
            mixed[name] = frame[name].map(
                lambda value: value if value is None or value != value else str(value)
            )
    return frame.assign(**mixed) if mixed else frame


def _halved(values: np.ndarray) -> np.ndarray:
    """Return numbers as float32, nan for those that it cannot hold."""
    import numpy as np

    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    found[np.isinf(found)] = np.nan
    return found


def _numeric(piece: Any) -> bool:
    return all(v is None or isinstance(v, int | float) for v in piece)


def _atomically(path: Path, write: Any) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


# --- Columns of `cells` that follow from one record alone: collapse, noise of the training curves, Dice
# by size and of the rarest class, the recipe. Everything is nan where a record cannot tell: no curve, too
# short a curve, values that are not finite, no object of that class.

NAN = float("nan")

WINDOW = 21  # steps of the running median and mean; the curve is mirrored at its ends

FIRST, LAST = 5, 20  # steps between whose mean losses a training loss is said to fall

FEWEST = 5  # validated steps in the second half that a rank correlation needs

HALF = 0.5  # validation Dice that counts as having learnt

QUINTILES = 5

RECIPE = ("learning_rate", "steps", "batch", "optimizer", "augment")

ARMS = ("0.5", "val")


def derived(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the derived columns of one record, always the same names in the same order."""
    return {
        "collapsed": float(record.get("outcome") == "collapsed"),
        **training(record.get("steps") or {}, record.get("curves") or {}),
        **by_size(record.get("images") or {}),
        **recipe(record["cell"]),
    }


def training(steps: Mapping[str, list], curves: Mapping[str, list]) -> dict[str, float]:
    """Return what the course of one training says; ``steps`` holds one value a step, ``curves`` one a
    validated step.

    steps_to_half     first validated step with val_dice >= .5; one more than the last step where there is
    none loss_noise        sd of the training loss about its running median, second half, over (mean of the
    first 5 - mean of the last 20 losses) loss_tracks_dice  |Spearman| of the running mean of the training
    loss and val_dice over the validated steps of the second half grad_noise        sd of log gradient norm
    about its running median, second half
    log_...           natural logarithms of both noises
    """
    loss, norm = _numbers(steps.get("train_loss")), _numbers(steps.get("grad_norm"))
    at, dice = _numbers(curves.get("step")), _numbers(curves.get("val_dice"))
    with np.errstate(divide="ignore", invalid="ignore"):
        grad_noise = _roughness(np.log(norm))
        fall = loss[:FIRST].mean() - loss[-LAST:].mean() if len(loss) >= FIRST + LAST else NAN
        loss_noise = _roughness(loss) / fall if fall > 0 else NAN
        logs = {"log_loss_noise": np.log(loss_noise), "log_grad_noise": np.log(grad_noise)}
    return {
        "steps_to_half": _steps_to_half(at, dice, len(loss)),
        "loss_noise": float(loss_noise),
        "loss_tracks_dice": _tracks(loss, at, dice),
        "grad_noise": grad_noise,
        **{name: float(value) if np.isfinite(value) else NAN for name, value in logs.items()},
    }


def by_size(images: Mapping[str, list]) -> dict[str, float]:
    """Return mean Dice by fifth of true size, over the (image, class) pairs whose class is present, and that
    of the rarest foreground class.

    A pair's fifth follows from its place among all pairs of the cell, equal sizes in the same fifth; fewer
    than five pairs have none. The rarest class is the one with the fewest test pixels (but some).
    """
    names = [f"dice_q{q}@{arm}" for arm in ARMS for q in range(1, QUINTILES + 1)] + [
        f"dice_rarest@{arm}" for arm in ARMS
    ]
    found = dict.fromkeys(names, NAN)
    size = _numbers(images.get("size"))
    present = size > 0
    if not present.any():
        return found
    place = rankdata(size[present])
    fifth = np.floor(QUINTILES * (place - 0.5) / len(place)).astype(int)
    kinds = np.asarray(images.get("class") or [0] * len(size))[present]
    pixels = {kind: size[present][kinds == kind].sum() for kind in dict.fromkeys(kinds.tolist())}
    rarest = kinds == min(pixels, key=pixels.get)
    for arm in ARMS:
        if f"dice@{arm}" not in images:
            continue
        dice = _numbers(images[f"dice@{arm}"])[present]
        found[f"dice_rarest@{arm}"] = float(dice[rarest].mean())
        if len(place) >= QUINTILES:
            for q in range(QUINTILES):
                own = dice[fifth == q]
                found[f"dice_q{q + 1}@{arm}"] = float(own.mean()) if len(own) else NAN
    return found


def recipe(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of the recipe that studies vary, and ``recipe.family``: eight hex digits over all of
    it but the learning rate.
    """
    whole = {**LATER, **cell["recipe"]}  # a record may be older than some field
    columns = {f"recipe.{name}": whole.get(name) for name in RECIPE}
    if isinstance(columns["recipe.learning_rate"], str):  # "tuned": the rate that this cell was given
        columns["recipe.learning_rate"] = cell.get("learning_rate")
    rest = json.dumps(
        {name: value for name, value in whole.items() if name != "learning_rate"}, sort_keys=True
    )
    return {**columns, "recipe.family": hashlib.sha256(rest.encode()).hexdigest()[:8]}


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(values if values is not None else [], dtype=float)


def _steps_to_half(at: np.ndarray, dice: np.ndarray, steps: int) -> float:
    if not len(at) or len(at) != len(dice):
        return NAN
    reached = at[dice >= HALF]
    return float(reached[0]) if len(reached) else float(max(steps, at[-1]) + 1)


def _roughness(values: np.ndarray) -> float:
    """Return the sd (ddof = 1) of a curve about its running median, over its second half."""
    if len(values) < 2 * WINDOW or not np.isfinite(values).all():
        return NAN
    rest = values - median_filter(values, WINDOW, mode="mirror")
    return float(rest[len(rest) // 2 :].std(ddof=1))


def _tracks(loss: np.ndarray, at: np.ndarray, dice: np.ndarray) -> float:
    if len(loss) < 2 * WINDOW or len(at) != len(dice) or not np.isfinite(loss).all():
        return NAN
    late = (at > len(loss) // 2) & (at <= len(loss)) & np.isfinite(dice)
    if late.sum() < FEWEST:
        return NAN
    smooth = uniform_filter1d(loss, WINDOW, mode="mirror")[at[late].astype(int) - 1]
    ranks = rankdata(smooth), rankdata(dice[late])
    if min(r.std() for r in ranks) == 0:  # a constant has no order to follow
        return NAN
    return float(abs(np.corrcoef(*ranks)[0, 1]))
