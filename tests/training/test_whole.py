"""Whole images: trained from the same patches under every loss, scored on whole images, bit for bit the same
whatever shares their training.
"""

import io
import os

import numpy as np
import pytest
import torch

from lossbench import get_dataset
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import get_loss, parse_dataset, parse_loss, parse_network
from lossbench.data.container import container
from lossbench.data.ragged import Ragged
from lossbench.experiment.cells import Cell, Recipe
from lossbench.metrics import score_images
from lossbench.networks.initial import weights_hash
from lossbench.training import blocks
from lossbench.training.blocks import Job, blocks_of, network_of
from lossbench.training.outcome import score
from lossbench.training.train import Training, train

LENGTHS = (10, 20)


def data(sizes=((40, 30), (24, 50), (9, 33), (30, 30), (20, 45), (40, 40), (30, 30)), **changed):
    """Images of unequal sizes with a bright square; every third without."""
    rng = np.random.default_rng(0)
    images, masks = [], []
    for n, extent in enumerate(sizes):
        mask = np.zeros(extent, np.uint8)
        if n % 3 != 2:
            mask[2:7, 4:12] = 1
        images.append((rng.normal(size=(1, *extent)) + 2 * mask).astype(np.float32))
        masks.append(mask)
    split = {"train": [0, 1, 2], "val": [3], "test": range(4, len(sizes))}
    return container(name="toy", images=images, masks=masks, split=split, **changed)


DATA = data()


def job(loss="ce", steps=10, own=DATA, seed=0, function=None, **changes):
    fields = {"batch": 4, "widths": (4, 8), "validations": 2, "schedule": "wsd", "warmup": 3, "patch": 16}
    recipe = Recipe.model_validate({**fields, "steps": steps, **changes})
    network = parse_network("unet(widths=[4, 8])")
    cell = Cell(
        parse_dataset("scenes"), "", "toy", parse_loss(loss), seed, recipe, recipe.learning_rate, network
    )
    return Job(cell, own, function or get_loss(cell.loss))


def cross(**changes):
    return [job(loss, steps, **changes) for steps in LENGTHS for loss in ("ce", "dice")]


def same(one, other):
    assert weights_hash(one.weights) == weights_hash(other.weights)
    assert (one.train_loss, one.certificate, repr(one.curves)) == (
        other.train_loss,
        other.certificate,
        repr(other.curves),
    )
    assert repr(one.scores) == repr(other.scores)


@pytest.fixture(scope="module")
def alone():
    """Every cell trained by itself."""
    return [train([own])[0] for own in cross()]


def test_lengths_that_share_a_trunk_and_a_stack_are_bit_identical_to_each_alone(alone):
    for one, other in zip(train(cross()), alone, strict=True):
        same(one, other)


