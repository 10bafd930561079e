"""The cases of tools/cases.py that are metrics: the tests of MONAI and MetricsReloaded run as they are, and
at each call ours is asked for the number that theirs gives.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import sys
import types
import unittest
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from lossbench.metrics import evaluate

Ours = Callable[[], Any] | None  # None: we have no spelling of the case


def whole(target: Tensor | np.ndarray) -> bool:
    """Whether a target holds class ids or a one-hot, not shares."""
    return bool((target == target.round()).all())


def load(file: Path) -> types.ModuleType:
    """Import a file of MONAI's tests for its tables and tests, without what it needs of their tools."""
    names = {"parameterized": {"parameterized": types.SimpleNamespace(expand=_each)}}
    names |= {"tests": {}, "tests.test_utils": {"test_script_save": None, "assert_allclose": _close}}
    before = {name: sys.modules.get(name) for name in names}
    for name, members in names.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(members)
    try:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        for name, old in before.items():
            sys.modules.pop(name)
            if old is not None:
                sys.modules[name] = old


def _each(cases: list, **_) -> Callable:
    """Stand for ``parameterized.expand``: one test of all cases, of which a failed one hides no other."""

    def decorate(function):
        def test(self):
            for number, case in enumerate(cases):
                with self.subTest(number):
                    function(self, *case)

        return test

    return decorate


def _close(mine: Any, theirs: Any, **_) -> None:
    np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3)


# --- MONAI: at each call of a function that scores masks

# What we have of the scores that MONAI makes of the four counts of a mask.
OF_COUNTS = {"tpr": "recall", "ppv": "precision", "f1": "dice", "ts": "iou"}
MASKS = ("y_pred", "y")  # their names in MONAI
UNHEARD = "test_precision"  # scores nothing, of 46 million pixels


class Case(NamedTuple):
    """One image and class that a metric of MONAI was asked of; ``lacks`` says what of it we have not."""

    column: str
    lacks: str
    pred: np.ndarray
    true: np.ndarray
    theirs: float
    options: dict = {}  # noqa: RUF012 (never written to)

    def ours(self) -> Ours:
        """Return our spelling; None where we lack something, or treat what is absent in another way."""
        # A class that the truth does not hold has no score here, and a miss gets the worst value.
        scored = self.true.any() or self.column == "dice_all"
        if self.lacks or not (np.isfinite(self.theirs) if scored else np.isnan(self.theirs)):
            return None
        return lambda: evaluate(self.pred, self.true, classes=("0", "1"), **self.options)[self.column]

    def key(self) -> tuple:
        masks = self.pred.shape, self.pred.tobytes(), self.true.tobytes()
        return self.column, self.lacks, str(self.options), masks


def monai_metrics(clone: Path) -> Iterator[tuple[str, Ours, float]]:
    """Run MONAI's tests of metrics; yield each different pair of masks that a metric was asked of."""
    for (module, function), (kind, file, cases) in FUNCTIONS.items():
        heard: dict[tuple, Case] = {}
        home = importlib.import_module(f"monai.metrics.{module}")
        *owner, function = function.split(".")
        # The classes of MONAI take a function from its module, and the tests from the package.
        places = [getattr(home, *owner)] if owner else [home, importlib.import_module("monai.metrics")]
        hearing = _hearing(getattr(places[0], function), cases, heard)
        for place in places:
            setattr(place, function, hearing)
        tests = load(clone / "tests" / "metrics" / f"test_{file}.py")
        for held in vars(tests).values():
            if hasattr(held, UNHEARD):
                delattr(held, UNHEARD)
        suite = unittest.defaultTestLoader.loadTestsFromModule(tests)
        result = unittest.TextTestRunner(io.StringIO()).run(suite)
        for test, why in result.failures + result.errors:
            print(f"{test} fails here: {why.splitlines()[-1]}")
        for case in heard.values():
            yield kind, case.ours(), case.theirs


def _hearing(function: Callable, cases: Callable, heard: dict[tuple, Case]) -> Callable:
    @wraps(function)
    def hearing(*args, **kwargs):
        value = function(*args, **kwargs)
        given = inspect.signature(function).bind(*args, **kwargs)
        given.apply_defaults()
        # By its key, for tests repeat an image to fill a batch, and ask again for another mean.
        heard.update({case.key(): case for case in cases(given.arguments, value)})
        return value

    return hearing


def _of_channel(given: dict, value: Tensor) -> Iterator[Case]:
    """Yield the one case of a call of MONAI's Dice, which is of a channel."""
    masks = (_mask(given[name]) for name in MASKS)
    lacks = "" if given["mask"] is None else "void pixels"
    yield Case("dice" if given["self"].ignore_empty else "dice_all", lacks, *masks, float(value))


def _of_counts(given: dict, values: Tensor) -> Iterator[Case]:
    """Yield the cases of a score of counts TP, FP, TN and FN, of masks that have these counts."""
    name = given["metric_name"]
    for counts, value in zip(given["confusion_matrix"].reshape(-1, 4), values.reshape(-1), strict=True):
        if whole(counts):  # those of one image, and no mean of several
            masks = (np.repeat(np.uint8(kind), counts.int()) for kind in ([1, 1, 0, 0], [1, 0, 0, 1]))
            lacks = "" if name in OF_COUNTS else "the score"
            yield Case(OF_COUNTS.get(name, name), lacks, *masks, float(value))


