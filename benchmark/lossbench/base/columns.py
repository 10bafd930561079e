"""The one list of columns: what each is called, measured in and aims at. All tables and pages read it.

A column is a name and, where it depends on a mask, the arm that made the mask: `dice@0.5` is the argmax,
`dice@val` the threshold chosen on the validation images. The list holds names without arms.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import NamedTuple

HIGHER, LOWER, NONE = "higher", "lower", "none"

# How a value and a difference of two values are written: a score of 0.85 and 8.5 points; a logarithm of 0.47
# and a factor of 1.60; anything else as it is, distances with one decimal.
POINTS, FACTOR, PLAIN, DISTANCE, COUNT = "points", "factor", "plain", "distance", "count"

FEWEST_GROUPS = 8  # independent test images or groups below which nothing is said about other images

EVENTS = ("collapsed",)  # columns that are 0 or 1 in each cell

COPIED = "copy_of"  # the cell whose training this was; a column only where some cell was copied

# How the arm is called after the title of its column.
ARMS = {"0.5": "at 0.5", "val": "at val. threshold"}


class Column(NamedTuple):
    """What a column is; `direction` says which values are better: "higher", "lower", "near 1", "none"."""

    name: str
    title: str
    definition: str
    direction: str = HIGHER
    format: str = POINTS
    unit: str = ""


# Direction, format and unit of the columns that are no overlap.
_ERROR = (LOWER, PLAIN)
_DISTANCE = (LOWER, DISTANCE, "px or mm")
_SHARE = (LOWER, PLAIN, "share of images")
_COUNT = (NONE, COUNT)


def _sizes(kind: str, title: str, what: str) -> tuple[Column, ...]:
    """Return the columns of one kind of region size: "hard" of the mask, "soft" of the probabilities."""
    log = f"Log {title.lower()} ratio"
    relative = f"mean over images of |{what} - true pixels| / true pixels"
    return (
        Column(
            f"size_ratio_{kind}", f"{title} ratio", f"sum of {what} / sum of true pixels", "near 1", PLAIN
        ),
        Column(
            f"size_clipped_{kind}",
            f"{title} ratio, at most 4",
            f"size_ratio_{kind} cut at 4",
            "near 1",
            PLAIN,
        ),
        Column(
            f"log_size_ratio_{kind}", log, f"ln of size_ratio_{kind}, floor half a pixel", "near 0", FACTOR
        ),
        Column(
            f"log_size_image_{kind}",
            f"{log} of an image",
            f"mean over images of ln({what} / true pixels), floor half a pixel",
            "near 0",
            FACTOR,
        ),
        Column(f"size_error_{kind}", f"{title} error", relative, *_ERROR),
    )


# The order is that of the documentation: overlap, surface, size, misses, objects, calibration.
SCORES = (
    Column("dice", "Dice", "2 TP / (2 TP + FP + FN) per image that holds the class; 0 for a miss"),
    Column(
        "dice_all", "Dice, all images", "the same; an image without the class: 1 if nothing is marked, else 0"
    ),
    Column("dice_pooled", "Pooled Dice", "Dice of the pixel counts summed over all images"),
    Column("false_alarms", "False alarms", "share of images without the class where it is marked", *_SHARE),
    Column(
        "fp_area",
        "False alarm area",
        "mean marked share of the pixels of images without the class",
        LOWER,
        PLAIN,
        "share of pixels",
    ),
    Column("iou", "IoU", "TP / (TP + FP + FN) per image that holds the class; 0 for a miss"),
    Column("precision", "Precision", "TP / (TP + FP) per image that holds the class; 0 for a miss"),
    Column("recall", "Recall", "TP / (TP + FN) per image that holds the class"),
    Column(
        "iou_image", "IoU by image", "mean over images of the mean IoU of the classes that the image holds"
    ),
    Column("iou_pooled", "Pooled IoU", "IoU of the pixel counts summed over all images"),
    Column("precision_pooled", "Pooled precision", "precision of the pixel counts summed over all images"),
    Column("recall_pooled", "Pooled recall", "recall of the pixel counts summed over all images"),
    # Surfaces.
    Column(
        "hd", "Hausdorff distance", "largest distance from a border pixel to the other border", *_DISTANCE
    ),
    Column(
        "hd95",
        "HD95",
        "larger of the two directed 95th percentiles of the border distances; image diagonal for a miss",
        *_DISTANCE,
    ),
    Column("assd", "ASSD", "mean of all border distances of both directions, pooled", *_DISTANCE),
    Column("masd", "MASD", "mean of the two directed mean border distances", *_DISTANCE),
    Column("nsd_1", "Surface Dice (1)", "share of border pixels within 1 px (mm) of the other border"),
    Column("nsd_2", "Surface Dice (2)", "share of border pixels within 2 px (mm) of the other border"),
    Column("boundary_iou", "Boundary IoU", "IoU of the inner bands, 2 % of the image diagonal wide"),
    # Region size.
    *_sizes("hard", "Size", "predicted pixels"),
    *_sizes("soft", "Soft size", "probabilities"),
    Column(
        "missed", "Missed images", "share of images with the class where none of it is predicted", *_SHARE
    ),
    # Objects.
    Column("lesion_precision", "Object precision", "share of predicted components that touch a true one"),
    Column("lesion_recall", "Object recall", "share of true components that are touched"),
    Column("lesion_f1", "Object F1", "harmonic mean of object precision and recall"),
    Column("pq", "Panoptic quality", "sum of IoU over matches (IoU > 1/2) / (TP + FP/2 + FN/2)"),
    Column("rq", "Recognition quality", "TP / (TP + FP/2 + FN/2) with matches at IoU > 1/2"),
    *(
        Column(
            f"recall_q{q}", f"Object recall, size fifth {q}", f"object recall in the {which} fifth by size"
        )
        for q, which in enumerate(("smallest", "second", "third", "fourth", "largest"), start=1)
    ),
    # Probabilities.
    Column("nll", "NLL", "mean over pixels of -ln p(true class)", LOWER, PLAIN, "nats"),
    Column("brier", "Brier score", "mean over pixels of sum_k (p_k - y_k)^2", *_ERROR),
    Column(
        "ece",
        "ECE",
        "class-wise calibration error of the foreground classes, 15 equal bins, all pixels",
        *_ERROR,
    ),
    Column("ece_fg", "ECE near objects", "the same over the true objects and 4 px around them", *_ERROR),
    Column(
        "ece_adaptive",
        "Adaptive ECE",
        "the same over all pixels in 15 bins of equal numbers of pixels",
        *_ERROR,
    ),
)
"""What a prediction is worth: the scores of `cells`, and of `evaluate`."""

ON_REQUEST = (
    Column("cldice", "clDice", "harmonic mean of the shares of each skeleton that lie in the other mask"),
    Column(
        "boundary_iou_released",
        "Boundary IoU (released code)",
        "boundary IoU by erosions with 3 x 3 pixels, as its authors' code has it",
    ),
)
"""Scores that `evaluate` gives when it is asked for them."""


IMAGES = (
    Column("size", "True pixels", "pixels of the class in the truth (T)", *_COUNT),
    Column("predicted", "Predicted pixels", "pixels of the class in the mask (P)", *_COUNT),
    Column("shared", "Shared pixels", "pixels of the class in both (TP)", *_COUNT),
    Column("soft_size", "Soft pixels", "sum of the probabilities of the class", *_COUNT),
    Column("objects", "True components", "connected components of the class in the truth", *_COUNT),
)
"""What `images` holds of each image and foreground class, beside its scores."""

COUNTS = (
    Column("n_test", "Test images", "number of test images", *_COUNT),
    Column("n_present", "Present", "pairs of image and foreground class that hold the class", *_COUNT),
    Column("n_empty", "Empty", "pairs of image and foreground class without the class", *_COUNT),
    *(
        Column(f"{name}_{kind}", f"{title}, {kind}", definition.format(kind), *_COUNT)
        for kind in ("hard", "soft")
        for name, title, definition in (
            ("n_floored", "Floored totals", "classes whose log_size_ratio_{} rests on the floor"),
            ("n_floored_images", "Floored images", "pairs whose log_size_image_{} rests on the floor"),
        )
    ),
    Column("n_lesions", "Objects", "true objects of all foreground classes", *_COUNT),
    Column("n_pixels", "Pixels", "pixels behind the calibration scores", *_COUNT),
    Column("n_pixels_fg", "Pixels near objects", "pixels behind ece_fg", *_COUNT),
    Column("foreground_true", "Foreground", "share of foreground among the valid test pixels", NONE, PLAIN),
    Column("dice_constant", "Dice of a constant", "best Dice of one class marked everywhere", NONE),
)
"""What the scores rest on."""


COURSE = (
    Column("collapsed", "Collapsed", "1 if the cell collapsed, else 0", *_ERROR),
    Column("dice_best", "Dice of the best weights", "Dice of the weights that validated best (protocol 1)"),
    Column("val_dice", "Validation Dice", "Dice on the validation images after the last step"),
    Column("val_dice_all", "Validation Dice, all images", "the same over all images, as dice_all"),
    Column("val_dice_best", "Best validation Dice", "the highest Dice of any validated step"),
    Column("dice_raters", "Dice with the raters", "mean Dice with each of several raters, at the argmax"),
    Column("dice_between_raters", "Dice between raters", "mean Dice of two raters of the same test images"),
    Column("kappa_raters", "Kappa of the raters", "Fleiss' kappa of the raters of the test images"),
    Column("dice_bayes_ce", "Dice of the posterior", "Dice of the argmax of a scene's exact posterior"),
    Column(
        "dice_bayes_dice", "Best possible Dice", "Dice of the Dice-optimal mask of a scene's exact posterior"
    ),
    *(
        Column(f"dice_q{q}", f"Dice, size fifth {q}", f"Dice of the {which} fifth of true regions by size")
        for q, which in enumerate(("smallest", "second", "third", "fourth", "largest"), start=1)
    ),
    Column("dice_rarest", "Dice of the rarest class", "Dice of the class with the fewest true pixels"),
    Column("nll_bayes", "NLL of the posterior", "NLL of a scene's exact posterior", *_ERROR),
    Column(
        "threshold_val", "Validation threshold", "the threshold chosen on the validation images", NONE, PLAIN
    ),
    Column("test_share", "Share of test images", "test images that were scored, of all", NONE, PLAIN),
    Column("step_best", "Best step", "the validated step with the highest Dice", *_COUNT),
    Column("train_loss_last", "Last training loss", "training loss at the last step", NONE, PLAIN),
    Column(
        "steps_to_half", "Steps to one half", "first validated step with a Dice of one half", LOWER, COUNT
    ),
    Column(
        "loss_noise",
        "Noise of the loss",
        "sd of the training loss about its running median / its fall",
        *_ERROR,
    ),
    Column("log_loss_noise", "Log noise of the loss", "ln of loss_noise", *_ERROR),
    Column(
        "loss_tracks_dice",
        "Loss tracks Dice",
        "|Spearman| of training loss and validation Dice in the second half of training",
        HIGHER,
        PLAIN,
    ),
    Column(
        "grad_noise", "Noise of the gradient", "sd of the log gradient norm about its running median", *_ERROR
    ),
    Column("log_grad_noise", "Log noise of the gradient", "ln of grad_noise", *_ERROR),
    Column("seconds", "Seconds", "wall time of the cell", *_ERROR),
    Column("cpu_seconds", "CPU seconds", "CPU time of the cell", *_ERROR),
)
"""How a cell got there: columns of `cells` that follow from its curves, its posterior and its cost."""

COLUMNS = {column.name: column for column in (*SCORES, *ON_REQUEST, *IMAGES, *COUNTS, *COURSE)}

# How records of protocol 1 spell a column: in `cells`, and in `images`.
OLD = {"fp_rate": "false_alarms", "fp": "false_alarms"}


def describe(column: str) -> Column:
    """Return what a column such as `dice@val` is; one that is not in the list is called by its own name."""
    # A column is a name, perhaps of one class, perhaps of one arm: name:class@arm.
    name = column.partition("@")[0].partition(":")[0]
    return COLUMNS.get(OLD.get(name, name)) or Column(name, name, "", NONE, PLAIN)


def spelled(column: str, there: Container[str]) -> str:
    """Return a column as it is spelled in a table or record, which may be older or newer than the name."""
    name, at, arm = column.partition("@")
    # Both ways: an old claim on a new table, and a new one on an old table.
    others = (OLD.get(name, name), *(old for old, new in OLD.items() if new == name))
    known = [f"{other}{at}{arm}" for other in (name, *others) if f"{other}{at}{arm}" in there]
    return known[0] if known else column


def title(column: str) -> str:
    """Return what a column is called everywhere: `title("hd95@val")` is "HD95 at val. threshold".

    The column of one class, `dice:liver@0.5`, is "Dice (liver) at 0.5".
    """
    name, _, arm = column.partition("@")
    kind = name.partition(":")[2]
    return f"{describe(column).title}{f' ({kind})' if kind else ''} {ARMS.get(arm, arm)}".rstrip()


def form(estimand: str) -> str:
    """Return the format of a column or of what is made of columns: `|log_size_ratio_soft|` is a factor."""
    # The first column decides: a difference of Dice minus another Dice is one of Dice.
    names = re.findall(r"\b[a-z][\w.]*(?:@[\w.]+)?", estimand)
    return describe(names[0]).format if names else PLAIN


def lower_is_better(column: str) -> bool:
    """Return whether a smaller value of this column is better."""
    return describe(column).direction == LOWER


def nearer_is_better(column: str) -> bool:
    """Return whether the best value of this column is a target, such as 0 for the log of a size ratio."""
    return describe(column).direction.startswith("near")


def markdown(columns: Iterable[Column] = SCORES) -> str:
    """Return columns as a table of docs/metrics.md."""
    lines = ["| name | title | unit | better | definition |", "|---|---|---|---|---|"]
    for column in columns:
        # A bar would end the cell of a table.
        definition = column.definition.replace("|", "\\|")
        lines.append(
            f"| `{column.name}` | {column.title} | {column.unit or '-'} | {column.direction} | {definition} |"
        )
    return "\n".join(lines)
