"""All scores of a test set in one call: rows (image x class) for the `images` table, means for the `cells`
table.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lossbench.metrics import calibration as cal
from lossbench.metrics.arrays import (
    check_masks,
    check_prob,
    check_spacing,
    class_names,
    diagonals,
    mean,
    mean_over_classes,
    valid_pixels,
)
from lossbench.metrics.lesions import Matches, components, lesion_scores, match
from lossbench.metrics.overlap import overlap, pooled, size_aggregate, size_per_image
from lossbench.metrics.surface import SURFACE, Borders
from lossbench.metrics.thresholds import labels_at

PER_IMAGE = ("dice", "iou", "precision", "recall", *SURFACE)

"""Scores of a present object that the summary averages over images, then over foreground classes."""

_CHUNK = 4_000_000  # pixels looked at together: bounds the memory of large sets, never changes a result


def score_images(
    prob: np.ndarray,
    masks: np.ndarray,
    *,
    spacing: tuple[float, ...] | None = None,
    classes: tuple[str, ...] | None = None,
    ignore_index: int | None = None,
    thresholds: Mapping[str, float | None] | None = None,
) -> tuple[list[dict], dict]:
    """Score the probabilities of N images: (rows, summary), names as in docs/metrics.md.

    prob: (N, K, *S) float32 softmax, background first; masks: (N, *S) class ids, `ignore_index` for void
    pixels, which count for nothing. thresholds: arm -> None (argmax) or tau (see `thresholds.labels_at`);
    default {"0.5": None}. rows: one dict per image x foreground class; `image` counts from 0 in the order
    given. A row whose class is absent has NaN scores and says in `fp@arm` whether the class was predicted.
    summary: means over the images that hold the class, then over the foreground classes that any image holds;
    NaN with n = 0 where none does. Raises ValueError for probabilities that are not finite and for shapes or
    labels that do not fit."""
    check_prob(prob, masks, ignore_index)
    names = class_names(classes, prob.shape[1])
    spacing = check_spacing(spacing, masks.ndim - 1)
    arms = {"0.5": None} if thresholds is None else dict(thresholds)
    step = max(1, _CHUNK // int(np.prod(masks.shape[1:])))
    parts = [slice(start, start + step) for start in range(0, len(masks), step)]
    tallies, found = None, []
    for part in parts:
        valid = valid_pixels(masks[part], ignore_index)
        labels = {
            arm: labels_at(prob[part], tau if np.ndim(tau) == 0 else tau[part]) for arm, tau in arms.items()
        }
        found.append(_score_stack(labels, masks[part], valid, spacing, len(names)))
        tallied = cal.tally(prob[part], masks[part], ignore_index)
        tallies = tallied if tallies is None else tallies + tallied
        for c in range(1, len(names)):
            p = prob[part, c] if valid is None else prob[part, c] * valid
            found[-1][c]["soft_size"] = p.reshape(len(p), -1).sum(axis=1, dtype=np.float64)
    columns = {c: _joined([f[c] for f in found]) for c in range(1, len(names))}
    for column in columns.values():
        _add_sizes(column, arms)
    summary = _summarise(columns, arms) | cal.scores(tallies)
    return _rows(columns, names), {"n_test": len(masks), **summary}


def reliability(
    prob: np.ndarray,
    masks: np.ndarray,
    *,
    classes: tuple[str, ...] | None = None,
    ignore_index: int | None = None,
) -> list[dict]:
    """Return the reliability diagram of `prob` (N, K, *S) against `masks` (N, *S); rows as in
    `reliability_rows`.
    """
    check_prob(prob, masks, ignore_index)
    names = class_names(classes, prob.shape[1])
    return cal.reliability_rows(cal.tally(prob, masks, ignore_index), names)


def evaluate(
    pred: np.ndarray,
    target: np.ndarray,
    *,
    spacing: tuple[float, ...] | None = None,
    classes: tuple[str, ...] | None = None,
    ignore_index: int | None = None,
) -> dict[str, float]:
    """Score one predicted mask against the true one, both (*S) class ids: name -> value, names as in the
    tables.

    The value of a name is the mean over the foreground classes that the truth holds; with several foreground
    classes `name:class` gives each one's own. Distances are in units of `spacing` (None: pixels). A missed
    object gets the image diagonal for distances and 0 for overlaps; a class that the truth does not hold gets
    NaN, and `fp` says whether it was predicted. `classes` names all classes, background first; None: as many
    as the larger label needs."""
    pred, target = np.asarray(pred), np.asarray(target)
    if pred.shape != target.shape:
        raise ValueError(f"pred {pred.shape} and target {target.shape} differ in shape")
    pred, target = (a.astype(np.uint8) if a.dtype == bool else a for a in (pred, target))
    valid = valid_pixels(target[None], ignore_index)
    if valid is not None:
        pred = np.where(valid[0], pred, 0)
    seen = target if valid is None else target[valid[0]]
    count = (
        max(int(pred.max(initial=0)), int(seen.max(initial=0)), 1) + 1 if classes is None else len(classes)
    )
    check_masks(target, count, ignore_index)
    check_masks(pred, count, None)
    names = class_names(classes, count)
    spacing = check_spacing(spacing, target.ndim)
    columns = _score_stack({"": pred[None]}, target[None], valid, spacing, count)
    for column in columns.values():
        _add_sizes(column, {"": None})
        column.update({name: np.array([v]) for name, v in lesion_scores(column.pop("lesions@")).items()})
    each = {c: {k.removesuffix("@"): float(v[0]) for k, v in column.items()} for c, column in columns.items()}
    if count == 2:
        return each[1]
    out = {name: mean_over_classes([scores[name] for scores in each.values()]) for name in each[1]}
    return out | {f"{name}:{names[c]}": value for c, scores in each.items() for name, value in scores.items()}


def _score_stack(
    labels: Mapping[str, np.ndarray],
    masks: np.ndarray,
    valid: np.ndarray | None,
    spacing: tuple[float, ...],
    classes: int,
) -> dict[int, dict]:
    """Return foreground class -> column name -> (N,) of one stack; `lesions@arm` holds the Matches of the
    stack.
    """
    worst = diagonals(masks, valid, spacing)
    pixels = (
        np.full(len(masks), masks[0].size) if valid is None else valid.reshape(len(masks), -1).sum(axis=1)
    )
    out = {}
    for c in range(1, classes):
        true = masks == c if valid is None else (masks == c) & valid
        size = _count(true)
        borders, objects = Borders(true, spacing, worst), components(true)
        column = {"size": size, "pixels": pixels, "objects": np.bincount(objects.image, minlength=len(masks))}
        earlier: list[tuple[np.ndarray, dict]] = []
        for arm, label in labels.items():
            mask = label == c if valid is None else (label == c) & valid
            scores = _score_arm(mask, true, size, borders, objects, earlier)
            earlier.append((mask, scores))
            column |= {f"{name}@{arm}": value for name, value in scores.items()}
        out[c] = column
    return out


def _score_arm(mask, true, size, borders, objects, earlier) -> dict:
    """Return name -> (N,) of one arm and class; images whose mask an earlier arm has already scored are
    copied.
    """
    predicted, shared = _count(mask), _count(mask & true)
    scores = {"predicted": predicted, "shared": shared, **overlap(shared, predicted, size)}
    surface = {name: np.empty(len(mask)) for name in SURFACE}
    todo = np.ones(len(mask), dtype=bool)
    lesions = None
    for other, known in earlier:
        same = todo & ~_any(mask != other)
        for name in SURFACE:
            surface[name][same] = known[name][same]
        todo &= ~same
        lesions = known["lesions"] if same.all() else lesions
    images = np.flatnonzero(todo)
    if len(images):
        fresh = borders.score(Borders(mask[images], borders.spacing, borders.worst[images]), images)
        for name in SURFACE:
            surface[name][images] = fresh[name]
    absent = size == 0
    return {
        **scores,
        **surface,
        "missed": np.where(absent, np.nan, predicted == 0),
        "fp": np.where(absent, predicted > 0, np.nan),
        "lesions": match(components(mask), objects) if lesions is None else lesions,
    }


def _add_sizes(column: dict, arms: Mapping[str, float | None]) -> None:
    size = column["size"]
    for arm in arms:
        for name, value in size_per_image(column[f"predicted@{arm}"], size).items():
            column[f"{name}_hard@{arm}"] = value
    if "soft_size" in column:
        for name, value in size_per_image(column["soft_size"], size).items():
            column[f"{name}_soft"] = value


def _summarise(columns: dict[int, dict], arms: Mapping[str, float | None]) -> dict[str, float]:
    """Average over present images within each class, then over classes."""
    per_class = [_summarise_class(column, arms) for column in columns.values()]
    summary = {name: mean_over_classes([scores[name] for scores in per_class]) for name in per_class[0]}
    sizes = np.stack([column["size"] for column in columns.values()])
    pixels = float(next(iter(columns.values()))["pixels"].sum())
    return summary | {
        "n_present": int((sizes > 0).sum()),
        "n_empty": int((sizes == 0).sum()),
        "n_lesions": int(sum(column["objects"].sum() for column in columns.values())),
        "foreground_true": float(sizes.sum()) / pixels if pixels else float("nan"),
    }


def _summarise_class(column: dict, arms: Mapping[str, float | None]) -> dict[str, float]:
    size, soft = column["size"], column["soft_size"]
    present, out = size > 0, {}
    for arm in arms:
        predicted = column[f"predicted@{arm}"]
        area = predicted[~present] / np.maximum(column["pixels"][~present], 1)
        scores = {name: mean(column[f"{name}@{arm}"][present]) for name in PER_IMAGE}
        scores |= {
            f"{name}_pooled": value
            for name, value in pooled(column[f"shared@{arm}"], predicted, size).items()
        }
        scores |= {f"{name}_hard": value for name, value in size_aggregate(predicted, size).items()}
        scores |= lesion_scores(column[f"lesions@{arm}"])
        scores |= {"missed": mean(predicted[present] == 0), "fp_rate": mean(predicted[~present] > 0)}
        scores |= {"fp_area": mean(area)}
        out |= {f"{name}@{arm}": value for name, value in scores.items()}
    return out | {f"{name}_soft": value for name, value in size_aggregate(soft, size).items()}


def _rows(columns: dict[int, dict], names: tuple[str, ...]) -> list[dict]:
    rows = []
    for c, column in columns.items():
        keys = [key for key in column if not key.startswith("lesions@") and key != "pixels"]
        values = zip(*(column[key].tolist() for key in keys), strict=True)
        rows += [
            {"image": n, "class": names[c], **dict(zip(keys, row, strict=True))}
            for n, row in enumerate(values)
        ]
    return rows


def _joined(parts: list[dict]) -> dict:
    if len(parts) == 1:
        return parts[0]
    join = {True: Matches.joined, False: np.concatenate}
    return {key: join[key.startswith("lesions@")]([part[key] for part in parts]) for key in parts[0]}


def _count(masks: np.ndarray) -> np.ndarray:
    return np.count_nonzero(masks.reshape(len(masks), -1), axis=1)


def _any(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(len(masks), -1).any(axis=1)
