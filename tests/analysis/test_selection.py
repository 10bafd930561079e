"""What a test is about is chosen as its keys say, and choices among losses and rates are made on validation
images only.
"""

import itertools

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import pairs, selection
from lossbench.analysis.claims import Test
from lossbench.base.errors import UserError

RATES = {"recipe-low": 0.001, "recipe-high": 0.01}
# (loss, recipe) -> validation and test score: what is best on validation is not best on test.
SCORES = {
    ("ce", "recipe-low"): (0.6, 0.50),
    ("ce", "recipe-high"): (0.5, 0.90),
    ("wce", "recipe-low"): (0.7, 0.55),
    ("wce", "recipe-high"): (0.4, 0.10),
    ("dice", "recipe-low"): (0.3, 0.20),
    ("dice", "recipe-high"): (0.8, 0.70),
}


@pytest.fixture
def study():
    rows = []
    for (loss, recipe), seed, shift in itertools.product(SCORES, range(3), (0.0, 0.2)):
        val, test = SCORES[loss, recipe]
        dataset = f"scenes(boundary_shift={shift})"
        rows.append(
            {
                "key": f"{loss}{recipe}{seed}{shift}",
                "dataset": dataset,
                "dataset_name": "scenes",
                "data_label": dataset,
                "loss": loss,
                "loss_label": loss,
                "seed": seed,
                "recipe": recipe,
                "block": f"{dataset}{recipe}{seed}",
                "parts": "rates,more",
                "init_hash": f"i{dataset}{seed}",
                "order_hash": f"o{dataset}{seed}",
                "split_hash": f"s{dataset}",
                "data.foreground": 0.01,
                "data.boundary_shift": shift,
                "recipe.family": "family",
                "recipe.learning_rate": RATES[recipe],
                "dice@0.5": test + 0.01 * seed + shift,
                "val_dice@0.5": val + 0.01 * seed,
                "val_dice@val": 1 - val,
            }
        )
    return pd.DataFrame(rows)


def wanted(**keys):
    return Test(
        **{
            "id": "X",
            "says": "",
            "value": "dice@0.5",
            "of": "dice",
            "expect": "greater",
            "margin": 0.005,
            **keys,
        }
    )


def test_a_part_is_a_name_among_those_of_a_cell_and_no_piece_of_a_name(study):
    assert len(selection.select(study, wanted(part=("more",)))) == len(study)
    assert len(selection.select(study, wanted(part=("mo", "rat")))) == 0
    assert len(selection.select(study, wanted(part=("absent", "rates")))) == len(study)


def test_conditions_choose_by_value_range_and_name(study):
    assert set(selection.select(study, wanted(where={"data.boundary_shift": 0}))["data.boundary_shift"]) == {
        0.0
    }
    assert set(
        selection.select(study, wanted(where={"data.boundary_shift": (0.1, 1)}))["data.boundary_shift"]
    ) == {0.2}
    assert set(selection.select(study, wanted(where={"recipe": "recipe-low"}))["recipe"]) == {"recipe-low"}
    with pytest.raises(
        UserError, match=r"no column 'data.boundary_shfit'; did you mean 'data.boundary_shift'"
    ):
        selection.select(study, wanted(where={"data.boundary_shfit": 0}))


def test_a_loss_is_known_by_any_spec_of_it_and_by_its_label(study):
    named = study.assign(
        loss=study["loss"].replace("wce", "tversky(fn_weight=0.5)"),
        loss_spellings=study["loss"].replace("wce", "tversky(fn_weight=0.5, fp_weight=0.2)"),
    )
    for name in ("tversky(fp_weight=0.2, fn_weight=0.5)", "tversky( fn_weight=.5)", "wce"):
        assert len(selection.select_loss(named, name)) == 12, name
    # Whatever today's default is: these cells were trained with .2.
    for name in ("tversky(fp_weight=0.3, fn_weight=0.5)", "tversky", "nowhere"):
        assert len(selection.select_loss(named, name)) == 0, name


def test_of_a_list_the_loss_with_the_best_validation_score_of_each_data_set_and_recipe_is_taken(study):
    chosen = selection.arm(study, ("ce", "wce"), "dice@0.5")
    assert set(zip(chosen["recipe"], chosen["loss"], strict=True)) == {
        ("recipe-low", "wce"),
        ("recipe-high", "ce"),
    }
    assert len(chosen) == 12
    by_threshold = selection.arm(
        study, ("ce", "wce"), "dice@val"
    )  # whose own validation score ranks the other way round
    assert set(zip(by_threshold["recipe"], by_threshold["loss"], strict=True)) == {
        ("recipe-low", "ce"),
        ("recipe-high", "wce"),
    }


