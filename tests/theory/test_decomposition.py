"""Cross-entropy and Dice are a matching term and a region-size term: the identities, on random cases.

N pixels, K classes: p (N, K) probabilities, y (N, K) one-hot truth in which every class occurs.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from lossbench.theory.proportions import size_error_bound

Array = np.ndarray


@dataclass(frozen=True)
class Proportions:
    """What both losses depend on: true and predicted proportions and soft recall, shape (K,)."""

    yh: Array
    ph: Array
    t: Array


def proportions(p: Array, y: Array) -> Proportions:
    """Return the proportions of probabilities p (N, K) and a one-hot truth y (N, K) in which every class
    occurs.
    """
    yh = y.mean(axis=0)
    return Proportions(yh, p.mean(axis=0), (p * y).mean(axis=0) / yh)


def cross_entropy(p: Array, y: Array) -> float:
    """Return -1/N sum_i log p of the true class."""
    return float(-np.log((p * y).sum(axis=1)).mean())


def classwise_cross_entropy(p: Array, y: Array) -> Array:
    """Return WCE_k = -1/n_k sum over class k's pixels of log p_k, shape (K,); CE = sum_k yh_k WCE_k."""
    return -(np.log(p) * y).sum(axis=0) / y.sum(axis=0)


def dice(p: Array, y: Array) -> Array:
    """Return the soft Dice of each class, 2 sum p y / (sum p + sum y) = 2 yh t / (ph + yh), shape (K,)."""
    return 2 * (p * y).sum(axis=0) / (p.sum(axis=0) + y.sum(axis=0))


def jaccard(p: Array, y: Array) -> Array:
    """Return the soft Jaccard index of each class, D / (2 - D), shape (K,)."""
    both = (p * y).sum(axis=0)
    return both / (p.sum(axis=0) + y.sum(axis=0) - both)


def kl(a: Array, b: Array) -> float:
    """Return KL(a || b) of two distributions; where a is 0 nothing is added."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    held = a > 0
    return float(np.sum(a[held] * np.log(a[held] / b[held])))


def ce_size(p: Array, y: Array) -> float:
    """Return CE's region-size term KL(yh || ph): zero exactly at the true proportions, convex."""
    found = proportions(p, y)
    return kl(found.yh, found.ph)


def ce_matching(p: Array, y: Array) -> float:
    """Return CE's matching term, sum_k yh_k KL(q_k || pi_k).

    q_k is uniform on class k's true region, pi_k = p_k / (N ph_k) where the model puts class k. CE =
    ``ce_size`` + ``ce_matching``.
    """
    q = y / y.sum(axis=0)
    pi = p / p.sum(axis=0)
    return float(sum(share * kl(q[:, k], pi[:, k]) for k, share in enumerate(y.mean(axis=0))))


def dice_matching(p: Array, y: Array) -> float:
    """Return D_F = -sum_k log t_k, the matching term of -sum_k log Dice_k."""
    return float(-np.log(proportions(p, y).t).sum())


def dice_size(p: Array, y: Array) -> float:
    """Return D_B = sum_k log(ph_k + yh_k), the region-size term of -sum_k log Dice_k."""
    found = proportions(p, y)
    return float(np.log(found.ph + found.yh).sum())


def dice_constant(y: Array) -> float:
    """Return -sum_k log(2 yh_k); -sum_k log Dice_k = ``dice_matching`` + ``dice_size`` + this."""
    return float(-np.log(2 * y.mean(axis=0)).sum())


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(0)
    return [random_case(rng) for _ in range(500)]


def random_case(rng):
    classes = int(rng.integers(2, 7))
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 40 - classes)])
    p = np.clip(rng.dirichlet(np.full(classes, rng.choice([0.3, 1.0, 5.0])), 40), 1e-9, None)
    return p / p.sum(axis=1, keepdims=True), np.eye(classes)[labels]


def test_log_dice_is_matching_plus_size_plus_a_constant(cases):
    for p, y in cases:
        whole = -np.log(dice(p, y)).sum()
        assert whole == pytest.approx(dice_matching(p, y) + dice_size(p, y) + dice_constant(y), abs=1e-11)


def test_cross_entropy_is_the_divergence_of_the_proportions_plus_matching(cases):
    for p, y in cases:
        assert cross_entropy(p, y) == pytest.approx(ce_size(p, y) + ce_matching(p, y), abs=1e-11)
        assert cross_entropy(p, y) == pytest.approx(y.mean(axis=0) @ classwise_cross_entropy(p, y), abs=1e-11)


def test_no_case_breaks_the_bounds(cases):
    for p, y in cases:
        found, ce = proportions(p, y), cross_entropy(p, y)
        assert (-np.log(found.t) <= classwise_cross_entropy(p, y) + 1e-12).all()  # B1, Jensen
        assert ce_size(p, y) <= ce + 1e-12  # B2, chain rule
        assert np.abs(found.ph - found.yh).sum() <= size_error_bound(ce) + 1e-12  # B2, Pinsker
        score = dice(p, y)
        assert (1 - score <= -np.log(score) + 1e-12).all()  # B3


def test_soft_jaccard_is_a_function_of_soft_dice_and_so_just_as_differentiable(cases):
    for p, y in cases[:50]:
        score = dice(p, y)
        assert jaccard(p, y) == pytest.approx(score / (2 - score), abs=1e-12)


def test_ce_plus_kl_at_temperature_one_only_weighs_the_size_term_that_ce_has(cases):
    """RCE-1: CE + lambda KL = (1 + lambda) KL + matching."""
    for p, y in cases[:200]:
        found = proportions(p, y)
        added = cross_entropy(p, y) + 0.7 * kl(found.yh, found.ph)
        assert added == pytest.approx(1.7 * ce_size(p, y) + ce_matching(p, y), abs=1e-12)


def test_half_an_object_costs_dice_the_same_whatever_its_size_and_one_pixel_the_more_the_smaller_it_is():
    for n in (10, 1000):
        y = np.zeros(4 * n)
        y[:n] = 1
        loss = lambda p, y=y: 1 - dice(np.stack([1 - p, p], 1), np.stack([1 - y, y], 1))[1]  # noqa: E731
        assert loss(np.where(np.arange(4 * n) < n // 2, 1.0, 0.0)) == pytest.approx(1 / 3)  # the half alone
        assert loss(np.roll(y, n // 2)) == pytest.approx(1 / 2)  # of the right size, half beside it
        assert loss(np.where(np.arange(4 * n) < n - 1, 1.0, 0.0)) == pytest.approx(1 / (2 * n - 1))