def _of_batch(spell: Callable[[dict, int], tuple[str, str, dict]]) -> Callable:
    """Return what yields the cases of a call that scores (B, C) masks; ``spell`` gives the column of a class,
    what we lack, and options.
    """

    def cases(given: dict, values: Tensor) -> Iterator[Case]:
        first = int(not given["include_background"] and given["y_pred"].shape[1] > 1)
        spacing = given.get("spacing")
        for b, c in np.ndindex(*values.shape):
            masks = (_mask(given[name][b, c + first]) for name in MASKS)
            column, lacks, options = spell(given, c)
            if spacing is not None:
                options = options | {"spacing": spacing}
            yield Case(column, lacks, *masks, float(values[b, c]), options)

    return cases


def _mask(channel: Tensor) -> np.ndarray:
    return np.asarray(channel > 0, np.uint8)


def _iou(given, c):
    return "iou", "" if given["ignore_empty"] else "a score of absent classes", {}


def _hausdorff(given, c):
    percent = given["percentile"]
    lacks = " ".join(["directed"] * given["directed"] + _metric(given))
    return ("hd", lacks, {}) if percent is None else (f"hd{percent:g}", lacks, {"percentile": percent})


def _surface_distance(given, c):
    return "assd", " ".join(["directed"] * (not given["symmetric"]) + _metric(given)), {}


def _surface_dice(given, c):
    tolerance = given["class_thresholds"][c]
    lacks = " ".join(["within voxels"] * given["use_subvoxels"] + _metric(given))
    return f"nsd_{tolerance:g}", lacks, {"tolerance": tolerance}


def _metric(given: dict) -> list[str]:
    return [] if given["distance_metric"] == "euclidean" else [given["distance_metric"]]


# Each function of MONAI that scores masks, in its module: the class that users know, the file of its tests,
# and how a call is spelled here.
FUNCTIONS = {
    ("meandice", "DiceHelper.compute_channel"): ("DiceMetric", "compute_meandice", _of_channel),
    ("meaniou", "compute_iou"): ("MeanIoU", "compute_meaniou", _of_batch(_iou)),
    ("hausdorff_distance", "compute_hausdorff_distance"): (
        "HausdorffDistanceMetric",
        "hausdorff_distance",
        _of_batch(_hausdorff),
    ),
    ("surface_distance", "compute_average_surface_distance"): (
        "SurfaceDistanceMetric",
        "surface_distance",
        _of_batch(_surface_distance),
    ),
    ("surface_dice", "compute_surface_dice"): ("SurfaceDiceMetric", "surface_dice", _of_batch(_surface_dice)),
    ("confusion_matrix", "compute_confusion_matrix_metric"): (
        "ConfusionMatrixMetric",
        "compute_confusion_matrix",
        _of_counts,
    ),
}


# --- MetricsReloaded: at each call of a measure in its tests

# Its measures of two masks that we have, too; its boundary IoU is of the border alone.
MEASURES = {
    "dsc": "dice",
    "intersection_over_union": "iou",
    "positive_predictive_value": "precision",
    "sensitivity": "recall",
    "recall": "recall",
    "centreline_dsc": "cldice",
    "measured_average_distance": "assd",
    "measured_masd": "masd",
    "measured_hausdorff_distance": "hd",
    "measured_hausdorff_distance_perc": "hd",
    "normalised_surface_distance": "nsd_",
    "boundary_iou": "",
}


def measure(name: str, asked: Any) -> Ours:
    """Return our spelling of a measure of MetricsReloaded's class; None where masks are no masks."""
    pred, true = (np.asarray(mask) for mask in (asked.pred, asked.ref))
    if not MEASURES[name] or pred.shape != true.shape or not (whole(pred) and whole(true)):
        return None
    if not true.any() or getattr(asked, "connectivity", 1) != 1:
        return None  # an absent class has no score here
    percent = asked.dict_args.get("hd_perc", 95) if name.endswith("perc") else ()
    tolerance = asked.dict_args.get("nsd", 1)
    column = MEASURES[name] + (f"{percent:g}" if percent else "")
    column += f"{tolerance:g}" if name.startswith("normalised") else ""

    def ours() -> float:
        options = {"spacing": asked.pixdim, "tolerance": tolerance, "percentile": percent}
        masks = (pred > 0).astype(np.uint8), (true > 0).astype(np.uint8)
        return evaluate(*masks, classes=("0", "1"), cldice=column == "cldice", **options)[column]

    # A miss gets the worst value here, and is no number there.
    return ours if pred.any() or "dist" not in name else None


def metricsreloaded(clone: Path) -> Iterator[tuple[str, Ours, float]]:
    """Run the tests of pairs of masks; yield each call of a measure that gives one number."""
    import pytest

    sys.path.insert(0, str(clone))
    kind = importlib.import_module("MetricsReloaded.metrics.pairwise_measures").BinaryPairwiseMeasures
    seen = []
    for name in MEASURES:
        setattr(kind, name, _noting(getattr(kind, name), name, seen))
    file = clone / "test" / "test_metrics" / "test_pairwise_measures.py"
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([str(file), "-q", "-p", "no:cacheprovider", f"--rootdir={clone}"])
    for name, asked, value in seen:
        yield name, measure(name, asked), value


def _noting(method: Callable, name: str, seen: list) -> Callable:
    def noted(self):
        value = method(self)
        seen.append((name, self, float(value)))
        return value

    return noted
