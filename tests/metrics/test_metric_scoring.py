"""One call scores a test set: names, means with their n, and the rules for misses, empty images and void."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lossbench.metrics import arrays, evaluate, score_images, scoring
from lossbench.metrics.surface import USUAL, Borders

ARMS = {"0.5": None, "val": 0.3}
WITH_ARM = """
dice iou dice_pooled hd hd95 assd masd nsd_1 nsd_2 boundary_iou precision recall
size_ratio_hard log_size_ratio_hard log_size_image_hard false_alarms fp_area missed
lesion_precision lesion_recall lesion_f1 pq recall_q1 recall_q2 recall_q3 recall_q4 recall_q5
"""
WITHOUT_ARM = """
size_ratio_soft log_size_ratio_soft log_size_image_soft nll ece ece_fg ece_adaptive brier
n_present n_empty n_test foreground_true dice_constant
"""
ROW = """
image class size soft_size size_ratio_soft dice@0.5 iou@val hd95@0.5 assd@val nsd_1@0.5 nsd_2@val
predicted@0.5 size_ratio_hard@val missed@0.5 false_alarms@val
"""


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def scene(n=6, classes=2, shape=(24, 20), seed=0, empty=1):
    """Smooth objects and a network that is roughly right; the first `empty` images hold no object."""
    rng = np.random.default_rng(seed)
    smooth = (0, 0, *(2.0 for _ in shape))
    field = gaussian_filter(rng.normal(size=(n, classes, *shape)), smooth) * 12
    field[:, 0] += 2.0
    masks = field.argmax(axis=1).astype(np.uint8)
    masks[:empty] = 0
    return softmax(field + gaussian_filter(rng.normal(size=field.shape), smooth) * 6), masks


def run(prob, masks, **options):
    return score_images(prob, masks, **{"thresholds": ARMS, **options})[:2]


def close(a, b, **tolerance):
    assert a.keys() == b.keys()
    numbers = [k for k in a if not isinstance(a[k], str)]
    assert {k: a[k] for k in numbers} == pytest.approx({k: b[k] for k in numbers}, nan_ok=True, **tolerance)


def test_the_summary_holds_every_promised_name_as_a_plain_number():
    rows, summary = run(*scene())
    promised = {*WITHOUT_ARM.split(), *(f"{name}@{arm}" for name in WITH_ARM.split() for arm in ARMS)}
    assert promised <= summary.keys()
    assert all(type(v) in (int, float) for v in summary.values())
    assert set(ROW.split()) <= rows[0].keys()
    assert all(type(v) in (int, float, str) for row in rows for v in row.values())
    assert len(rows) == 6


@pytest.mark.parametrize("classes", [2, 4])
def test_each_mean_runs_over_present_images_then_over_classes(classes):
    prob, masks = scene(n=8, classes=classes)
    rows, summary = run(prob, masks)
    for name in (
        "dice@0.5",
        "hd95@val",
        "nsd_1@0.5",
        "log_size_image_soft",
        "size_error_hard@val",
        "missed@0.5",
    ):
        each = [[r[name] for r in rows if r["class"] == str(c) and r["size"]] for c in range(1, classes)]
        assert summary[name] == pytest.approx(np.mean([np.mean(v) for v in each if v])), name
    assert summary["n_present"] == sum(r["size"] > 0 for r in rows)
    assert summary["n_present"] + summary["n_empty"] == len(rows) == 8 * (classes - 1)


def test_aggregate_sizes_and_pooled_dice_use_all_images():
    prob, masks = scene(empty=3)
    rows, summary = run(prob, masks)
    total, truth = sum(r["predicted@0.5"] for r in rows), sum(r["size"] for r in rows)
    assert summary["size_ratio_hard@0.5"] == pytest.approx(total / truth)
    assert summary["log_size_ratio_hard@0.5"] == pytest.approx(math.log(total / truth))
    assert summary["size_ratio_soft"] == pytest.approx(prob[:, 1].sum() / truth, rel=1e-5)
    shared = sum(r["shared@0.5"] for r in rows)
    assert summary["dice_pooled@0.5"] == pytest.approx(2 * shared / (total + truth))


def test_an_image_scores_the_same_alone_in_a_set_and_through_evaluate():
    prob, masks = scene(classes=3)
    rows, _ = run(prob, masks, spacing=(0.5, 2.0), classes=("bg", "a", "b"))
    for n in range(len(masks)):
        single = evaluate(prob[n].argmax(axis=0), masks[n], spacing=(0.5, 2.0), classes=("bg", "a", "b"))
        for name in "ab":
            row = next(r for r in rows if (r["image"], r["class"]) == (n, name))
            for key in ("dice", "hd95", "nsd_2", "boundary_iou", "size_ratio_hard", "missed", "false_alarms"):
                assert single[f"{key}:{name}"] == pytest.approx(row[f"{key}@0.5"], nan_ok=True)


def test_misses_get_the_worst_values_and_stay_in_the_mean():
    masks = np.zeros((2, 6, 8), np.uint8)
    masks[:, 1:3, 1:3] = 1
    prob = np.stack([1.0 - masks, masks], axis=1).astype(np.float32)
    prob[1] = [np.ones((6, 8)), np.zeros((6, 8))]
    rows, summary = run(prob, masks)
    assert rows[1]["missed@0.5"] == 1
    assert rows[1]["hd95@0.5"] == 10
    assert summary["hd95@0.5"] == 5
    assert (summary["dice@0.5"], summary["nsd_1@0.5"], summary["missed@0.5"]) == (0.5, 0.5, 0.5)
    assert rows[1]["log_size_image_hard@0.5"] == pytest.approx(-math.log(8))


def test_empty_images_are_counted_apart():
    masks = np.zeros((4, 5, 5), np.uint8)
    masks[0, 2, 2] = 1
    p = masks.astype(np.float32)
    p[1, 0, :2] = 0.9
    rows, summary = run(np.stack([1 - p, p], axis=1), masks)
    assert (summary["n_present"], summary["n_empty"]) == (1, 3)
    assert summary["dice@0.5"] == 1
    assert summary["false_alarms@0.5"] == pytest.approx(1 / 3)
    assert summary["fp_area@0.5"] == pytest.approx(2 / 25 / 3)
    assert [r["false_alarms@0.5"] for r in rows][1:] == [1, 0, 0]
    assert math.isnan(rows[1]["dice@0.5"]) and math.isnan(rows[0]["false_alarms@0.5"])
    assert summary["size_ratio_hard@0.5"] == 3


def test_a_class_that_no_image_holds_leaves_the_means_to_the_other_classes():
    prob, masks = scene(classes=3)
    masks[masks == 2] = 0
    rows, summary = run(prob, masks)
    dice = [r["dice@0.5"] for r in rows if r["class"] == "1" and r["size"]]
    assert summary["dice@0.5"] == pytest.approx(np.mean(dice))


def test_a_set_without_any_object_has_no_mean_and_says_so_with_n_zero():
    prob, masks = scene()
    _, summary = run(prob, np.zeros_like(masks))
    assert summary["n_present"] == summary["n_lesions"] == summary["n_pixels_fg"] == 0
    assert (
        math.isnan(summary["dice@0.5"]) and math.isnan(summary["hd95@val"]) and math.isnan(summary["ece_fg"])
    )
    for name in ("nll", "brier", "ece", "ece_adaptive", "false_alarms@0.5", "fp_area@val", "foreground_true"):
        assert math.isfinite(summary[name]), name


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_collapsed_network_has_finite_scores(value):
    _, masks = scene(empty=0)
    p = np.full(masks.shape, value, np.float32)
    _, summary = run(np.stack([1 - p, p], axis=1), masks)
    expected = {
        "false_alarms@0.5",
        "false_alarms@val",
        "fp_area@0.5",
        "fp_area@val",
    }  # no empty image: n_empty = 0
    assert {k for k, v in summary.items() if not math.isfinite(v)} == expected
    assert summary["missed@0.5"] == 1 - value


def test_void_pixels_change_nothing_wherever_they_lie_and_whatever_is_predicted_there():
    prob, masks = scene(classes=3)
    plain = run(prob, masks)
    frame = ((0, 0), (4, 2), (0, 6))
    masks = np.pad(masks, frame, constant_values=255)
    prob = np.pad(prob, (frame[0], (0, 0), *frame[1:]), constant_values=1 / 3)
    padded = run(prob, masks, ignore_index=255)
    close(padded[1], plain[1])
    for a, b in zip(padded[0], plain[0], strict=True):
        close(a, b)


def test_the_size_of_the_chunks_is_never_seen(monkeypatch):
    prob, masks = scene(classes=3, n=7)
    whole = run(prob, masks)
    monkeypatch.setattr(arrays, "CHUNK", 2 * 24 * 20)
    parts = run(prob, masks)
    close(parts[1], whole[1])
    for a, b in zip(parts[0], whole[0], strict=True):
        close(a, b)


def test_the_order_of_the_images_does_not_matter():
    prob, masks = scene()
    order = [4, 2, 5, 0, 1, 3]
    close(run(prob[order], masks[order])[1], run(prob, masks)[1])


def test_volumes_are_scored_like_images():
    prob, masks = scene(n=3, shape=(8, 10, 9))
    rows, summary = run(prob, masks, spacing=(3.0, 1.0, 1.0))
    single = evaluate(prob[2].argmax(axis=0), masks[2], spacing=(3.0, 1.0, 1.0))
    assert {k: rows[2][f"{k}@0.5"] for k in USUAL.names} == pytest.approx({k: single[k] for k in USUAL.names})
    assert math.isfinite(summary["hd95@val"])


def test_a_flat_volume_scores_its_size_and_overlap_like_the_image():
    prob, masks = scene()
    flat, deep = run(prob, masks)[1], run(prob[:, :, None], masks[:, None])[1]
    for name in ("dice@0.5", "size_ratio_soft", "nll", "ece", "ece_fg", "lesion_f1@val"):
        assert deep[name] == pytest.approx(flat[name])


def test_arms_that_agree_on_an_image_are_measured_once(monkeypatch):
    prob, masks = scene(empty=0)
    seen = []
    monkeypatch.setattr(Borders, "score", counted(Borders.score, seen))
    half = run(prob, masks, thresholds={"0.5": None, "same": 0.5, "other": 0.05})[1]
    assert seen == [6, 6], "the first arm and the third; the second agrees with the first everywhere"
    for name in ("dice", "hd95", "pq"):
        assert half[f"{name}@same"] == half[f"{name}@0.5"]
    seen.clear()
    prob[2:] = np.round(prob[2:])  # certain predictions are the same at every threshold
    run(prob, masks, thresholds={"0.5": None, "other": 0.05})
    assert seen == [6, 2]


def counted(function, seen):
    def wrapper(self, other, wanted, images):
        seen.append(len(images))
        return function(self, other, wanted, images)

    return wrapper


def test_a_threshold_arm_equals_the_argmax_arm_of_the_thresholded_prediction():
    prob, masks = scene()
    q = 1 - prob[:, 0] > np.float32(0.3)
    hard = np.stack([1.0 - q, q], axis=1).astype(np.float32)
    a, b = run(prob, masks)[1], run(hard, masks)[1]
    for name in ("dice", "hd95", "size_ratio_hard", "boundary_iou", "recall_q1"):
        assert a[f"{name}@val"] == pytest.approx(b[f"{name}@0.5"])


def test_evaluate_names_its_scores_as_the_tables_do_and_infers_the_classes():
    pred, true = np.array([[0, 1, 1], [0, 0, 2]]), np.array([[0, 1, 0], [0, 0, 2]])
    got = evaluate(pred, true)
    assert got["dice:1"] == pytest.approx(2 / 3)
    assert got["dice:2"] == 1
    assert got["dice"] == pytest.approx(5 / 6)
    assert "dice:1" not in evaluate(pred == 1, true == 1), "a single foreground class needs no second name"
    assert evaluate(pred == 1, true == 1)["size_ratio_hard"] == 2


def test_evaluate_of_a_miss_and_of_a_false_alarm():
    empty, full = np.zeros((3, 4), int), np.ones((3, 4), int)
    assert evaluate(empty, full)["hd95"] == 5
    assert evaluate(empty, full)["missed"] == 1
    assert evaluate(full, empty)["false_alarms"] == 1
    assert math.isnan(evaluate(full, empty)["dice"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, m: (np.where(p > 2, p, np.nan), m), "not finite"),
        (lambda p, m: (p * 7 - 3, m), "softmax first"),
        (lambda p, m: (p[:, :, 1:], m), "does not fit"),
        (lambda p, m: (p[:, :1], m), "K >= 2"),
        (lambda p, m: (p, m + 1), "class id 2"),
        (lambda p, m: (p, m.astype(float)), "integer class ids"),
        (lambda p, m: (p[:0], m[:0]), "no pixel in masks"),
    ],
)
def test_wrong_arrays_are_refused_in_one_sentence(change, message):
    prob, masks = scene()
    with pytest.raises(ValueError, match=message):
        run(*change(prob, np.minimum(masks + (np.arange(6) == 5)[:, None, None], 1).astype(np.uint8)))


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, float("nan"))])
def test_an_impossible_spacing_is_refused(spacing):
    with pytest.raises(ValueError, match="2 positive numbers"):
        run(*scene(), spacing=spacing)


def test_class_names_must_be_as_many_as_the_channels():
    with pytest.raises(ValueError, match="3 class names for 2 classes"):
        run(*scene(), classes=("a", "b", "c"))


def test_the_metrics_never_import_torch_or_pandas():
    code = "import sys, lossbench.metrics; print(sorted({'torch', 'pandas', 'monai'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_distances_are_in_units_of_the_spacing():
    prob, masks = scene(empty=0)
    once, twice = run(prob, masks)[1], run(prob, masks, spacing=(2.0, 2.0))[1]
    for name in USUAL.distances:
        assert twice[f"{name}@0.5"] == pytest.approx(2 * once[f"{name}@0.5"])


def sure(marks):
    """(N, 2, *S) probabilities of a network that is certain."""
    return np.stack([1.0 - marks, marks], axis=1).astype(np.float32)


def test_images_without_the_class_count_both_ways_by_hand():
    masks, marks = np.zeros((3, 2, 4), np.uint8), np.zeros((3, 2, 4))
    masks[0, 0, :2] = 1
    marks[0, 0, :1] = 1  # Dice 2/3
    marks[2, 1] = 1  # a false alarm of half an image
    _, got = run(sure(marks), masks, thresholds=None)
    assert got["dice@0.5"] == pytest.approx(2 / 3)
    assert got["dice_all@0.5"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert got["dice_pooled@0.5"] == pytest.approx(2 * 1 / (2 + 5))
    assert (got["false_alarms@0.5"], got["fp_area@0.5"]) == (0.5, 0.25)


def test_the_four_overlaps_stand_for_each_class_and_for_their_mean():
    masks, pred = np.zeros((2, 1, 4), np.uint8), np.zeros((2, 1, 4), int)
    masks[0], pred[0] = [[1, 1, 2, 2]], [[1, 0, 2, 2]]
    pred[1] = [[0, 0, 0, 2]]
    prob = np.moveaxis(np.eye(3, dtype=np.float32)[pred], -1, 1)
    _, got = run(prob, masks, classes=("bg", "a", "b"))
    each = {name: (got[f"{name}:a@val"], got[f"{name}:b@val"]) for name in scoring.EACH}
    assert each == {
        "dice": pytest.approx((2 / 3, 1)),
        "dice_all": pytest.approx(((2 / 3 + 1) / 2, 1 / 2)),
        "dice_pooled": pytest.approx((2 / 3, 4 / 5)),
        "false_alarms": (0, 1),
    }
    assert {name: got[f"{name}@val"] for name in each} == pytest.approx(
        {name: sum(values) / 2 for name, values in each.items()}
    )


def test_iou_by_image_averages_classes_first():
    masks, pred = np.zeros((3, 1, 4), np.uint8), np.zeros((3, 1, 4), int)
    masks[0], pred[0] = [[1, 1, 2, 2]], [[1, 0, 2, 2]]  # 1/2 and 1
    masks[1], pred[1] = [[1, 0, 0, 0]], [[0, 0, 0, 0]]  # 0
    _, got = run(np.moveaxis(np.eye(3, dtype=np.float32)[pred], -1, 1), masks)
    assert got["iou_image@0.5"] == pytest.approx((3 / 4 + 0) / 2)
    assert got["iou@0.5"] == pytest.approx(((1 / 2 + 0) / 2 + 1) / 2)


def test_the_best_constant_prediction_marks_the_class_that_gains_most_and_loses_the_others():
    masks = np.zeros((3, 2, 2), int)
    masks[0, 0] = 1  # 2 of 4 pixels: marked everywhere 2 * 2 / (2 + 4)
    masks[1, 0, 0] = 1  # 1 of 4: 2 * 1 / (1 + 4)
    masks[2, 0, 0] = 2
    _, summary, _ = score_images(np.full((3, 3, 2, 2), 1 / 3, np.float32), masks)
    assert summary["dice_constant"] == pytest.approx((2 / 3 + 2 / 5) / 2 / 2)


def test_an_image_that_is_void_everywhere_counts_nowhere():
    masks, marks = np.zeros((3, 2, 2), np.uint8), np.zeros((3, 2, 2))
    masks[2] = 255
    marks[1:, 0] = 1
    _, got = run(sure(marks), masks, ignore_index=255)
    assert (got["n_present"], got["n_empty"]) == (0, 2)
    assert (got["dice_all@0.5"], got["false_alarms@0.5"], got["fp_area@0.5"]) == (0.5, 0.5, 0.25)


def test_images_of_unequal_sizes_score_as_if_they_were_padded_with_void():
    prob, masks = scene(classes=3)
    sizes = [(24, 20), (24, 9), (5, 20), (12, 12), (24, 20), (1, 20)]
    padded = np.full_like(masks, 255)
    for n, (h, w) in enumerate(sizes):
        padded[n, :h, :w] = masks[n, :h, :w]
    images = ((prob[n, :, :h, :w], masks[n, :h, :w]) for n, (h, w) in enumerate(sizes))
    probs, truths = zip(*images, strict=True)
    together, apart = (
        score_images(prob, padded, ignore_index=255, thresholds=ARMS),
        score_images(iter(probs), iter(truths), ignore_index=255, thresholds=ARMS),
    )
    close(apart.summary, together.summary)
    for a, b in zip(apart.images, together.images, strict=True):
        close(a, b)
    for a, b in zip(apart.reliability, together.reliability, strict=True):
        close(a, b)


def test_the_floor_under_logarithms_is_counted_and_the_clipped_ratio_needs_none():
    masks, p = np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4), np.float32)
    masks[:2, 0, 0] = 1
    p[0, 0, 0] = 0.2
    p[2] = 0.6
    _, got = run(np.stack([1 - p, p], axis=1), masks, thresholds={"high": 0.7, "low": 0.5})
    assert (got["n_floored_hard@high"], got["n_floored_images_hard@high"]) == (1, 2)
    assert (got["n_floored_hard@low"], got["n_floored_images_hard@low"]) == (0, 2)
    assert (got["n_floored_soft"], got["n_floored_images_soft"]) == (0, 2)
    assert (got["size_clipped_hard@high"], got["size_clipped_hard@low"]) == (0, 4)
    assert got["size_ratio_hard@low"] == 8
    assert got["size_clipped_soft"] == 4 < got["size_ratio_soft"]


def test_more_classes_than_a_byte_can_count_are_right():
    masks = np.array([[[0, 299, 299, 43]]])
    prob = np.moveaxis(np.eye(300, dtype=np.float32)[masks], -1, 1)
    rows, got = run(prob, masks)
    assert got["dice@0.5"] == got["dice@val"] == 1
    assert {r["class"]: r["size"] for r in rows if r["size"]} == {"43": 1, "299": 2}
    prob[:, [43, 299]] = prob[:, [299, 43]]
    assert run(prob, masks)[1]["dice@0.5"] == 0


def test_evaluate_of_probabilities_adds_the_scores_of_probabilities():
    prob, masks = scene(empty=0)
    got, alone = evaluate(prob[0], masks[0]), run(prob[:1], masks[:1])[1]
    for name in ("dice@0.5", "hd95@0.5", "size_ratio_soft", "nll", "ece", "log_size_image_soft"):
        assert got[name.removesuffix("@0.5")] == alone[name]
    assert "nll" not in evaluate(prob[0].argmax(axis=0), masks[0])


def test_evaluate_takes_only_the_labels_that_occur():
    pred, true = np.zeros((4, 4), np.uint16), np.zeros((4, 4), np.uint16)
    pred[0], true[:2] = 60000, 60000
    assert evaluate(pred, true)["dice"] == pytest.approx(2 / 3)
    close(evaluate(pred // 60000, true // 60000), evaluate(pred, true))
    with pytest.raises(ValueError, match="400 different labels; numbered objects are not classes"):
        evaluate(np.arange(1, 401).reshape(20, 20), np.ones((20, 20), int))


def test_evaluate_gives_more_tolerances_and_percentiles_beside_the_columns():
    pred, true = np.zeros((2, 9, 9), int)
    pred[4, 0], true[4, 3] = 1, 1
    got = evaluate(pred, true, tolerance=(2.5, 3), percentile=50)
    assert (got["nsd_2"], got["nsd_2.5"], got["nsd_3"]) == (0, 0, 1)
    assert got["hd50"] == got["hd95"] == 3
    for wrong in ({"tolerance": -1}, {"percentile": 101}, {"percentile": float("nan")}):
        with pytest.raises(ValueError, match=r"must (be 0 or more|lie in 0\.\.100), got"):
            evaluate(pred, true, **wrong)


def test_cldice_by_hand():
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    true, pred = np.zeros((2, 5, 12), int)
    true[2, 1:11] = 1  # a line of ten pixels is its own skeleton
    pred[2, 1:6] = pred[4, 1:6] = 1  # half of it, and as much beside it
    assert evaluate(pred, true, cldice=True)["cldice"] == pytest.approx(2 * 0.5 * 0.5 / (0.5 + 0.5))
    assert evaluate(true, true, cldice=True)["cldice"] == 1
    assert evaluate(0 * pred, true, cldice=True)["cldice"] == 0
    assert "cldice" not in evaluate(pred, true)


def test_tensors_and_lists_are_scored_like_arrays():
    import torch

    prob, masks = scene(empty=0)
    expected = evaluate(prob[0], masks[0])
    close(evaluate(torch.tensor(prob[0], requires_grad=True), torch.tensor(masks[0])), expected)
    close(run(torch.tensor(prob), torch.tensor(masks))[1], run(prob, masks)[1])
    assert evaluate([[0, 1]], [[1, 1]])["recall"] == 0.5


@pytest.mark.parametrize(
    ("pred", "target", "options", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), {}, "differ in shape"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), {}, "pred must hold integer class ids"),
        (np.zeros((0, 2), int), np.zeros((0, 2), int), {}, "no pixel in target"),
        ("mask.png", "mask.png", {}, "pred must be an array of numbers"),
        ([[1], [1, 2]], [[1]], {}, "pred must be an array of numbers"),
        ([[0, 1]], [[0, 255]], {"classes": ("bg", "a")}, "class id 255 in target.* ignore_index=255"),
        ([[0, 1]], [[0, 1]], {"classes": ("bg", "bg")}, "two classes are called 'bg'"),
        ([[0, 1]], [[0, 1]], {"spacing": (1e200, 1)}, "spacing is the size of a pixel"),
        ([[0, -1]], [[0, 1]], {}, "class id -1"),
        ([[0, 1]], [[0, 1]], {"classes": 3}, "classes must be the names of all classes, .* got 3"),
        ([0, 1], [0, 1], {"cldice": True}, "target must have two or three spatial axes, for clDice"),
        (1, 1, {}, r"target must have one to three spatial axes, got the shape \(\)"),
    ],
)
def test_what_evaluate_cannot_score_is_refused_in_one_sentence(pred, target, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(pred, target, **options)


@pytest.mark.parametrize("tau", [float("nan"), -0.1, 2])
def test_a_threshold_outside_zero_to_one_is_refused(tau):
    with pytest.raises(ValueError, match=r"a threshold must lie in 0\.\.1"):
        run(*scene(), thresholds={"mine": tau})


def test_probabilities_that_do_not_sum_to_one_are_refused_but_under_void():
    prob, masks = scene()
    prob[1, :, 3, 4] = 0.9, 0.8
    with pytest.raises(ValueError, match=r"must sum to one over the classes, got 1\.7"):
        run(prob, masks)
    masks[1, 3, 4] = 255
    run(prob, masks, ignore_index=255)
    with pytest.raises(ValueError, match="there is no image"):
        run([], [])
    with pytest.raises(ValueError, match="1 predictions for 2 masks"):
        run([prob[0]], list(masks[:2]))


def test_probabilities_of_many_classes_may_be_of_half_precision():
    logits = np.random.default_rng(0).normal(0, 0.1, (1, 2000, 4, 4))
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    arrays.check_prob(exact.astype(np.float16), np.zeros((1, 4, 4), int), None)
