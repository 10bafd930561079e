"""Cells of a block start and go the same way; companions in a stack never change a cell's numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lossbench.base import curves
from lossbench.catalogue.registry import get_dataset, get_loss
from lossbench.data.container import Ratings
from lossbench.experiment.cells import Cell, Recipe
from lossbench.networks.initial import weights_hash
from lossbench.training.batches import batch_order
from lossbench.training.blocks import Job, blocks_of, network_of
from lossbench.training.outcome import collapse_step, score
from lossbench.training.signals import collapse_kind, labels, mean_dice, soft_dice_sums
from lossbench.training.train import train

SPEC = "scenes(foreground=0.1, noise=0.4, size=32, n_train=12, n_val=6, n_test=8)"
TINY = Recipe(steps=6, batch=4, widths=(4, 8), validations=2)


def job(loss, seed=0, recipe=TINY, spec=SPEC):
    cell = Cell.of(spec, loss, seed, recipe)
    return Job(cell, get_dataset(spec, seed), get_loss(cell.loss))


def own(function, recipe=TINY):
    return Job(Cell.of(SPEC, "ce", 0, recipe), get_dataset(SPEC, 0), function)


def broken(logits, target, **_):
    return (logits * math.nan).mean()


def raising(logits, target, **_):
    raise ValueError("nope")


@pytest.fixture(scope="module")
def pair():
    return train([job("ce"), job("dice")])


def test_cells_of_a_block_hold_the_same_certificate_and_learn_different_things(pair):
    assert pair[0].certificate == pair[1].certificate
    assert weights_hash(pair[0].weights) != weights_hash(pair[1].weights)


def test_another_seed_changes_start_order_and_data():
    one, two = (train([job("ce", seed)])[0].certificate for seed in (0, 1))
    assert all(one[part] != two[part] for part in ("init", "order", "data"))


def test_a_record_keeps_a_hundred_means_of_a_course_and_the_noise_of_its_single_steps():
    recipe = TINY.model_copy(update={"steps": 250})
    [trained] = train([job("ce", recipe=recipe)])
    record = score(job("ce", recipe=recipe), trained)
    assert record["steps_every"] == 3
    assert len(record["steps"]["train_loss"]) == 84
    assert record["steps"]["train_loss"][0] == pytest.approx(np.mean(trained.train_loss[:3]))
    # Means over three steps swing less than the steps themselves, so that none of them could tell.
    single = curves.summary({"train_loss": trained.train_loss, "grad_norm": trained.grad_norm}, {})
    assert record["metrics"]["log_grad_noise"] == single["log_grad_noise"]
    assert record["metrics"]["log_loss_noise"] == single["log_loss_noise"]
    assert math.isfinite(single["log_grad_noise"])


@pytest.mark.parametrize("companions", [["ce", "focal"], ["tversky", "ce", "dice_ce", "ce_l1"], ["ce"]])
def test_a_cell_is_bit_identical_whatever_it_is_stacked_with(pair, companions):
    other = train([job("dice"), *map(job, companions)])[0]
    assert weights_hash(other.weights) == weights_hash(pair[1].weights)
    assert other.train_loss == pair[1].train_loss
    assert repr(other.scores) == repr(pair[1].scores)


def test_a_cell_is_bit_identical_beside_cells_of_another_seed(pair):
    other = train([job("ce", 1), job("dice"), job("focal", 2)])[1]
    assert weights_hash(other.weights) == weights_hash(pair[1].weights)


def test_a_lone_cell_of_a_stacked_recipe_is_the_same_cell(pair):
    assert weights_hash(train([job("dice")])[0].weights) == weights_hash(pair[1].weights)


def test_the_cells_of_a_block_start_from_a_head_that_knows_the_class_frequencies():
    recipe = TINY.model_copy(update={"head": "prior", "steps": 1, "learning_rate": 1e-9})
    prior, other = train([job("ce", recipe=recipe), job("dice", recipe=recipe)])
    (default,) = train([job("ce")])
    data = get_dataset(SPEC, 0)
    share = float(np.mean(np.asarray(data.masks)[data.split["train"]] == 1))
    assert prior.weights["head.bias"].softmax(0)[1].item() == pytest.approx(share, rel=1e-4)
    assert prior.certificate == other.certificate
    assert prior.certificate["init"] != default.certificate["init"]


@pytest.fixture(scope="module")
def drop(own_network):
    recipe = Recipe(steps=6, batch=4, validations=2, network="drop")

    def make(loss, seed=0):
        cell = Cell.of(SPEC, loss, seed, recipe, [own_network])
        return Job(cell, get_dataset(SPEC, seed), get_loss(cell.loss))

    return make


def test_networks_that_cannot_be_grouped_train_one_after_the_other_bit_for_bit_as_alone(drop):
    together = train([drop("ce"), drop("dice"), drop("ce", 1)])
    alone = [train([own])[0] for own in (drop("ce"), drop("dice"), drop("ce", 1))]
    for one, other in zip(together, alone, strict=True):
        assert one.stack == 1 and one.error is None
        assert weights_hash(one.weights) == weights_hash(other.weights)
        assert repr(one.curves) == repr(other.curves)
        assert repr(one.scores) == repr(other.scores)
    assert together[0].certificate == together[1].certificate
    assert int(together[0].weights["1.num_batches_tracked"]) == 6
    assert together[1].train_loss[-1] < together[1].train_loss[0]


def test_training_starts_from_the_weights_of_a_file_and_sets_the_head_after_that(pair):
    recipe = TINY.model_copy(update={"head": "prior"})
    given = {**job("ce", recipe=recipe).__dict__, "weights": pair[0].weights}
    start = network_of(job("ce")).start(0, None, pair[0].weights)
    assert weights_hash(start) == weights_hash(pair[0].weights)
    block = blocks_of([Job(**given)], "cpu").popitem()[1]
    changed = {name for name, value in block.start.items() if not torch.equal(value, pair[0].weights[name])}
    assert changed == {"head.bias"}


def test_training_twice_gives_the_same_bits(pair):
    again = train([job("ce"), job("dice")])
    assert [weights_hash(r.weights) for r in again] == [weights_hash(r.weights) for r in pair]


def test_a_single_network_agrees_with_the_stack_over_the_first_steps():
    few = {"steps": 2, "batch": 4, "widths": (4, 8), "validations": 1, "learning_rate": 1e-3}
    stacked = train([job(loss, 0, Recipe(**few)) for loss in ("ce", "dice")])[1]
    single = train([job("dice", 0, Recipe(**few, stacked=False))])[0]
    assert stacked.train_loss == pytest.approx(single.train_loss, rel=1e-5)


@pytest.mark.parametrize(("function", "mark"), [(broken, "not_finite_at"), (raising, "error")])
def test_a_cell_that_fails_does_not_touch_its_neighbours(pair, function, mark):
    results = train([own(function), job("dice")])
    assert getattr(results[0], mark)
    assert weights_hash(results[1].weights) == weights_hash(pair[1].weights)


def test_a_loss_may_write_into_its_logits(pair):
    def careless(logits, target, **_):
        logits -= logits.detach().amax(1, keepdim=True)
        return torch.nn.functional.cross_entropy(logits, target)

    for stacked in (True, False):
        recipe = TINY.model_copy(update={"stacked": stacked})
        result = train([own(careless, recipe)])[0]
        assert result.error is None and result.train_loss[-1] < result.train_loss[0]


def test_a_loss_that_fails_on_the_way_back_costs_its_own_cell_only(pair):
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.mean()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("no way back")

    fails, dice = train([own(lambda logits, target, **_: Fails.apply(logits)), job("dice")])
    assert "in step 1: no way back" in fails.error
    assert weights_hash(dice.weights) == weights_hash(pair[1].weights)


def test_a_loss_may_give_a_plain_number_where_there_is_nothing_to_learn(pair):
    def sometimes(logits, target, seen=[], **_):  # noqa: B006
        seen.append(1)
        return torch.tensor(0.0) if len(seen) == 2 else torch.nn.functional.cross_entropy(logits, target)

    given, dice = train([own(sometimes), job("dice")])
    assert given.error is None and given.train_loss[1] == given.grad_norm[1] == 0 < given.grad_norm[2]
    assert weights_hash(dice.weights) == weights_hash(pair[1].weights)


def test_a_loss_that_writes_into_what_it_is_given_spoils_its_own_copy(pair):
    def writes(logits, target, class_frequency=None, **_):
        logits *= 2
        target[:] = 1
        class_frequency[:] = 9
        return torch.nn.functional.cross_entropy(logits, target)

    _, ce, dice = train([own(writes), job("ce"), job("dice")])
    for beside, alone in ((ce, pair[0]), (dice, pair[1])):
        assert weights_hash(beside.weights) == weights_hash(alone.weights)
        assert repr(beside.curves) == repr(alone.curves)


def test_a_cell_that_turns_not_finite_is_scored_as_collapsed():
    bad = own(broken)
    result = train([bad])[0]
    record = score(bad, result)
    assert (record["outcome"], record["collapse"], record["collapse_step"]) == ("collapsed", "not_finite", 1)
    assert record["metrics"]["dice@0.5"] == 0 and record["metrics"]["missed@0.5"] == 1


def test_clipping_limits_each_cell_by_itself():
    recipe = TINY.model_copy(update={"clip": 1e-3, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0})
    one = train([job(loss, 0, recipe) for loss in ("ce", "dice")])[1]
    two = train([job(loss, 0, recipe) for loss in ("dice", "wce", "focal")])[0]
    assert weights_hash(one.weights) == weights_hash(two.weights)


def test_a_cell_with_its_own_learning_rate_is_the_cell_of_a_recipe_with_that_rate(pair):
    dice = job("dice")
    other = replace(dice, cell=replace(dice.cell, learning_rate=0.001))
    mixed = train([job("ce"), other, dice])
    alone = train([job("dice", 0, TINY.model_copy(update={"learning_rate": 0.001}))])[0]
    assert weights_hash(mixed[1].weights) == weights_hash(alone.weights)
    assert weights_hash(mixed[2].weights) == weights_hash(pair[1].weights)


def test_three_dimensions_and_boundary_maps_train():
    spec = "scenes(dims=3, foreground=0.1, size=16, n_train=4, n_val=2, n_test=2)"
    recipe = Recipe(steps=2, batch=2, widths=(4, 8), validations=1)

    def surface(logits, target, distance_map=None, **_):
        return (logits.softmax(1) * distance_map).mean()

    results = train([replace(job("boundary", 0, recipe, spec), loss=surface)])
    assert results[0].error is None and all(map(math.isfinite, results[0].train_loss))


def test_every_image_comes_once_before_any_comes_again():
    order = batch_order(10, 4, 5, np.random.default_rng(0)).reshape(-1)
    assert sorted(order[:10]) == list(range(10)) and sorted(order[10:20]) == list(range(10))


def sums(marked, masks, ignore_index=None):
    prob = torch.nn.functional.one_hot(torch.from_numpy(marked).long(), 2).movedim(-1, 1).float()
    return soft_dice_sums(prob, torch.from_numpy(masks), ignore_index)


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_a_pixel_gets_the_first_of_its_likeliest_classes(classes):
    torch.manual_seed(0)
    scores = torch.randint(0, 4, (3, classes, 32, 32)).float()  # of few values, so that many are equal
    assert torch.equal(labels(scores), torch.from_numpy(scores.numpy().argmax(1)))


def test_collapse_is_seen_from_validation_predictions():
    masks = np.zeros((4, 4, 4), np.uint8)
    masks[:, 0, 0] = 1
    empty = np.zeros_like(masks)
    assert collapse_kind(sums(empty, masks)) == "background"
    assert collapse_kind(sums(empty + 1, masks)) == "foreground"
    assert collapse_kind(sums(masks, masks)) == ""
    assert collapse_kind(sums(empty, empty)) == ""


def test_an_empty_image_counts_one_where_nothing_is_marked_and_a_void_image_not_at_all():
    masks = np.zeros((3, 2, 2), np.uint8)
    masks[0, 0] = 1  # a present object, predicted half: 2 * 1 / (2 + 1)
    masks[2] = 255
    labels = np.zeros((3, 2, 2), np.uint8)
    labels[0, 0, 0] = 1
    both = sums(labels, masks, 255)
    assert mean_dice(both) == pytest.approx(2 / 3)
    assert mean_dice(both, empty=True) == pytest.approx((2 / 3 + 1) / 2)


def test_the_step_of_a_collapse_is_where_it_began_for_good():
    curves = {"step": [10, 20, 30, 40], "collapsed": ["background", "", "background", "background"]}
    assert collapse_step("background", curves) == 30
    assert collapse_step("", curves) is None


def test_the_terms_of_the_decomposition_add_up_and_the_posterior_cannot_be_beaten(pair):
    curves = pair[0].curves
    assert all(
        size >= -1e-9 and match >= -1e-6
        for size, match in zip(curves["size_ce"], curves["match_ce"], strict=True)
    )
    metrics = score(job("ce"), pair[0])["metrics"]
    assert metrics["nll"] >= metrics["nll_bayes"] and metrics["dice@0.5"] <= metrics["dice_bayes_dice"]


@pytest.mark.slow
def test_stacked_and_single_cells_reach_the_same_scores_over_seeds():
    """They differ in rounding, which training amplifies; over seeds the differences must be centred on zero
    and smaller than those between seeds.
    """
    longer = TINY.model_copy(update={"steps": 60, "learning_rate": 0.02, "validations": 1})
    alone = longer.model_copy(update={"stacked": False})
    scores = {"stack": [], "single": []}
    for seed in range(10):
        for kind, recipe in (("stack", longer), ("single", alone)):
            jobs = [job("dice", seed, recipe), job("ce", seed, recipe)]
            results = train(jobs) if recipe.stacked else [train([one])[0] for one in jobs]
            for one, trained in zip(jobs, results, strict=True):
                scores[kind].append(score(one, trained)["metrics"]["dice@0.5"])
    gap = np.subtract(scores["stack"], scores["single"])
    assert np.mean(scores["stack"]) > 0.5  # they have learnt
    assert abs(gap.mean()) < 3 * gap.std(ddof=1) / np.sqrt(len(gap)) + 1e-6
    assert gap.std(ddof=1) < np.std(scores["single"], ddof=1)


def test_half_precision_is_another_recipe_and_trains():
    half = TINY.model_copy(update={"precision": "bfloat16"})
    assert half.digest != TINY.digest
    found = train([job(loss, 0, half) for loss in ("ce", "dice")])
    whole = train([job("ce"), job("dice")])
    for one, other in zip(found, whole, strict=True):
        assert all(value.dtype == other.weights[name].dtype for name, value in one.weights.items())
        assert 0 < max(abs(a - b) for a, b in zip(one.train_loss, other.train_loss, strict=True)) < 0.05


def test_the_digest_of_a_recipe_stays_what_records_hold():
    assert Recipe().digest == "eb4a779a"


def test_jobs_of_two_recipes_are_not_trained_together():
    with pytest.raises(ValueError, match="one recipe"):
        train([job("ce"), job("dice", 0, TINY.model_copy(update={"batch": 2}))])
    with pytest.raises(ValueError, match="full cross"):
        train([job("ce"), job("ce", 0, TINY.model_copy(update={"steps": 7}))])


def rated(loss, patterns, function=None, recipe=TINY):
    """Return a job on scenes where what is marked in the left half is code 2 of two raters."""
    usual = job(loss, recipe=recipe)
    codes = np.array(usual.data.masks)
    codes[..., :16] *= 2
    ratings = Ratings(codes, np.array(patterns, np.uint8))
    masks = ratings.masks(2)
    counts = np.stack([np.bincount(mask.ravel(), minlength=2) for mask in masks])
    data = replace(usual.data, ratings=ratings, masks=masks, counts=counts)
    return Job(usual.cell, data, function or usual.loss)


@pytest.mark.parametrize("sampler", ["uniform", "foreground(share=0.5)"])
def test_soft_losses_are_shown_the_shares_of_the_raters_and_others_their_majority(sampler):
    recipe = TINY.model_copy(update={"augment": "full", "sampler": sampler})
    seen = {"ce": [], "ce_soft": []}

    def spy(name):
        return lambda logits, target, **_: (seen[name].append(target), logits.sum() * 0)[1]

    scores = train([rated(name, [[0, 0], [1, 1], [1, 0]], spy(name), recipe) for name in seen])[0].scores
    for hard, soft in zip(seen["ce"], seen["ce_soft"], strict=True):
        assert torch.equal(hard, (soft[:, 1] > 0.5).long())  # one of two is no majority
        assert set(soft[:, 1].unique().tolist()) <= {0, 0.5, 1} and torch.equal(soft[:, 0], 1 - soft[:, 1])
    assert any((soft == 0.5).any() for soft in seen["ce_soft"])
    # One of the raters marks what both mark and more.
    assert 0 < scores["metrics"]["dice_between_raters"] < 1


def test_raters_who_agree_change_no_bit_of_a_training():
    plain, agreed = (train([made])[0] for made in (job("ce"), rated("ce", [[0, 0], [1, 1], [1, 1]])))
    assert plain.train_loss == agreed.train_loss and plain.curves == agreed.curves
    named = agreed.scores["metrics"]
    assert repr({**named, **plain.scores["metrics"]}) == repr(named)  # nan is nan
    assert named["dice_between_raters"] == named["kappa_raters"] == 1
    assert named["dice_raters"] == pytest.approx(named["dice@0.5"], abs=0.05)
