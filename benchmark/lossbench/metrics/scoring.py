"""All scores of predictions in one pass: of a test set, for the tables, and of one image, for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lossbench.base.counts import OVERLAPS, marks, overlap, size_per_image, soft_sizes
from lossbench.metrics import calibration as cal
from lossbench.metrics.arrays import (
    as_array,
    check_masks,
    check_prob,
    check_spacing,
    check_tau,
    class_names,
    count,
    diagonals,
    mean,
    mean_over_classes,
    stacks,
    valid_pixels,
)
from lossbench.metrics.lesions import Matches, components, lesion_scores, match
from lossbench.metrics.overlap import empty_images, pooled, size_aggregate
from lossbench.metrics.surface import USUAL, Borders, Wanted, boundary_iou_released
from lossbench.metrics.thresholds import labels_at

PRESENT = (*OVERLAPS, "missed")
"""Scores of a present object that, as those of its surface, are averaged over images, then over classes."""

EACH = ("dice", "dice_all", "dice_pooled", "false_alarms")
"""Scores that the summary also gives for each class, where there are several."""

MOST_LABELS = 256  # that `evaluate` takes for classes without being told so


class Scores(NamedTuple):
    """What `score_images` returns."""

    images: list[dict]
    """one row an image and foreground class"""
    summary: dict[str, float]
    """means over images, then over foreground classes"""
    reliability: list[dict]
    """the reliability diagram, one row a foreground class, region and bin"""


def score_images(
    prob: np.ndarray | Iterable[np.ndarray],
    masks: np.ndarray | Iterable[np.ndarray],
    *,
    spacing: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    thresholds: Mapping[str, float | None] | None = None,
) -> Scores:
    """Score the probabilities of N images; names as in docs/metrics.md.

    prob: (N, K, *S) softmax, background first; masks: (N, *S) class ids, `ignore_index` for void pixels,
    which count for nothing. Or one array an image, of any sizes; these are read once and not held.
    thresholds: arm -> None (argmax) or tau (see `thresholds.labels_at`); default {"0.5": None}. Distances are
    in units of `spacing` (None: pixels).

    In `images`, `image` counts from 0 in the order given; where the class is absent, overlaps are NaN and
    `false_alarms@arm` says whether it was marked. `summary`: means over the images that hold the class, then
    over the foreground classes that any image holds; NaN with n = 0 where none does. Raises ValueError for
    probabilities that are none, and for shapes, labels or thresholds that do not fit.
    """
    scoring = Scoring(spacing=spacing, classes=classes, ignore_index=ignore_index, thresholds=thresholds)
    # One stack after the other; what is kept of each are counts, not pixels.
    for p, m in stacks(prob, masks):
        scoring.add(p, m)
    return scoring.result()


class Scoring:
    """Scores of images that come a few at a time, as `score_images` gives them; options as there."""

    def __init__(
        self,
        *,
        spacing: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        ignore_index: int | None = None,
        thresholds: Mapping[str, float | None] | None = None,
    ):
        self.arms = {"0.5": None} if thresholds is None else dict(thresholds)
        # Before anything is computed.
        for tau in self.arms.values():
            check_tau(tau)
        self.spacing, self.classes, self.ignore_index = spacing, classes, ignore_index
        self.parts: list[dict[int, dict]] = []
        self.names: Sequence[str] = ()
        self.tally: cal.Tally | None = None

    def add(self, prob: np.ndarray, truth: np.ndarray | Truth) -> None:
        """Score some images of one size: `prob` (n, K, *S), `truth` (n, *S).

        Where several networks predict the same images, a `Truth` spares looking at it each time.
        """
        if not isinstance(truth, Truth):
            truth = Truth(truth, spacing=self.spacing, ignore_index=self.ignore_index)
        check_prob(prob, truth.masks, self.ignore_index)
        self.names = class_names(self.classes, prob.shape[1])
        labels = {arm: labels_at(prob, tau) for arm, tau in self.arms.items()}
        columns = _score_stack(labels, truth, range(1, len(self.names)))
        for c, column in columns.items():
            column["soft_size"] = _summed(prob[:, c], truth.valid)
        self.parts.append(columns)
        # Summed at once: a tally takes megabytes, and there may be thousands of images.
        tally = cal.tally(prob, truth.masks, truth.valid, truth.near)
        self.tally = tally if self.tally is None else self.tally + tally

    def result(self) -> Scores:
        """Return the scores of all images that were added, in their order."""
        if self.tally is None:
            raise ValueError("there is no image to score")
        # Scores of images simply stand one after the other, whatever their stack.
        columns = {c: _joined([part[c] for part in self.parts]) for c in range(1, len(self.names))}
        n_test = len(columns[1]["size"])
        means = _summary(columns, self.arms, self.names)
        summary = {"n_test": n_test, **means, **cal.scores([self.tally], self.names)}
        rows = _rows(columns, self.names, self.arms)
        return Scores(rows, summary, cal.reliability_rows([self.tally], self.names))


def evaluate(
    pred: np.ndarray,
    target: np.ndarray,
    *,
    spacing: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    tolerance: float | Sequence[float] = (),
    percentile: float | Sequence[float] = (),
    cldice: bool = False,
    released: bool = False,
) -> dict[str, float]:
    """Score one predicted image against the true one: name -> value, names as in the tables.

    pred: class ids (*S), or probabilities (K, *S), which add the scores of probabilities and are cut by
    argmax. target: class ids (*S), `ignore_index` for void pixels. The value of a name is the mean over the
    foreground classes for which it exists; with several, `name:class` gives each one's own. Distances are in
    units of `spacing` (None: pixels). A missed object gets the image diagonal for distances and 0 for
    overlaps; a class that the truth does not hold gets NaN, and `false_alarms` says whether it was marked.

    classes: names of all classes, background first; None: the labels that occur. tolerance, percentile: more
    tolerances of surface Dice and percentiles of the Hausdorff distance (`nsd_3`, `hd90`). cldice: also
    clDice, which needs scikit-image. released: also boundary IoU as its authors' code has it.
    """
    pred, target = as_array("pred", pred), as_array("target", target)
    if not target.ndim or (cldice and target.ndim not in (2, 3)):
        axes = "two or three spatial axes, for clDice" if cldice else "one to three spatial axes"
        raise ValueError(f"target must have {axes}, got the shape {target.shape}")
    # One axis more than the truth: that of the classes.
    soft = pred.ndim == target.ndim + 1
    if pred.shape[soft:] != target.shape:
        raise ValueError(f"pred {pred.shape} and target {target.shape} differ in shape")
    if soft:
        check_prob(pred[None], target[None], ignore_index)
        labels, names = labels_at(pred[None], None), class_names(classes, len(pred))
        kinds = range(1, len(names))
    else:
        labels, target = (a.astype(np.uint8) if a.dtype == bool else a for a in (pred[None], target))
        labels, names, kinds = _classes_of(labels, target, classes, ignore_index)
    if any(0 < value < 1 for value in np.atleast_1d(percentile)):
        raise ValueError(f"percentile {percentile}: must be in percent, as 95")
    wanted = Wanted(_more(USUAL.percentiles, percentile, 100), _more(USUAL.tolerances, tolerance, np.inf))
    truth = Truth(target[None], spacing=spacing, ignore_index=ignore_index)
    asked = ("cldice",) * cldice + ("boundary_iou_released",) * released
    columns = _score_stack({"": labels}, truth, kinds, wanted, asked)
    each = {}
    # The mean over one image is its own value, so names and rules are those of the tables.
    for c, column in columns.items():
        if soft:
            column["soft_size"] = _summed(pred[None, c], truth.valid)
        own = _summary_of_class(column, [""], wanted.names)
        # There is only one arm, which has no name.
        each[names[c]] = {name.removesuffix("@"): value for name, value in own.items()}
    out = {name: _over_classes(name, each) for name in next(iter(each.values()))}
    # One foreground class needs no second name.
    if len(each) > 1:
        out |= {f"{name}:{kind}": value for kind, own in each.items() for name, value in own.items()}
    if soft:
        out |= cal.scores([cal.tally(pred[None], truth.masks, truth.valid, truth.near)], names)
    return out


def _classes_of(
    pred: np.ndarray, target: np.ndarray, classes: Sequence[str] | None, ignore_index: int | None
) -> tuple[np.ndarray, Sequence[str] | Mapping[int, str], Iterable[int]]:
    """Return the predicted labels without void pixels, the names of all classes, and the foreground ids."""
    # What is marked on void pixels is no class that occurs.
    valid = valid_pixels(target[None], ignore_index)
    if valid is not None:
        pred = np.where(valid, pred, 0)
    if classes is not None:
        names = class_names(classes)
        check_masks(target, len(names), ignore_index, "target")
        check_masks(pred, len(names), None, "pred")
        return pred, names, range(1, len(names))
    for name, labels, void in (("target", target, ignore_index), ("pred", pred, None)):
        check_masks(labels, np.iinfo(np.int64).max, void, name)
    # Only labels that occur: a look at every number up to the largest would take minutes.
    here = np.union1d(np.unique(pred), np.unique(target if valid is None else target[valid[0]]))
    # Nothing in either image: still one foreground class, which both leave out.
    kinds = [int(label) for label in here if label] or [1]
    if len(kinds) > MOST_LABELS:
        raise ValueError(
            f"target and pred hold {len(kinds)} different labels; numbered objects are not classes: score "
            "pred > 0 against target > 0, or name the classes"
        )
    return pred, {kind: str(kind) for kind in kinds}, kinds


def _more(usual: tuple[float, ...], more: float | Sequence[float], largest: float) -> tuple[float, ...]:
    values = [float(v) for v in np.atleast_1d(more)]
    # Written so that NaN is wrong too.
    wrong = [v for v in values if not 0 <= v <= largest or v == np.inf]
    if wrong:
        what = "a percentile must lie in 0..100" if largest == 100 else "a tolerance must be 0 or more"
        raise ValueError(f"{what}, got {wrong[0]:g}")
    return tuple(dict.fromkeys([*usual, *values]))


# Counts and distances of each image: columns of one foreground class, name -> (N,).


class Truth:
    """True masks of N images of one size, and what is looked at once for all predictions of them.

    masks: (N, *S) class ids, `ignore_index` for void pixels. Distances are in units of `spacing`.
    """

    def __init__(
        self,
        masks: np.ndarray,
        *,
        spacing: Sequence[float] | None = None,
        ignore_index: int | None = None,
    ):
        self.masks, self.ignore_index = as_array("masks", masks), ignore_index
        self.spacing = check_spacing(spacing, self.masks.ndim - 1)
        self.valid = valid_pixels(self.masks, ignore_index)
        self._regions: dict[int, Region] = {}

    @cached_property
    def worst(self) -> np.ndarray:
        """The image diagonals (N,)."""
        return diagonals(self.masks, self.valid, self.spacing)

    @cached_property
    def pixels(self) -> np.ndarray:
        """The numbers of valid pixels (N,)."""
        return np.full(len(self.masks), self.masks[0].size) if self.valid is None else count(self.valid)

    @cached_property
    def near(self) -> np.ndarray:
        """Which pixels are near to an object, (N, *S)."""
        return cal.near_objects(self.masks, self.valid)

    def where(self, labels: np.ndarray, c: int) -> np.ndarray:
        """Return which valid pixels have the label of a class, (N, *S)."""
        return labels == c if self.valid is None else (labels == c) & self.valid

    def region(self, c: int) -> Region:
        """Return the true region of a class."""
        if c not in self._regions:
            self._regions[c] = Region(self.where(self.masks, c), self.spacing, self.worst)
        return self._regions[c]


class Region:
    """One class in N images: its pixels, its border, its components."""

    def __init__(self, mask: np.ndarray, spacing: tuple[float, ...], worst: np.ndarray):
        self.mask, self.size = mask, count(mask)
        self.borders, self.objects = Borders(mask, spacing, worst), components(mask)


def _score_stack(
    labels: Mapping[str, np.ndarray],
    truth: Truth,
    kinds: Iterable[int],
    wanted: Wanted = USUAL,
    asked: Sequence[str] = (),
) -> dict[int, dict]:
    """Return foreground class -> columns; `lesions@arm` holds the Matches of the stack."""
    out = {}
    for c in kinds:
        true = truth.region(c)
        column = {"size": true.size, "pixels": truth.pixels, "objects": true.objects.per_image()}
        earlier: list[tuple[np.ndarray, dict]] = []
        for arm, label in labels.items():
            mask = truth.where(label, c)
            scores = _score_arm(mask, true, earlier, wanted)
            scores |= {name: ON_REQUEST[name](mask, true.mask) for name in asked}
            earlier.append((mask, scores))
            column |= {f"{name}@{arm}": value for name, value in scores.items()}
        out[c] = column
    return out


def _score_arm(
    mask: np.ndarray, true: Region, earlier: list[tuple[np.ndarray, dict]], wanted: Wanted
) -> dict:
    """Return name -> (N,) of one arm and class; images whose mask an earlier arm has scored are copied."""
    predicted, shared = count(mask), count(mask & true.mask)
    surface = {name: np.empty(len(mask)) for name in wanted.names}
    todo, lesions = np.ones(len(mask), dtype=bool), None
    # Thresholds often agree on most images, and distances are the dear part.
    for other, known in earlier:
        same = todo & (count(mask != other) == 0)
        for name, values in surface.items():
            values[same] = known[name][same]
        todo &= ~same
        lesions = known["lesions"] if same.all() else lesions
    images = np.flatnonzero(todo)
    # Only images that no earlier arm has settled.
    if len(images):
        fresh = Borders(mask[images], true.borders.spacing, true.borders.worst[images])
        for name, values in true.borders.score(fresh, wanted, images).items():
            surface[name][images] = values
    return {
        "predicted": predicted,
        "shared": shared,
        **overlap(shared, predicted, true.size),
        **surface,
        **marks(predicted, true.size),
        "lesions": match(components(mask), true.objects) if lesions is None else lesions,
    }


def _cldice(mask: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return (N,) clDice of masks (N, *S); NaN without a true object, 0 for a miss.

    The harmonic mean of the shares of each skeleton that lie in the other mask (Shit et al. 2021).
    """
    try:
        from skimage.morphology import skeletonize
    except ImportError:
        raise ValueError("clDice needs scikit-image: pip install scikit-image") from None
    values = []
    for p, t in zip(mask, true, strict=True):
        # Thin lines in the middle of the objects.
        lines, truth = skeletonize(p), skeletonize(t)
        # What is predicted runs inside the truth; what is true runs inside the prediction.
        precise = (lines & t).sum() / max(lines.sum(), 1)
        sensitive = (truth & p).sum() / max(truth.sum(), 1)
        both = precise + sensitive
        values.append((2 * precise * sensitive / both if both else 0.0) if t.any() else np.nan)
    return np.array(values)


