"""What each metric is called, measured in and aims at: the table that reports, figures and docs read, in
plain Python.
"""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """title for an axis; unit ("" none, "distance" px or mm); higher_is_better (None: a target or a count);
    definition.

    `target` is the best value where neither end is: 1 for a size ratio, 0 for its logarithm.
    """

    title: str
    unit: str
    higher_is_better: bool | None
    definition: str
    target: float | None = None


_UP, _DOWN = True, False

METRICS: dict[str, Metric] = {
    "dice": Metric("Dice", "", _UP, "2 TP / (2 TP + FP + FN) per image; 0 for a miss"),
    "iou": Metric("IoU", "", _UP, "TP / (TP + FP + FN) per image; 0 for a miss"),
    "precision": Metric("Precision", "", _UP, "TP / (TP + FP) per image; 0 for a miss"),
    "recall": Metric("Recall", "", _UP, "TP / (TP + FN) per image"),
    "dice_pooled": Metric(
        "Pooled Dice", "", _UP, "Dice of the pixel counts summed over all images, empty ones included"
    ),
    "iou_pooled": Metric("Pooled IoU", "", _UP, "IoU of the pixel counts summed over all images"),
    "precision_pooled": Metric(
        "Pooled precision", "", _UP, "precision of the pixel counts summed over all images"
    ),
    "recall_pooled": Metric("Pooled recall", "", _UP, "recall of the pixel counts summed over all images"),
    "hd": Metric(
        "Hausdorff distance", "distance", _DOWN, "largest distance from a border pixel to the other border"
    ),
    "hd95": Metric(
        "HD95",
        "distance",
        _DOWN,
        "larger of the two directed 95th percentiles of the border distances; image diagonal for a miss",
    ),
    "assd": Metric("ASSD", "distance", _DOWN, "mean of all border distances of both directions, pooled"),
    "masd": Metric("MASD", "distance", _DOWN, "mean of the two directed mean border distances"),
    "nsd_1": Metric(
        "Surface Dice at 1", "", _UP, "share of border pixels within 1 px (mm) of the other border"
    ),
    "nsd_2": Metric(
        "Surface Dice at 2", "", _UP, "share of border pixels within 2 px (mm) of the other border"
    ),
    "boundary_iou": Metric("Boundary IoU", "", _UP, "IoU of the inner bands, 2 % of the image diagonal wide"),
    "size_ratio_hard": Metric(
        "Predicted / true size", "", None, "sum of predicted / sum of true pixels", 1.0
    ),
    "size_ratio_soft": Metric("Soft / true size", "", None, "sum of probabilities / sum of true pixels", 1.0),
    "log_size_ratio_hard": Metric(
        "ln size ratio", "", None, "ln of size_ratio_hard, floor half a pixel", 0.0
    ),
    "log_size_ratio_soft": Metric(
        "ln soft size ratio", "", None, "ln of size_ratio_soft, floor half a pixel", 0.0
    ),
    "log_size_image_hard": Metric(
        "Mean ln size ratio", "", None, "mean over images of ln(predicted / true)", 0.0
    ),
    "log_size_image_soft": Metric(
        "Mean ln soft size ratio", "", None, "mean over images of ln(soft / true)", 0.0
    ),
    "size_error_hard": Metric(
        "Relative size error", "", _DOWN, "mean over images of |predicted - true| / true"
    ),
    "size_error_soft": Metric(
        "Relative soft size error", "", _DOWN, "mean over images of |soft - true| / true"
    ),
    "missed": Metric(
        "Missed images", "share", _DOWN, "share of images with the class where none of it is predicted"
    ),
    "fp_rate": Metric(
        "False alarms", "share", _DOWN, "share of images without the class where it is predicted"
    ),
    "fp_area": Metric(
        "False alarm area", "share", _DOWN, "mean predicted share of the pixels of images without the class"
    ),
    "lesion_precision": Metric(
        "Object precision", "", _UP, "share of predicted components that touch a true one"
    ),
    "lesion_recall": Metric("Object recall", "", _UP, "share of true components that are touched"),
    "lesion_f1": Metric("Object F1", "", _UP, "harmonic mean of object precision and recall"),
    "pq": Metric("Panoptic quality", "", _UP, "sum of IoU over matches (IoU > 1/2) / (TP + FP/2 + FN/2)"),
    "rq": Metric("Recognition quality", "", _UP, "TP / (TP + FP/2 + FN/2) with matches at IoU > 1/2"),
    **{
        f"recall_q{q}": Metric(
            f"Object recall, size fifth {q}", "", _UP, f"object recall in the {which} fifth by size"
        )
        for q, which in enumerate(("smallest", "second", "third", "fourth", "largest"), start=1)
    },
    "nll": Metric("NLL", "nats", _DOWN, "mean over pixels of -ln p(true class)"),
    "brier": Metric("Brier score", "", _DOWN, "mean over pixels of sum_k (p_k - y_k)^2"),
    "ece": Metric(
        "ECE", "", _DOWN, "class-wise calibration error of the foreground classes, 15 equal bins, all pixels"
    ),
    "ece_fg": Metric("ECE near objects", "", _DOWN, "the same over the true objects and 4 px around them"),
    "ece_adaptive": Metric(
        "Adaptive ECE", "", _DOWN, "the same over all pixels in 15 bins of equal numbers of pixels"
    ),
}

"""name without the arm suffix (`dice` for `dice@0.5`) -> its description; the order is that of the docs."""

PRIMARY = (
    "dice",
    "hd95",
    "assd",
    "nsd_1",
    "log_size_ratio_hard",
    "log_size_ratio_soft",
    "lesion_f1",
    "nll",
    "ece_fg",
)

"""The metrics that a short table shows."""


def describe(column: str) -> Metric:
    """Return the description of a column such as `dice@val`; KeyError names an unknown one."""
    return METRICS[column.partition("@")[0]]


def label(column: str, unit: str = "px") -> str:
    """Return an axis label: `label("hd95@val", "mm")` is "HD95 (mm), threshold from validation"."""
    name, _, arm = column.partition("@")
    metric = METRICS[name]
    shown = {
        "distance": unit,
        "share": "share of images" if metric.title != "False alarm area" else "share of pixels",
    }
    measured = shown.get(metric.unit, metric.unit)
    arms = {"": "", "0.5": ", at 0.5", "val": ", threshold from validation"}
    return metric.title + (f" ({measured})" if measured else "") + arms.get(arm, f", {arm}")


def markdown() -> str:
    """Return METRICS as the table of docs/metrics.md."""
    rows = []
    for name, m in METRICS.items():
        better = f"near {m.target:g}" if m.target is not None else "higher" if m.higher_is_better else "lower"
        definition = m.definition.replace("|", "\\|")
        rows.append(f"| `{name}` | {m.title} | {m.unit or '-'} | {better} | {definition} |")
    return "\n".join(["| name | title | unit | better | definition |", "|---|---|---|---|---|", *rows])
