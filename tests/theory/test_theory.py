"""Every reference value of the theory: penalties, constants, gradients, outlines, Gaussian pixels."""

import numpy as np
import pytest

from lossbench.theory import boundaries, gradients, population, proportions

# --- 1.5: the size penalties


def test_the_dice_size_term_is_least_at_the_corner_of_the_largest_class():
    rng = np.random.default_rng(1)
    for _ in range(500):
        classes = int(rng.integers(2, 6))
        yh = rng.dirichlet(np.ones(classes))
        inside = rng.dirichlet(np.ones(classes), 200)
        corners = np.eye(classes)
        values = proportions.dice_size(corners, yh)
        assert values.argmin() == yh.argmax()
        assert proportions.dice_size(inside, yh).min() >= values.min()
        assert values == pytest.approx(np.log(yh).sum() + np.log1p(1 / yh))  # at each corner


def test_the_dice_size_term_is_concave_and_the_kl_term_convex():
    rng = np.random.default_rng(2)
    yh = rng.dirichlet(np.ones(4))
    a, b = rng.dirichlet(np.ones(4), 300), rng.dirichlet(np.ones(4), 300)
    middle = (a + b) / 2
    assert (
        proportions.dice_size(middle, yh) >= (proportions.dice_size(a, yh) + proportions.dice_size(b, yh)) / 2
    ).all()
    assert (
        proportions.kl_size(middle, yh)
        <= (proportions.kl_size(a, yh) + proportions.kl_size(b, yh)) / 2 + 1e-12
    ).all()


def test_for_two_classes_the_dice_size_term_is_least_at_nothing_and_largest_at_the_opposite_share():
    ph = np.linspace(0, 1, 1001)
    values = proportions.dice_size(proportions.binary(ph), proportions.binary(0.05))
    assert (ph[values.argmin()], ph[values.argmax()]) == (0.0, pytest.approx(0.95))
    assert ph[
        proportions.kl_size(proportions.binary(ph), proportions.binary(0.05)).argmin()
    ] == pytest.approx(0.05)