ON_REQUEST = {"cldice": _cldice, "boundary_iou_released": boundary_iou_released}
"""Scores that `evaluate` gives where it is asked for them: name -> function of two masks (N, *S)."""


def _summed(prob: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """Return (N,) sums of the probabilities of one class over the valid pixels."""
    prob = prob if valid is None else prob * valid
    return prob.reshape(len(prob), -1).sum(axis=1, dtype=np.float64)


def _joined(parts: list[dict]) -> dict:
    if len(parts) == 1:
        return parts[0]
    join = {True: Matches.joined, False: np.concatenate}
    return {key: join[key.startswith("lesions@")]([part[key] for part in parts]) for key in parts[0]}


# From columns to means, and to rows.


def _summary(columns: dict[int, dict], arms: Iterable[str], names: Sequence[str]) -> dict[str, float]:
    """Return the means over images of each class, then over classes; those of EACH also by class."""
    each = {names[c]: _summary_of_class(column, arms, USUAL.names) for c, column in columns.items()}
    out = {name: _over_classes(name, each) for name in next(iter(each.values()))}
    # The overlaps of each class travel in the record; the others can be had from the images.
    if len(each) > 1:
        for kind, own in each.items():
            out |= {f"{name}:{kind}@{arm}": own[f"{name}@{arm}"] for name in EACH for arm in arms}
    for arm in arms:
        # Classes first, then images, as in the means of others (mIoU^I of Wang et al. 2023).
        iou = np.stack([column[f"iou@{arm}"] for column in columns.values()], axis=1)
        known = ~np.isnan(iou)
        held = known.any(axis=1)
        total = np.where(known, iou, 0)[held].sum(axis=1)
        out[f"iou_image@{arm}"] = mean(total / known[held].sum(axis=1))
    size = np.stack([column["size"] for column in columns.values()])
    pixels = next(iter(columns.values()))["pixels"]
    return out | {
        "n_present": int((size > 0).sum()),
        "n_empty": int(((size == 0) & (pixels > 0)).sum()),
        "n_lesions": int(sum(column["objects"].sum() for column in columns.values())),
        "foreground_true": float(size.sum() / pixels.sum()) if pixels.any() else float("nan"),
        "dice_constant": _constant_dice(size, pixels),
    }


def _constant_dice(size: np.ndarray, pixels: np.ndarray) -> float:
    """Return the mean Dice of the best constant prediction, one class everywhere; size (classes, N), pixels
    (N,).
    """
    # Where class k is marked everywhere, its Dice is 2 size / (size + pixels), and that of the others zero.
    each = [(2 * own / (own + pixels))[own > 0].mean() for own in size if own.any()]
    return float(max(each) / len(each)) if each else float("nan")


def _over_classes(name: str, each: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean of a score over the classes that have it, the sum of a count."""
    values = [own[name] for own in each.values()]
    if len(values) == 1:
        return values[0]
    # Counts add up over classes; scores are averaged.
    return sum(values) if name.startswith("n_") else mean_over_classes(values)


def _summary_of_class(column: dict, arms: Iterable[str], surface: Sequence[str]) -> dict[str, float]:
    size, pixels, out = column["size"], column["pixels"], {}
    for arm in arms:
        predicted, shared = column[f"predicted@{arm}"], column[f"shared@{arm}"]
        more = [name for name in ON_REQUEST if f"{name}@{arm}" in column]
        scores = {name: mean(column[f"{name}@{arm}"][size > 0]) for name in (*PRESENT, *surface, *more)}
        # Images without the class, which the means above leave out.
        scores |= empty_images(column[f"dice@{arm}"], predicted, size, pixels)
        totals = pooled(shared, predicted, size)
        scores |= {f"{name}_pooled": value for name, value in totals.items()}
        scores |= {f"{name}_hard": value for name, value in size_aggregate(predicted, size).items()}
        scores |= lesion_scores(column[f"lesions@{arm}"])
        out |= {f"{name}@{arm}": value for name, value in scores.items()}
    if "soft_size" in column:
        out |= {f"{name}_soft": v for name, v in size_aggregate(column["soft_size"], size).items()}
    return out


def _rows(columns: dict[int, dict], names: Sequence[str], arms: Iterable[str]) -> list[dict]:
    """Return one row an image and foreground class."""
    rows = []
    for c, column in columns.items():
        # Objects are counted over the split, and have no row.
        shown = {k: v for k, v in column.items() if not k.startswith("lesions@") and k != "pixels"}
        for arm in arms:
            sizes = size_per_image(column[f"predicted@{arm}"], column["size"])
            shown |= {f"{name}_hard@{arm}": values for name, values in sizes.items()}
        shown |= soft_sizes(column["soft_size"], column["size"])
        for n, values in enumerate(zip(*(v.tolist() for v in shown.values()), strict=True)):
            rows.append({"image": n, "class": names[c], **dict(zip(shown, values, strict=True))})
    return rows