def lucky(study):
    """Return one data set and recipe, where one seed of a worse loss validated best of all by far."""
    own = study[(study["recipe"] == "recipe-low") & (study["data.boundary_shift"] == 0.0)].copy()
    own.loc[(own["loss"] == "ce") & (own["seed"] == 1), "val_dice@0.5"] = 0.98
    return own


def test_a_seed_is_judged_at_what_the_other_seeds_choose(study):
    # Validation of ce: .60, .98, .62; of wce: .70, .71, .72.
    named = ("ce", "wce")
    crossed = selection.arm(lucky(study), named, "dice@0.5").set_index("seed")["loss"].to_dict()
    assert crossed == {0: "ce", 1: "wce", 2: "ce"}
    plain = selection.arm(lucky(study), named, "dice@0.5", crossed=False).set_index("seed")["loss"].to_dict()
    assert plain == {0: "ce", 1: "ce", 2: "ce"}
    alone = lucky(study)[lambda own: own["seed"] == 1]
    assert list(selection.arm(alone, named, "dice@0.5")["loss"]) == ["ce"]


def test_a_rate_too_is_that_which_the_other_seeds_prefer(study):
    own = study[study["data.boundary_shift"] == 0.0].copy()
    own.loc[(own["loss"] == "ce") & (own["recipe"] == "recipe-high") & (own["seed"] == 1), "val_dice@0.5"] = (
        0.98
    )
    chosen = selection.tuned(own[own["loss"] == "ce"], "dice@0.5").set_index("seed")["recipe.learning_rate"]
    assert chosen.to_dict() == {0: 0.01, 1: 0.001, 2: 0.01}


def test_of_losses_that_validate_alike_the_first_is_taken_on_every_seed(study):
    own = lucky(study).assign(**{"val_dice@0.5": [0.1, 0.3, 0.7] * 3})
    assert set(selection.arm(own, ("wce", "ce", "dice"), "dice@0.5")["loss"]) == {"ce"}


def test_a_test_that_chooses_is_known(study):
    pair = {"of": "dice", "against": "ce"}
    assert not selection.chooses(wanted(**pair)) and selection.chooses(wanted(tuned=True, **pair))
    assert selection.chooses(wanted(of="dice", against=("ce", "wce")))
    assert selection.chooses(wanted(minus={"of": ("ce", "wce"), "against": "dice"}, **pair))


def test_a_list_is_judged_only_on_blocks_that_hold_all_of_it(study):
    thinned = study[~((study["loss"] == "wce") & (study["seed"] == 1))]
    assert set(selection.arm(thinned, ("ce", "wce"), "dice@0.5")["seed"]) == {0, 2}
    assert len(selection.arm(study[study["loss"] != "wce"], ("ce", "wce"), "dice@0.5")) == 0


def test_each_loss_is_taken_at_the_rate_that_its_validation_score_prefers_and_paired_across_rates(study):
    chosen = selection.tuned(study, "dice@0.5")
    assert dict(zip(chosen["loss"], chosen["recipe.learning_rate"], strict=True)) == {
        "ce": 0.001,
        "wce": 0.001,
        "dice": 0.01,
    }
    assert pairs.losses(chosen, ["dice@0.5"]).difference("dice", "ce") == pytest.approx(np.full((2, 3), 0.2))


def test_a_rate_is_chosen_on_the_seeds_at_which_all_rates_are_trained(study):
    lucky = (study["loss"] == "ce") & (study["recipe"] == "recipe-high") & (study["seed"] == 2)
    thinned = study.drop(index=study.index[lucky])
    chosen = selection.tuned(thinned, "dice@0.5")
    assert set(chosen.loc[chosen["loss"] == "ce", "seed"]) == {0, 1}
    assert set(chosen.loc[chosen["loss"] == "dice", "seed"]) == {0, 1, 2}


def test_tuned_cells_that_did_not_start_alike_are_not_paired(study):
    study.loc[study["recipe"] == "recipe-high", "init_hash"] = "other"
    with pytest.raises(pairs.NotPaired):
        pairs.losses(selection.tuned(study, "dice@0.5"), ["dice@0.5"]).difference("dice", "ce")


def test_without_a_validation_score_nothing_can_be_chosen_and_the_message_says_so(study):
    with pytest.raises(UserError, match=r"no column 'val_dice@0.5' to choose by"):
        selection.arm(study.drop(columns=["val_dice@0.5", "val_dice@val"]), ("ce", "wce"), "dice@0.5")