@pytest.mark.parametrize("yh", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("r", [0.5, 1.0, 2.0])
def test_only_the_dice_size_term_still_pulls_on_tiny_regions(r, yh):
    """Slopes in ln r: r / (1 + r) whatever the true share yh; KL and L1 pull in proportion to it."""
    up, down = (r * np.exp(step) * yh for step in (1e-6, -1e-6))
    slope = lambda penalty: (penalty(up) - penalty(down)) / 2e-6  # noqa: E731
    both = lambda size: lambda ph: size(proportions.binary(ph), proportions.binary(yh))  # noqa: E731
    ph = r * yh
    assert slope(lambda ph: np.log(ph + yh)) == pytest.approx(r / (1 + r), rel=1e-5)
    assert slope(both(proportions.kl_size)) == pytest.approx((ph - yh) / (1 - ph), rel=1e-4, abs=1e-8)
    if r != 1:  # L1 has a kink there
        # Both channels are off by the same amount, so the mean over two classes is that of the foreground.
        assert slope(both(proportions.l1_size)) == pytest.approx(proportions.l1_slope(r, yh), rel=1e-5)


# --- 1.5: constant predictions


@pytest.mark.parametrize("yh", [0.001, 0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("name", [n for n in proportions.LOSSES if n != "generalised Dice"])
def test_the_best_constant_is_where_the_loss_is_least(name, yh):
    p0 = (
        np.concatenate([np.geomspace(1e-5, 1, 40001)[:-1], [1.0]])
        if name == "Dice"
        else np.geomspace(1e-5, 0.9999, 40001)
    )
    found = p0[proportions.LOSSES[name](p0, yh).argmin()]
    assert found == pytest.approx(proportions.BEST[name](yh), rel=1e-3)


def test_log_dice_with_background_starts_near_the_square_root_of_twice_the_foreground():
    assert proportions.best_log_dice_all(0.001) == pytest.approx(0.043, abs=5e-4)
    assert proportions.best_log_dice_all(0.01) == pytest.approx(0.124, abs=5e-4)


@pytest.mark.parametrize("yh", [0.001, 0.05, 0.4])
def test_generalised_dice_likes_every_constant_the_same(yh):
    values = proportions.generalized_dice(np.linspace(0, 1, 101), yh)
    assert values == pytest.approx(np.full(101, 1 - 2 * yh * (1 - yh)), abs=1e-9)


# --- 1.6: the region-size losses


@pytest.mark.parametrize(
    ("term", "weight", "temperature", "r", "dice"),
    [
        ("none", 1, 1, 0.50, 0.506),
        ("l1", 1, 1, 0.50, 0.506),
        ("l1", 10, 1, 0.50, 0.506),
        ("kl", 1, 1, 0.50, 0.506),
        ("l1", 1, 10, 0.96, 0.556),
        ("kl", 1, 10, 0.68, 0.544),
    ],
)
def test_region_size_terms_change_nothing_at_temperature_one_and_match_the_mask_at_ten(
    term, weight, temperature, r, dice
):
    """RCE-2, Gaussian pixels with d = 2.5, yh = .02."""
    mask, _ = population.fitted(population.Pixels(2.5, 0.02), term, weight, temperature)
    assert mask.r == pytest.approx(r, abs=0.005)
    assert mask.dice == pytest.approx(dice, abs=0.0015)


def test_the_size_matched_mask_is_all_but_the_best_one():
    pixels = population.Pixels(2.5, 0.02)
    mask, _ = population.fitted(pixels, "l1", 1, 10)
    assert mask.dice == pytest.approx(pixels.dice_mask().dice, abs=0.001)


def test_the_dice_size_term_added_to_ce_drives_the_region_towards_nothing():
    mask, _ = population.fitted(population.Pixels(2.5, 0.02), "dice", 0.1)
    assert mask.r == pytest.approx(0.06, abs=0.005)


def test_ces_soft_size_is_right_at_its_optimum():
    assert population.fitted(population.Pixels(2.5, 0.02))[1] == pytest.approx(1, abs=1e-4)


# --- 3.1: gradients and noise


@pytest.mark.parametrize("yh", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("p0", [0.1, 0.5])
def test_the_mass_ratios_are_those_of_the_gradients(yh, p0):
    pixels = 20_000
    y = np.zeros(pixels)
    y[: round(yh * pixels)] = 1
    p = np.full(pixels, p0)
    front, back = gradients.masses(gradients.dice_gradient(p, y), y)
    assert front / back == pytest.approx(gradients.dice_mass_ratio(p0, yh))
    front, back = gradients.masses(gradients.ce_gradient(p, y), y)
    assert front / back == pytest.approx(gradients.ce_mass_ratio(p0, yh))


def test_dice_needs_no_class_weights_because_its_masses_are_balanced():
    assert gradients.dice_mass_ratio(0.5, 0.001) == pytest.approx(1.002, abs=5e-4)
    assert gradients.ce_mass_ratio(0.5, 0.001) == pytest.approx(0.001, abs=5e-6)


def test_the_dice_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(3)
    z, y = rng.normal(size=30), (np.arange(30) < 7).astype(float)

    def loss(z):
        p = 1 / (1 + np.exp(-z))
        return 1 - 2 * (p * y).sum() / (p.sum() + y.sum())

    step = 1e-6
    numeric = [(loss(z + step * e) - loss(z - step * e)) / (2 * step) for e in np.eye(30)]
    assert gradients.dice_gradient(1 / (1 + np.exp(-z)), y) == pytest.approx(numeric, abs=1e-9)


@pytest.mark.parametrize(
    ("front", "back", "over", "ratio"),
    [
        (0.2, 0.2, "image", 0.022),
        (0.2, 0.2, "batch", 0.010),
        (0.2, 0.2, "ce", 0.010),
        (0.9, 0.0, "image", 1.00),
        (0.9, 0.0, "batch", 0.010),
        (0.9, 0.0, "ce", 0.010),
    ],
)
def test_small_objects_count_as_much_as_large_ones_only_in_per_image_dice_and_only_late(
    front, back, over, ratio
):
    small, large = (gradients.object_mass(n, 16384, front, back, over) for n in (32, 3200))
    assert small / large == pytest.approx(ratio, abs=5e-4)


def test_the_noise_of_the_loss_falls_with_object_size_as_a_power():
    n = np.geomspace(100, 30_000, 20)
    slope = lambda sd: np.polyfit(np.log(n), np.log(sd), 1)[0]  # noqa: E731
    assert slope(gradients.dice_loss_sd(n, errors="area")) == pytest.approx(-0.50, abs=0.003)
    assert slope(gradients.dice_loss_sd(n, errors="perimeter")) == pytest.approx(-0.75, abs=0.003)
    assert slope(gradients.ce_loss_sd(n)) == pytest.approx(0.25, abs=1e-9)


@pytest.mark.parametrize("errors", ["area", "perimeter"])
def test_the_noise_formula_is_that_of_drawn_errors(errors):
    rng = np.random.default_rng(4)
    n, share = 2000, 0.1
    places = n if errors == "area" else round(np.sqrt(np.pi * n))
    missed, added = rng.binomial(places, share, 40_000), rng.binomial(places, share, 40_000)
    drawn = ((missed + added) / (2 * n - missed + added)).std()
    assert gradients.dice_loss_sd(n, share, errors) == pytest.approx(drawn, rel=0.02)


# --- 3.1: uncertain outlines


@pytest.mark.parametrize(
    ("core", "eta", "dice", "ce"),
    [
        (0, 0.2, 4.00, -1.00),
        (100, 0.3, -0.55, -0.55),
        (100, 0.4, 0.92, -0.62),
        (400, 0.4, -0.29, -0.29),
        (400, 0.45, 0.38, -0.31),
    ],
)
def test_the_best_volume_under_an_uncertain_rim(core, eta, dice, ce):
    found = boundaries.uncertain_rim(core, 400, eta)
    assert (found.dice, found.ce) == (pytest.approx(dice, abs=0.0055), pytest.approx(ce, abs=0.0055))


def test_a_large_core_leaves_no_difference():
    for eta in (0.2, 0.3, 0.4, 0.45):
        found = boundaries.uncertain_rim(1600, 400, eta)
        assert found.dice == found.ce


def test_dice_wants_the_pixels_whose_posterior_exceeds_half_its_score_in_all_28_cells():
    cells = [(core, eta) for core in (0, 100, 400, 1600) for eta in (0.1, 0.2, 0.3, 0.4, 0.45, 0.6, 0.8)]
    assert len(cells) == 28
    assert all(boundaries.uncertain_rim(core, 400, eta).threshold_holds for core, eta in cells)


@pytest.mark.parametrize(
    ("spread", "image", "batch", "ce"),
    [
        (0.1, -0.010, 0.008, -0.010),
        (0.2, -0.029, 0.036, -0.038),
        (0.3, -0.056, 0.077, -0.082),
        (0.4, -0.069, 0.124, -0.138),
    ],
)
def test_the_best_volume_under_a_shifted_boundary(spread, image, batch, ce):
    """CLAIMS 3.1 found these on a grid of radii .005 apart (a volume error of up to .005); solved exactly:
    -.0095,
    -.0324, -.0558, -.0695 per image and +.0098, +.0374, +.0777, +.1238 per batch.
    """
    found = boundaries.shifted_boundary(spread)
    assert (found.image, found.batch, found.ce) == (
        pytest.approx(image, abs=0.005),
        pytest.approx(batch, abs=0.005),
        pytest.approx(ce, abs=0.001),
    )


@pytest.mark.parametrize(
    ("spread", "image", "batch"),
    [(0.1, -0.00951, 0.00984), (0.2, -0.03245, 0.03744), (0.4, -0.06952, 0.12384)],
)
def test_the_shifted_boundary_is_solved_exactly(spread, image, batch):
    """Against adaptive quadrature with 1e-12 (scipy.integrate.quad) and a bounded search."""
    found = boundaries.shifted_boundary(spread)
    assert (found.image, found.batch) == (pytest.approx(image, abs=2e-5), pytest.approx(batch, abs=2e-5))


def test_ce_keeps_the_expected_volume_and_batch_dice_enlarges_it_while_image_dice_shrinks_it():
    for spread in (0.05, 0.15, 0.35):
        found = boundaries.shifted_boundary(spread)
        assert found.ce < found.image < found.soft == 0 < found.batch


# --- 3.1: Gaussian pixels


@pytest.mark.parametrize(
    ("d", "yh", "ce_r", "ce_dice", "r", "dice", "tau", "matched", "wide_r", "wide_dice"),
    [
        (1, 0.01, 0.00, 0.0, 2.00, 0.093, 0.047, 0.087, 31, 0.043),
        (2, 0.001, 0.01, 0.014, 1.05, 0.129, 0.065, 0.129, 159, 0.010),
        (2, 0.01, 0.15, 0.170, 0.99, 0.321, 0.161, 0.321, 16.5, 0.096),
        (2, 0.05, 0.45, 0.440, 1.01, 0.518, 0.259, 0.518, 3.9, 0.347),
        (3, 0.01, 0.61, 0.606, 0.86, 0.633, 0.316, 0.628, 7.5, 0.218),
        (3, 0.2, 0.95, 0.872, 0.99, 0.874, 0.437, 0.873, 1.2, 0.848),
    ],
)
def test_the_population_masks_of_gaussian_pixels(
    d, yh, ce_r, ce_dice, r, dice, tau, matched, wide_r, wide_dice
):
    pixels = population.Pixels(d, yh)
    ce, best, same, wide = pixels.ce_mask(), pixels.dice_mask(), pixels.matched_mask(), pixels.balanced_mask()
    assert (ce.r, ce.dice) == (pytest.approx(ce_r, abs=0.0055), pytest.approx(ce_dice, abs=6e-4))
    assert (best.r, best.dice, best.tau) == (
        pytest.approx(r, abs=0.0055),
        pytest.approx(dice, abs=6e-4),
        pytest.approx(tau, abs=6e-4),
    )
    assert same.r == pytest.approx(1) and same.dice == pytest.approx(matched, abs=6e-4)
    assert (wide.r, wide.dice) == (pytest.approx(wide_r, rel=0.03), pytest.approx(wide_dice, abs=6e-4))


@pytest.mark.parametrize(("d", "yh"), [(1, 0.01), (2, 0.05), (3, 0.2)])
def test_no_mask_beats_the_one_cut_at_half_its_own_score(d, yh):
    pixels = population.Pixels(d, yh)
    best = pixels.dice_mask()
    assert best.tau == pytest.approx(best.dice / 2, abs=1e-9)
    assert max(pixels.mask(cut).dice for cut in np.linspace(-2, d + 4, 2001)) <= best.dice + 1e-9
    assert best.r >= pixels.ce_mask().r


def test_balanced_weights_never_enlarge_by_more_than_the_inverse_of_the_foreground():
    for yh in (0.001, 0.01, 0.2):
        assert 1 <= population.Pixels(1.5, yh).balanced_mask().r <= 1 / yh
    assert population.Pixels(1, 0.001).balanced_mask().r == pytest.approx(309, abs=1)


def best_soft(eta, share, loss: str):
    """Return the prediction p (one value for each posterior eta, in ``share`` of all pixels) that an overlap
    loss prefers, and its D*.

    "dice": p = 1 where eta > D* / 2, else 0; "squared": p = min(1, eta / D*). Both over one large pool of
    pixels."""
    eta, share = np.asarray(eta, dtype=float), np.asarray(share, dtype=float)
    score = 0.5
    for _ in range(2000):
        p = (eta > score / 2).astype(float) if loss == "dice" else np.minimum(1, eta / score)
        size = p if loss == "dice" else p**2
        score = 2 * (share @ (p * eta)) / (share @ size + share @ eta)
    return p, float(score)


def focal_prediction(eta, gamma: float = 2.0):
    """Return the p that minimises the expected focal loss where the posterior is eta, by bisection; p > 1/2
    just where eta > 1/2.
    """
    eta = np.asarray(eta, dtype=float)
    low, high = np.full_like(eta, 1e-9), np.full_like(eta, 1 - 1e-9)
    for _ in range(80):
        p = (low + high) / 2
        rising = eta * _focal_slope(p, gamma) - (1 - eta) * _focal_slope(1 - p, gamma) > 0
        low, high = np.where(rising, low, p), np.where(rising, p, high)
    return (low + high) / 2


def _focal_slope(p, gamma: float):
    """Return d/dp of -(1 - p)^gamma log p."""
    return gamma * (1 - p) ** (gamma - 1) * np.log(p) - (1 - p) ** gamma / p


@pytest.mark.parametrize("loss", ["dice", "squared"])
def test_what_an_overlap_loss_prefers_under_uncertainty_cannot_be_improved(loss):
    rng = np.random.default_rng(5)
    eta, share = rng.beta(0.5, 2, 60), np.full(60, 1 / 60)
    best, score = best_soft(eta, share, loss)

    def value(p):
        size = p if loss == "dice" else p**2
        return 2 * (share @ (p * eta)) / (share @ size + share @ eta)

    assert value(best) == pytest.approx(score, abs=1e-9)
    assert set(best) <= {0.0, 1.0} or loss == "squared"
    for _ in range(300):
        assert value(np.clip(best + rng.normal(0, 0.1, 60), 0, 1)) <= score + 1e-12


def test_focal_keeps_ces_mask_but_swells_the_summed_probability():
    eta = np.array([0.001, 0.1, 0.4999, 0.5001, 0.9])
    assert ((focal_prediction(eta) > 0.5) == (eta > 0.5)).all()
    assert focal_prediction(eta, gamma=0.0) == pytest.approx(eta, abs=1e-6)
    for d, yh in ((2, 0.01), (3, 0.01), (2, 0.001)):
        x, share = population.Pixels(d, yh).grid()
        p = focal_prediction(population.Pixels(d, yh).posterior(x))
        assert share @ p / yh > 5