def test_a_training_goes_on_from_a_kept_state_bit_for_bit(alone):
    states, left = [], {}

    def keep(state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states.append((buffer.getvalue(), set(left)))

    for finished in Training(cross()).run(lambda: True, keep):
        left.update(finished)
    for state, done in states[::5]:
        again = Training(cross()[len(done) :])
        again.go_on(torch.load(io.BytesIO(state), weights_only=True))
        rest = {}
        for finished in again.run():
            rest.update(finished)
        assert set(rest) == set(range(4 - len(done)))
        for place, result in rest.items():
            same(result, alone[len(done) + place])


def test_every_loss_of_a_seed_sees_the_same_patches_and_another_seed_others():
    seen = {}
    for loss, seed in (("ce", 0), ("dice", 0), ("ce", 1)):
        kept = seen.setdefault((loss, seed), [])

        def spy(logits, target, kept=kept, **_):
            if torch.is_grad_enabled():
                kept.append(target.clone())
            return logits.square().mean()

        train([job(loss, seed=seed, function=spy, steps=10)])
    assert all(map(torch.equal, seen["ce", 0], seen["dice", 0]))
    assert not all(map(torch.equal, seen["ce", 0], seen["ce", 1]))


def test_padding_is_void_in_training_and_never_scored():
    small = data(sizes=((12, 30), (12, 50), (12, 33), (12, 30), (12, 45), (12, 40)))
    voids, shapes = [], set()

    def spy(logits, target, ignore_index=None, **_):
        voids.append(int((target == ignore_index).sum()))
        shapes.add(tuple(target.shape[1:]))
        return torch.nn.functional.cross_entropy(logits, target, ignore_index=ignore_index)

    (result,) = train([job(own=small, function=spy)])
    record = score(job(own=small), result)
    assert min(voids) > 0 and shapes == {(16, 16)}  # 4 of 16 rows lie beyond every image
    assert record["metrics"]["n_pixels"] == 12 * (45 + 40)
    assert record["images"]["image"] == [4, 5] and record["metrics"]["n_empty"] == 1


def test_the_frequencies_of_the_prior_head_are_those_of_the_patches_after_sampling():
    uniform, centred = (
        blocks_of([job(head="prior", sampler=sampler)], "cpu").popitem()[1]
        for sampler in ("uniform", "foreground(share=1.0)")
    )
    assert 2 * uniform.frequency[1] < centred.frequency[1]
    for block in (uniform, centred):
        bias = block.start["head.bias"].softmax(0)
        assert torch.allclose(bias, block.frequency, rtol=1e-4)
    assert uniform.marks["frequency"] != centred.marks["frequency"]


def test_distances_are_those_of_the_patch():
    kept = {}

    def spy(logits, target, distance_map=None, **_):
        if torch.is_grad_enabled():
            kept["target"], kept["map"] = target, distance_map
        return (logits.softmax(1) * distance_map).mean()

    train([job("boundary", function=spy, sampler="foreground(share=1.0)", augment="none")])
    inside = kept["target"] == 1
    assert bool(inside.any())
    assert bool((kept["map"][:, 1][inside] <= 0).all()) and bool((kept["map"][:, 1][~inside] >= 0).all())


def test_budgets_hold_and_all_test_lifts_them(monkeypatch):
    monkeypatch.setattr(blocks.splitting, "TEST", 1000)  # of 3,400: one image with, one without
    few, every = (train([job(all_test=lifted)])[0].scores["metrics"] for lifted in (False, True))
    assert (few["n_test"], few["test_share"]) == (2, 2 / 3)
    assert (every["n_test"], every["test_share"]) == (3, 1.0)
    assert job().cell.key != job(all_test=True).cell.key


def test_images_as_large_as_the_patch_are_trained_on_as_they_are():
    scenes = container(
        name="one",
        images=np.random.default_rng(0).normal(size=(6, 1, 16, 16)),
        masks=np.eye(16, dtype=np.uint8)[None].repeat(6, 0),
        split={"train": [0, 1, 2], "val": [3], "test": [4, 5]},
    )
    plain, patched = (train([job(own=scenes, patch=patch)])[0] for patch in (None, 16))
    assert not isinstance(scenes.images, Ragged)
    same(plain, patched)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"patch": 96}, "smaller than half a patch of 96x96; the largest is 40x50"),
        ({"patch": [16, 16, 16]}, "does not fit 2 axes"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_in_a_sentence(changes, word):
    with pytest.raises(UserError, match=word):
        train([job(**changes)])


@pytest.mark.parametrize("sampler", ["uniforms", "foreground(share=2)", "uniform(share=0.5)"])
def test_a_sampler_that_is_none_is_refused(sampler):
    with pytest.raises(ValueError, match="sampler"):
        Recipe(sampler=sampler)


def test_one_sampler_has_one_spelling():
    assert Recipe(sampler="foreground") == Recipe(sampler="foreground( share = 0.33 )")
    assert Recipe(sampler="foreground(share=0)") == Recipe(sampler="uniform")


@pytest.mark.peers
@pytest.mark.parametrize(
    "name", ["toy", pytest.param("crackforest", marks=[pytest.mark.realdata, pytest.mark.slow])]
)
def test_the_scores_of_a_trained_network_are_those_of_monai(name):
    """What a record says of whole images is what a user of MONAI finds with the same weights and tiles."""
    monai = pytest.importorskip("monai.inferers")
    own, side = DATA, 16
    if name == "crackforest":
        if not os.environ.get("LOSSBENCH_DATA"):
            pytest.skip("LOSSBENCH_DATA does not name the public data")
        own, side = get_dataset("crackforest(view='whole')"), 64
    one = job("dice", 200, own, patch=side, learning_rate=0.01, warmup=20)
    (result,) = train([one])
    module = network_of(one).build().eval()
    module.load_state_dict(result.weights)
    inferer = monai.SlidingWindowInferer((side, side), 4, 0.25, mode="gaussian", padding_mode="reflect")
    probs, masks = [], []
    for n in dict.fromkeys(score(one, result)["images"]["image"]):
        with torch.no_grad():
            logits = inferer(torch.from_numpy(np.asarray(own.images[n]))[None], module)
        probs.append(logits.softmax(1)[0].numpy())
        masks.append(np.asarray(own.masks[n]))
    theirs = score_images(probs, masks, ignore_index=255).summary
    ours = result.scores["metrics"]
    assert theirs["dice@0.5"] > 0.05
    for column in ("dice", "dice_all", "dice_pooled", "false_alarms", "hd95", "nsd_1", "precision"):
        assert ours[f"{column}@0.5"] == pytest.approx(theirs[f"{column}@0.5"], abs=1e-4, nan_ok=True), column
