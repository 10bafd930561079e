"""Exact statements about the losses: what a constant prediction learns, where the gradient goes, how size is
priced.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import case, constant, evaluate, value

from lossbench.catalogue.registry import get_loss


def share_target(pixels, foreground):
    """One image (1, pixels, 1) with ``foreground`` pixels of class 1."""
    target = torch.zeros(1, pixels, 1, dtype=torch.long)
    target[0, :foreground] = 1
    return target


def best_constant(spec, target):
    """The probability that minimises the loss of a constant prediction, on a fine logarithmic grid."""
    loss = get_loss(spec)
    grid = [*torch.logspace(-5, -0.31, 1200, dtype=torch.float64).tolist(), 0.5, 0.9, 0.99, 0.999, 0.99999]
    values = [float(loss(constant(p, target), target)) for p in grid]
    return grid[values.index(min(values))]


# --- the best constant prediction of each variant
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_an_uninformed_prediction_settles_where_theory_says(share):
    target = share_target(10_000, round(10_000 * share))
    assert best_constant("ce", target) == pytest.approx(share, rel=0.02)
    assert best_constant("dice(smooth=0)", target) > 0.9999  # all foreground
    assert best_constant("dice_all(smooth=0)", target) == pytest.approx(share, rel=0.02)
    assert best_constant("dice_squared(smooth=0)", target) == pytest.approx(math.sqrt(share), rel=0.02)


@pytest.mark.parametrize(("share", "expected"), [(0.001, 0.043), (0.01, 0.124)])
def test_log_dice_over_all_classes_settles_near_the_root_of_twice_the_share(share, expected):
    target = share_target(10_000, round(10_000 * share))
    assert best_constant("log_dice(classes='all', smooth=1e-9)", target) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_generalized_dice_is_flat_over_constant_predictions(share):
    target = share_target(1000, round(1000 * share))
    for p in (0.001, share, 0.5, 0.9):
        loss, gradient = evaluate("generalized_dice(smooth=0)", constant(p, target), target)
        assert float(loss) == pytest.approx(1 - 2 * share * (1 - share))
        assert abs(float(gradient[:, 1].sum())) < 1e-12 * 1000  # no pull on the constant, whatever it is


# --- where the gradient goes
# ---------------------------------------------------------------------------------------------------


def masses(spec, logits, target):
    """Summed |gradient| on foreground and background pixels."""
    _, gradient = evaluate(spec, logits, target)
    return (float(gradient[:, 1][target == k].abs().sum()) for k in (1, 0))


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("share", [0.001, 0.05])
def test_dice_weighs_foreground_and_background_alike_and_cross_entropy_by_their_share(p, share):
    target = share_target(10_000, round(10_000 * share))
    fg, bg = masses("dice(smooth=0)", constant(p, target), target)
    assert fg / bg == pytest.approx(1 + share / (p * (1 - share)))
    fg, bg = masses("ce", constant(p, target), target)
    assert fg / bg == pytest.approx(share * (1 - p) / ((1 - share) * p))


def test_the_gradient_of_dice_has_two_values():
    logits, target = case(2, (6, 6), images=1)
    p = logits.softmax(1)[:, 1]
    total = p.sum() + (target == 1).sum()
    dice = 2 * p[target == 1].sum() / total
    _, gradient = evaluate("dice(smooth=0)", logits, target)
    per_probability = gradient[:, 1] / (p * (1 - p))
    expected = torch.where(target == 1, -(2 - dice) / total, dice / total)
    assert torch.allclose(per_probability, expected, atol=1e-9)


@pytest.mark.parametrize("late", [False, True])
def test_only_per_image_dice_weighs_small_and_large_objects_alike_and_only_late(late):
    target = torch.zeros(2, 128, 128, dtype=torch.long)
    target[0].view(-1)[:32] = 1
    target[1].view(-1)[:3200] = 1
    inside, outside = (0.9, 1e-6) if late else (0.2, 0.2)
    logits = torch.where((target == 1).unsqueeze(1), constant(inside, target), constant(outside, target))
    ratios = {}
    for spec in ("dice(smooth=0)", "batch_dice(smooth=0)", "ce"):
        _, gradient = evaluate(spec, logits, target)
        small, large = (float(gradient[i, 1][target[i] == 1].abs().sum()) for i in (0, 1))
        ratios[spec] = small / large
    assert ratios["dice(smooth=0)"] == pytest.approx(1.0 if late else 0.022, rel=0.03)
    assert ratios["batch_dice(smooth=0)"] == pytest.approx(0.010, rel=0.01)
    assert ratios["ce"] == pytest.approx(0.010, rel=0.01)


@pytest.mark.parametrize("size", [10, 1000])
def test_half_of_an_object_costs_the_same_whatever_its_size(size):
    target = share_target(10_000, size)
    half = torch.where(torch.arange(10_000).view(1, -1, 1) < size // 2, 1.0, 0.0)
    logits = torch.stack([1 - half, half], 1).double() * 100
    assert value("dice(smooth=0)", logits, target) == pytest.approx(1 / 3)
    shifted = torch.roll(half * 0 + (target == 1), size // 2, 1).double()
    assert value("dice(smooth=0)", torch.stack([1 - shifted, shifted], 1) * 100, target) == pytest.approx(
        1 / 2
    )


@pytest.mark.parametrize("size", [5, 50])
def test_one_missed_pixel_costs_one_over_twice_the_size(size):
    target = share_target(1000, size)
    found = (target == 1).double()
    found[0, 0] = 0
    loss = value("dice(smooth=0)", torch.stack([1 - found, found], 1) * 100, target)
    assert loss == pytest.approx(1 / (2 * size - 1))


@pytest.mark.parametrize("smooth", [1e-5, 1.0, 100.0])
def test_on_an_empty_image_dice_pulls_with_the_smoothing_alone(smooth):
    target = share_target(400, 0)
    p = 0.3
    _, gradient = evaluate(f"dice(smooth={smooth})", constant(p, target), target)
    expected = smooth / (400 * p + smooth) ** 2 * p * (1 - p)
    assert gradient[0, 1, 0, 0].item() == pytest.approx(expected)


# --- how size is priced
# ------------------------------------------------------------------------------------------------------------


def regions(logits, target):
    """p̂, ĝ and t = mean probability inside the true region, each (K,), of one image."""
    p = logits.softmax(1)[0].flatten(1)
    g = torch.stack([target[0].flatten() == k for k in range(p.shape[0])]).double()
    return p.mean(1), g.mean(1), (p * g).sum(1) / g.sum(1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(0.1, 4))
def test_log_dice_and_cross_entropy_split_into_matching_and_size(seed, classes, scale):
    logits, target = case(classes, (6, 7), images=1, seed=seed, scale=scale)
    predicted, true, recall = regions(logits, target)
    matching, size = -recall.log().sum(), (predicted + true).log().sum()
    log_dice = classes * value("log_dice(classes='all', smooth=1e-12)", logits, target)
    assert log_dice == pytest.approx(float(matching + size - (2 * true).log().sum()), abs=1e-6)

    p = logits.softmax(1)[0].flatten(1)
    inside = torch.stack([(target[0].flatten() == k).double() / (target == k).sum() for k in range(classes)])
    of_class = p / p.sum(1, keepdim=True)
    kl = lambda q, r: torch.xlogy(q, q).sum(-1) - torch.xlogy(q, r).sum(-1)  # noqa: E731
    size, matching = kl(true, predicted), (true * kl(inside, of_class)).sum()
    ce = value("ce", logits, target)
    assert ce == pytest.approx(float(size + matching), abs=1e-9)
    assert (
        float((predicted - true).abs().sum()) <= math.sqrt(2 * ce) + 1e-9
    )  # cross-entropy bounds the size error
    weighted = value("ce_kl(size_weight=3, temperature=1)", logits, target)
    assert weighted == pytest.approx(
        float(4 * size + matching), abs=1e-9
    )  # at T = 1 KL adds no new constraint
    dice_penalty = value("ce_db(size_weight=1, temperature=1)", logits, target) - ce
    assert dice_penalty == pytest.approx(float((predicted + true).log().mean()), abs=1e-8)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("share", [0.001, 0.05])
def test_the_size_penalty_of_dice_has_the_same_slope_for_any_region_and_the_others_fade(ratio, share):
    target = share_target(10_000, round(10_000 * share))
    step = 1e-4

    def slope(spec):
        up, down = (
            value(spec, constant(share * ratio * math.exp(s * step), target), target) for s in (1, -1)
        )
        plain = [value("ce", constant(share * ratio * math.exp(s * step), target), target) for s in (1, -1)]
        return (up - down - plain[0] + plain[1]) / (2 * step)

    predicted = share * ratio
    assert slope("ce_db(size_weight=1, temperature=1, classes='fg')") == pytest.approx(
        ratio / (1 + ratio), rel=1e-3
    )
    kl = ratio * (predicted - share) * share / (predicted * (1 - predicted))
    assert slope("ce_kl(size_weight=1, temperature=1)") == pytest.approx(kl, rel=1e-3, abs=1e-7)
    if ratio != 1:
        l1 = predicted * (1 if ratio > 1 else -1)
        assert slope("ce_l1(size_weight=1, temperature=1)") == pytest.approx(l1, rel=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_size_penalty_of_dice_is_least_where_the_largest_region_takes_everything(classes):
    true = torch.tensor([0.7, 0.3] if classes == 2 else [0.6, 0.3, 0.1], dtype=torch.float64)
    penalties = {}
    corners = torch.eye(classes, dtype=torch.float64)
    inner = torch.distributions.Dirichlet(torch.ones(classes, dtype=torch.float64)).sample((300,))
    for name, point in [
        *((f"corner {k}", c) for k, c in enumerate(corners)),
        *((f"inner {k}", p) for k, p in enumerate(inner)),
    ]:
        penalties[name] = float((point + true).log().sum())
    assert min(penalties, key=penalties.get) == "corner 0"


def test_the_size_term_never_pulls_a_pixel_harder_than_a_quarter_of_its_temperature():
    logits, target = case(2, (16, 16), images=1)
    for temperature in (1.0, 10.0):
        _, both = evaluate(f"ce_l1(size_weight=2, temperature={temperature})", logits, target)
        _, plain = evaluate("ce", logits, target)
        assert float((both - plain).abs().max()) <= 2 * temperature / 4 / 256 + 1e-9


def test_a_class_given_up_everywhere_still_feels_the_kl_term():
    target = share_target(100, 30)
    logits = constant(0.5, target).float()
    logits[:, 1] = -60.0  # softmax(10 z) is 0 in float32
    loss, gradient = evaluate("ce_kl", logits, target)
    _, plain = evaluate("ce", logits, target)
    assert loss.isfinite()
    assert float((plain - gradient)[:, 1].sum()) > 1.0  # λ T ĝ = 3, against at most 0.3 of cross-entropy
