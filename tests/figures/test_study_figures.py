"""The figures of the whole study show what their cells hold: each number here can be derived from the made-up
study by hand.
"""

import warnings

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import rankings
from lossbench.figures import boards, drawing, points, public, sizes, style, training, uncertain
from lossbench.theory import boundaries, proportions


def cells_of(study, part, **where):
    cells = study["cells"]
    cells = cells[cells["parts"] == part]
    for column, value in where.items():
        cells = cells[cells[column] == value]
    return cells


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("public_sets", "public data sets"),
        ("size_bound", "decomposition"),
        ("volume_bias", "boundary shifts"),
        ("threshold_curves", "threshold curves"),
        ("size_term_grid", "ce_l1 or ce_kl"),
        ("object_sizes", "size of their objects"),
        ("reliability", "reliability diagrams"),
        ("empty_images", "empty test images"),
        ("rankings", "three losses"),
        ("significance_map", "three losses"),
        ("score_by_length", "two lengths"),
        ("volume_agreement", "sizes of single images"),
    ],
)
def test_a_figure_whose_cells_lack_says_what_it_needs(name, needs, tables):
    cells = tables["cells"]
    plain = cells[cells["dataset_name"] == "scenes"].drop(
        columns=[c for c in cells if c.startswith("dice_q")]
    )
    short = {
        **tables,
        "cells": plain[plain["loss"] != "focal"]
        if name not in ("rankings", "significance_map")
        else plain[plain["loss"].isin(["ce", "dice"])],
    }
    with pytest.raises(drawing.NothingToDraw, match=f"^needs .*{needs}"):
        drawing.draw(name, short)


def test_figures_of_the_ladder_leave_other_parts_out(study):
    for name in ("size_ratio", "dice_gap", "threshold_curves", "size_bound", "reliability"):
        data = drawing.draw(name, study).data
        seen = data["data_label" if "data_label" in data else "label"].dropna()
        assert set(seen) == {f"scenes(foreground={f})" for f in (0.002, 0.01, 0.05, 0.2)}, name


def test_the_leaderboard_has_no_row_for_a_learning_rate_arm_or_a_factorial(study):
    data = drawing.draw("leaderboard", study).data
    usual = cells_of(study, "ladder")["recipe"].iloc[0]
    assert set(data["recipe"]) == {usual}
    assert "scenes(foreground=0.03)" not in set(data["dataset"]) and "sirst" in set(data["dataset"])


def test_the_curves_of_the_part_made_for_them_are_shown_and_the_noise_of_the_loss_below(study):
    data = drawing.draw("training_curves", study).data
    assert set(data["dataset"]) == {"scenes(foreground=0.02)"}
    row = data[data["loss_noise mean"].notna() & (data["loss"] == "ce")].iloc[0]
    own = cells_of(study, "curves", loss="ce", recipe=row["recipe"])
    assert (
        row["loss_noise mean"] == pytest.approx(np.exp(own["log_loss_noise"].mean()))
        and row["loss_noise n"] == 3
    )


def test_variants_of_one_data_set_stand_in_the_order_of_their_batch(study):
    facts = points.rarest_first(cells_of(study, "curves"))
    batch = study["cells"].drop_duplicates("recipe").set_index("recipe")["recipe.batch"]
    assert [batch[recipe] for recipe in facts["recipe"]] == [1, 16]


def test_labels_are_as_short_as_tells_them_apart():
    assert points.short_names(["a, batch 1, long", "a, batch 4, long"]) == ["batch 1", "batch 4"]
    assert points.short_names(["a, long"]) == ["a, long"]
    # What differs stays, unless each recipe is the usual one of its data set.
    labels = ["scenes, sizes x 50, validations 100", "scenes 2 %, validations 100"]
    assert points.short_names(labels) == ["scenes, sizes x 50", "scenes 2 %"]
    assert points.set_names(["tiles, patch 64", "hippocampus, patch 48"]) == ["tiles", "hippocampus"]
    assert points.set_names(["a, long"]) == ["a, long"]
    assert points.set_names(["a, batch 1, long", "a, batch 4, long"]) == ["batch 1", "batch 4"]
    assert points.short_names(["a", "a"]) == ["a", "a"]


def test_an_experiment_without_a_part_answers_with_all_its_cells(tables, study):
    assert len(points.of_parts(tables["cells"], "ladder")) == len(tables["cells"])
    cells = study["cells"].assign(parts=study["cells"]["parts"].replace("ladder", "rates,ladder"))
    assert len(points.of_parts(cells, "ladder")) == 48


def test_measured_values_of_public_sets_stand_beside_the_published_ones(study):
    data = drawing.draw("public_sets", study).data
    row = data.query("source == 'measured' and label == 'sirst' and loss == 'dice_ce'").iloc[0]
    assert row["mean"] == pytest.approx(
        100 * cells_of(study, "public", dataset="sirst", loss="dice_ce")["dice@0.5"].mean()
    )
    assert row["low"] < row["mean"] < row["high"] and row["n"] == 3
    theirs = data[data["source"] == "published"].set_index(["label", "loss"])["mean"]
    assert theirs["Kvasir", "ce"] == 89.3 and theirs["CVC-ClinicDB", "ce_l1"] == 93.5
    assert ("AMOS", "dice") not in theirs.index and len(theirs) == 29
    assert set(public.LOSSES) - set(public.published()["loss"]) == {"batch_dice(classes='all')"}


def test_the_size_error_follows_from_the_recorded_terms_and_lies_below_the_bound(study):
    rng = np.random.default_rng(0)
    p = rng.uniform(0.01, 0.6, 400)
    y = (rng.uniform(size=400) < 0.1).astype(float)
    two, truth = np.stack([1 - p, p], 1), np.stack([1 - y, y], 1)
    curves = pd.DataFrame(
        {"size_ratio_soft": [p.mean() / y.mean()], "size_dice": [np.log(p.mean() + y.mean())]}
    )
    found = sizes.proportion_error(curves)[0]
    assert found == pytest.approx(np.abs(two.mean(0) - truth.mean(0)).sum())
    assert found < proportions.size_error_bound(-np.log((two * truth).sum(1)).mean())
    data = drawing.draw("size_bound", study).data
    assert (data["error"] <= np.sqrt(2 * data["ce"])).all() and (
        data["error"] <= np.sqrt(2 * data["size_ce"]) * (1 + 1e-4)
    ).all()


def test_simulated_noise_follows_the_formulas_and_their_slopes():
    sizes = np.array([64, 256, 1024])
    drawn, formula = training.by_size(sizes), training.by_formula(sizes)
    expected = {
        "Dice, errors over the area": -0.5,
        "Dice, errors at the rim": -0.75,
        "CE, errors at the rim": 0.25,
    }
    for case, exponent in expected.items():
        own = drawn[drawn["case"] == case]
        assert training.slope(own) == pytest.approx(exponent, abs=0.03)
        assert own["y"].to_numpy() == pytest.approx(
            formula.loc[formula["case"] == case, "y"].to_numpy(), rel=0.05
        )


def test_relative_to_its_mean_dice_over_small_batches_is_noisier_than_dice_of_each_image():
    four = training.by_batch(np.array([4])).set_index("case")["y"]
    assert four["CE"] < four["Dice of each image"] < four["Dice over the batch"] < 2 * four["CE"]


def test_volume_bias_is_the_geometric_mean_in_percent_beside_its_theory(study):
    data = drawing.draw("volume_bias", study).data
    row = data.query("loss == 'ce' and kind == 'hard' and shift == 0.4 and rim == 0").iloc[0]
    own = cells_of(study, "uncertain", loss="ce", **{"data.boundary_shift": 0.4})
    assert row["mean"] == pytest.approx(100 * np.expm1(own["log_size_ratio_hard@0.5"].mean()))
    theory = data[(data["kind"] == "theory") & (data["of"] == "hard") & (data["shift"] == 0.4)].set_index(
        "loss"
    )["mean"]
    assert theory.to_dict() == pytest.approx({"ce": -13.8, "dice": -6.9, "batch_dice": 12.4}, abs=0.1)
    rim = data.query("kind == 'theory' and rim > 0 and of == 'hard'").set_index("loss")["mean"]
    pixels = 0.05 * 64**2
    assert rim["dice"] == pytest.approx(
        100 * boundaries.uncertain_rim(round(pixels / 2), round(pixels * 0.5 / 0.4), 0.4).dice
    )
    assert rim["ce"] == pytest.approx(-50, abs=1)


def test_a_loss_without_theory_is_measured_all_the_same(study):
    cells = study["cells"].replace({"loss": {"ce": "mine", "dice": "yours", "batch_dice": "theirs"}})
    data = drawing.draw("volume_bias", {**study, "cells": cells}).data
    assert set(data["kind"]) == {"hard", "soft"} and data["loss"].nunique() == 3
    assert not len(uncertain.theory(["mine"], data))


def test_threshold_curves_are_means_over_seeds_and_name_half_the_best_dice_of_ce(study):
    drawn = drawing.draw("threshold_curves", study)
    row = drawn.data.query(
        "loss == 'ce' and data_label == 'scenes(foreground=0.2)' and abs(threshold - 0.4) < 1e-6"
    ).iloc[0]
    best = cells_of(study, "ladder", loss="ce", dataset="scenes(foreground=0.2)")["dice@val"].mean()
    assert row["mean"] == pytest.approx(best, abs=1e-4) and row["n"] == 3
    assert f"best threshold of ce 0.40, D*/2 {best / 2:.2f}" in drawn.alt
    assert len(drawn.data) == 4 * 4 * 99


def test_settings_of_a_size_term_are_read_from_its_loss_with_every_default():
    whole = "ce_l1(over='sample', size_weight=1.0, temperature=10.0)"
    assert sizes.setting("ce_l1", whole) == {"term": "ce_l1", "weight": 1.0, "temperature": 10.0}
    whole = "ce_kl(size_weight=0.1, temperature=1.0)"
    assert sizes.setting(whole, whole) == {"term": "ce_kl", "weight": 0.1, "temperature": 1.0}
    for loss in ("ce", "ce_l1(over='batch', temperature=10.0)", "ce_l1 + dice", "ce_l1_of_mine", "ce_l1"):
        assert sizes.setting(loss, loss) is None


def test_the_grid_of_a_size_term_shows_gains_over_ce_and_errors_in_size(study):
    data = drawing.draw("size_term_grid", study).data
    row = data.query("term == 'ce_l1' and weight == 0.1").iloc[0]
    mean = cells_of(study, "terms").groupby("loss")["dice@0.5"].mean()
    assert row["gain"] == pytest.approx(100 * (mean["ce_l1(size_weight=0.1)"] - mean["ce"]))
    assert row["size"] == pytest.approx(
        cells_of(study, "terms", loss="ce_l1(size_weight=0.1)")["log_size_ratio_hard@0.5"].abs().mean()
    )
    assert len(data) == 5


def test_dice_by_size_shows_the_columns_of_the_fifths(study):
    data = drawing.draw("object_sizes", study).data
    assert set(data["dataset"]) == {"scenes(foreground=0.02, size_ratio=50)"} and set(data["arm"]) == {
        "0.5",
        "val",
    }
    row = data.query("loss == 'dice' and arm == 'val' and fifth == 1").iloc[0]
    assert row["mean"] == pytest.approx(cells_of(study, "sizes", loss="dice")["dice_q1@val"].mean())


def test_reliability_pools_pixels_and_leaves_out_bins_that_hold_few(study):
    data = drawing.draw("reliability", study).data
    bins = data[data["bin"].notna() & (data["loss"] == "dice") & (data["label"] == "scenes(foreground=0.2)")]
    assert set(bins["bin"]) == set(range(9)) and (bins["pixels"] == 3000).all()
    assert (bins["frequency"] / bins["probability"]).to_numpy() == pytest.approx(0.9, rel=1e-5)
    error = data[
        data["ece"].notna() & (data["loss"] == "dice") & (data["label"] == "scenes(foreground=0.2)")
    ].iloc[0]
    own = cells_of(study, "ladder", loss="dice", dataset="scenes(foreground=0.2)")["ece"]
    assert error["ece"] == pytest.approx(np.exp(np.log(own).mean()))


def test_false_alarms_are_shown_by_loss_and_share_of_empty_training_images(study):
    data = drawing.draw("empty_images", study).data
    rates = data.set_index(["loss", "empty"])["fp_rate@0.5 mean"]
    assert (
        rates["ce", 0.0] == pytest.approx(0.8)
        and rates["dice", 0.7] == pytest.approx(0.1)
        and len(rates) == 6
    )
    assert (data["n"] == 3).all()


def test_losses_are_ranked_where_all_of_them_were_trained(study):
    data = drawing.draw("rankings", study).data
    dice = data[data["metric"] == "dice@0.5"].set_index("loss")
    assert set(dice.index) == {"ce", "dice", "dice_ce"} and (dice["n"] == 3).all()
    assert dice["mean"].sum() == pytest.approx(1 + 2 + 3) and dice["mean"].idxmax() == "ce"
    assert dice["critical_difference"].isna().all()


def test_with_enough_data_sets_the_critical_difference_is_drawn(study):
    base = cells_of(study, "ladder")
    many = [
        base.assign(
            dataset=base["dataset"] + str(i),
            dataset_name=base["dataset"] + str(i),
            data_label=base["data_label"] + str(i),
            block=base["block"] + str(i),
        )
        for i in range(3)
    ]
    drawn = drawing.draw("rankings", {**study, "cells": pd.concat(many, ignore_index=True)})
    assert drawn.data["critical_difference"].iloc[0] == pytest.approx(rankings.critical_difference(4, 12))
    assert "Nemenyi" in drawn.caption
    # Twelve levels of one generator are one set of data.
    levels = pd.concat(many, ignore_index=True).assign(dataset_name="scenes")
    drawn = drawing.draw("rankings", {**study, "cells": levels})
    assert drawn.data["critical_difference"].isna().all() and "seeds are drawn anew" in drawn.caption


def repeated(study, seeds, lift=0.0):
    """Return the study with so many copies of its seeds, whose losses but CE score a little more each."""
    base = study["cells"]
    copies = []
    for copy in range(seeds):
        own = base.assign(seed=base["seed"] + 100 * copy, block=base["block"] + str(copy))
        gain = np.where(own["loss"] == "ce", 0, lift * (1 + copy / 10))
        copies.append(own.assign(**{"dice@0.5": own["dice@0.5"] + gain}))
    return study | {"cells": pd.concat(copies, ignore_index=True)}


def test_lengths_of_one_training_stand_in_one_panel_and_a_sure_first_lead_makes_the_title(study):
    drawn = drawing.draw("score_by_length", repeated(study, 3, 0.05))
    assert set(drawn.data["steps"]) == {60, 240} and set(drawn.data["loss"]) == {"ce", "dice"}
    assert drawn.title.startswith("scenes(foreground=0.002): dice is ahead by")
    assert "after 60 steps" in drawn.title
    # Three seeds bound no difference: the title says what is drawn, not what was found.
    assert drawing.draw("score_by_length", study).title == "Dice by the length of training, loss by loss"


def test_every_data_set_stands_in_its_plainest_recipe_before_any_has_another_network():
    labels = [
        "tiles, patch 64",
        "tiles, patch 64, other net",
        "scenes",
        "scenes, head default",
        "scenes, net",
    ]
    cells = pd.DataFrame({"data_label": labels, "recipe": labels, "way": labels})
    cells = cells.assign(dataset=cells["data_label"].str.split(",").str[0], key=labels)
    cells["foreground_true"] = np.where(cells["dataset"] == "tiles", 0.01, 0.05)
    ways = training._ways(cells)
    assert list(ways["label"][:3]) == ["tiles, patch 64", "scenes", "scenes, head default"]


def test_whether_anything_can_be_shown_depends_on_seeds_pairs_and_test_groups(study):
    few = points.contests(cells_of(study, "ladder"), "dice@0.5", {})
    assert not any(map(points.can_tell, few.values()))
    assert points.silent(few).startswith("On 4 of 4 data sets no scores could show a difference")
    many = cells_of(repeated(study, 3), "ladder")
    # Nine seeds tell six pairs of losses apart, and with their smallest p not more than twelve.
    enough = points.contests(many, "dice@0.5", {})
    assert all(map(points.can_tell, enough.values())) and points.silent(enough) == ""
    more = [many.assign(loss=many["loss"] + f"{i}") for i in range(2)]
    assert points.silent(points.contests(pd.concat([many, *more]), "dice@0.5", {}))


def test_a_best_loss_is_counted_among_the_data_sets_that_could_show_one():
    best = pd.Series([1, 2, 3, 3])
    says = boards._best_says(best, [True, True, False, False])
    assert says == "On 1 of the 2 data sets where it could be shown, one loss is the best"
    assert boards._best_says(best, [False] * 4).startswith("On none of 4 data sets could one loss be shown")


def test_titles_say_which_intervals_they_count(study):
    grid = pd.DataFrame({"gain": [1.0, -2.0], "gain_low": [0.5, -3.0], "gain_high": [2.0, -1.0]})
    says = sizes._settings_say(grid)
    assert "run from −2.0 to +1.0 points; intervals above zero: 1, below: 1, not adjusted" in says
    rows = pd.DataFrame({"mean": [0.8, 0.97], "low": [0.7, 0.96], "high": [0.9, 0.98]})
    rows = rows.assign(x=0.002, size="hard", n=9, loss_label=["ce", "dice, fg"])
    (says,) = sizes._ratio_says(rows)
    assert "ce marks 80 % of the true size" in says
    assert says.endswith("for 1 of 2 losses the interval holds sizes within 5 % of the true one")


def test_the_public_sets_say_on_how_many_a_difference_is_shown_as_the_map_does(study):
    title = drawing.draw("public_sets", study).title
    assert title.endswith("; a difference is shown on 0")
    more = repeated(study, 3, 0.3)
    caption = drawing.draw("public_sets", more).caption
    assert "none of the sets here was trained with batch dice. " in caption
    shown = drawing.draw("loss_by_data", more).data.query(
        "loss == 'dice' and dataset in ('sirst', 'magnetic_tile')"
    )
    assert drawing.draw("public_sets", more).title.endswith(
        f"a difference is shown on {shown['shown'].sum()}"
    )


def test_what_a_figure_leaves_blank_or_out_it_says(study):
    assert "Blank: not trained there. " in drawing.draw("loss_by_data", study).caption
    cells = study["cells"]
    short = study | {"cells": cells[(cells["loss"] != "ce_l1") | (cells["dataset"] != "sirst")]}
    assert "left out: ce_l1. " in drawing.draw("profiles", short).caption
    assert "left out: " not in drawing.draw("profiles", study).caption
    assert "An empty row: " not in drawing.draw("forest", study).caption
    without = cells[(cells["loss"] != "dice_ce") | (cells["dataset"] != "sirst")]
    assert "An empty row: " in drawing.draw("forest", study | {"cells": without}).caption


def test_columns_of_volumes_have_names_where_their_first_panel_is_empty(study):
    cells = study["cells"]
    rare = "scenes(foreground=0.002)"
    kept = cells[(cells["loss"] != "dice") | ~cells["dataset"].isin([rare, "sirst"])]
    drawn = drawing.draw("volume_agreement", study | {"cells": kept})
    titles = [axis.get_title(loc="left").strip() for axis in drawn.figure.axes]
    assert titles[:4] == ["ce", "dice", "dice_ce", "ce + log_dice"] and "No panel: " in drawn.caption
    # The numbers of a panel stand above it, and hide nothing.
    assert not [text for axis in drawn.figure.axes for text in axis.texts]
    assert [uncertain._significant(factor) for factor in (0.0001, 0.0015, 4.34, 176.4)] == [
        "<.001",
        "0.0015",
        "4.3",
        "176",
    ]


def test_labels_that_hold_a_comma_are_quoted_in_sentences_and_counts_have_their_plural():
    assert style.quoted("dice, fg") == "'dice, fg'" and style.quoted("dice") == "dice"
    assert style.in_words("scenes, learning_rate own") == "scenes, each loss's own rate"
    assert style.more(1, "loss", "the tables") == "1 more loss is in the tables. "
    assert style.more(2, "loss", "the tables") == "2 more losses are in the tables. "
    assert style.more(0, "loss", "the tables") == ""


def test_the_map_of_losses_shows_paired_differences_in_points_and_marks_what_is_shown(study):
    data = drawing.draw("loss_by_data", study).data
    mean = cells_of(study, "public", dataset="sirst").groupby("loss")["dice@0.5"].mean()
    row = data.query("dataset == 'sirst' and loss == 'dice_ce'").iloc[0]
    assert row["mean"] == pytest.approx(100 * (mean["dice_ce"] - mean["ce"]))
    assert not data["shown"].any() and data["learnt"].all()
    assert drawing.draw("loss_by_data", repeated(study, 3, 0.3)).data["shown"].any()


def test_a_data_set_that_was_not_learnt_is_marked_and_takes_no_part(study):
    cells = study["cells"].assign(protocol=2)
    references = pd.DataFrame({"dataset": ["sirst"], "reference": [0.999], "source": ["a paper"]})
    short = study | {"cells": cells, "references": references}
    data = drawing.draw("loss_by_data", short).data
    assert set(data.loc[data["learnt"] == 0, "dataset"]) >= {"sirst"}
    ranked = drawing.draw("rankings", short)
    assert "Not learnt, so left out:" in ranked.caption and "sirst" in ranked.caption


def test_the_map_of_ranks_counts_the_data_sets_on_which_a_loss_is_shown_to_be_better(study):
    few = drawing.draw("significance_map", study)
    assert not few.data["better_on"].any()
    assert few.title == "On none of 6 data sets is one of 3 losses shown to beat another"
    many = drawing.draw("significance_map", repeated(study, 3, 0.3)).data
    wins = many.set_index(["loss", "against"])["better_on"]
    # On the four scenes; on real images the test groups, which were not lifted, must agree.
    assert wins["dice", "ce"] == 4 and wins["ce", "dice"] == 0 and len(many) == 6


def test_profiles_are_of_the_runs_that_hold_every_loss_on_scenes_and_on_real_images(study):
    data = drawing.draw("profiles", study).data
    middle = data[data["kind"] == "iqm"].set_index(["part", "loss"])
    own = cells_of(study, "public", loss="ce")["dice@0.5"].sort_values().to_numpy()
    # Six runs: one cut off at each end.
    assert middle.loc[("real images", "ce"), "value"] == pytest.approx(own[1:-1].mean())
    assert middle.loc[("scenes", "ce"), "n_runs"] == 12
    share = data[(data["kind"] == "share") & (data["threshold"] == 0)]
    assert (share["value"] == 1).all()


def test_the_forest_pools_data_sets_and_says_what_a_new_one_may_show(study):
    drawn = drawing.draw("forest", study)
    own = drawn.data[drawn.data["of"] == "dice"].set_index("label")
    assert list(own.index[-2:]) == ["mean over data sets", "a new data set"] and len(own) == 5
    assert own.loc["mean over data sets", "n_variants"] == 3  # the ladder is one data set
    mean = cells_of(study, "public", dataset="sirst").groupby("loss")["dice@0.5"].mean()
    assert own.loc["sirst", "estimate"] == pytest.approx(100 * (mean["dice"] - mean["ce"]))
    new, mean = own.loc["a new data set"], own.loc["mean over data sets"]
    assert new["low"] < mean["low"] and mean["high"] < new["high"]
    assert drawn.title.startswith("Over 3 data sets ")


def test_limits_of_agreement_are_those_of_logarithms_and_leave_out_what_was_missed():
    facts = {"dataset": "a", "recipe": "r", "data_label": "a", "loss": "ce", "loss_label": "ce", "seed": 0}
    ratios = pd.DataFrame({"ratio": [0.5, 2.0, 0.0, 1.0]}).assign(**facts)
    row = uncertain.limits_of_agreement(ratios).iloc[0]
    spread = np.exp(1.96 * np.log(2))  # the standard deviation of -ln 2, ln 2 and 0
    assert (row["bias"], row["high"], row["low"]) == pytest.approx((1.0, spread, 1 / spread))
    assert row["missed"] == 0.25 and row["objects"] == 4


def test_volumes_of_single_images_are_compared_with_the_truth(study):
    data = drawing.draw("volume_agreement", study).data
    bias = data[data["label"] == "scenes(foreground=0.2)"].set_index("loss")["bias"]
    assert bias["ce"] == pytest.approx(0.8, rel=0.02) and bias["dice"] == pytest.approx(1.1, rel=0.02)


def test_volumes_of_large_images_are_drawn_as_those_of_small_ones(study):
    # As read from disk: the product of two volumes is larger than such a number can be.
    sizes = study["volumes"][["size", "predicted"]].mul(2000).astype("int32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        drawing.draw("volume_agreement", {**study, "volumes": study["volumes"].assign(**sizes)})


def test_names_beside_two_and_three_panels_in_a_row_overlap_nothing():
    wanted = pd.DataFrame({"dataset": list("abcdefghi"), "recipe": "r"})
    losses = wanted.assign(n=[9] * 4 + [3] * 5).set_index(["dataset", "recipe"])["n"]
    board, panels = boards._panels(wanted, losses)
    for axis, _ in panels:
        style.names(axis, ["• generalised dice (9)", "ce", "dice"], 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where it finds no layout
        board.draw_without_rendering()
    assert [axis.get_gridspec().ncols for axis, _ in panels] == [2] * 6 + [3] * 3


def test_of_several_lengths_and_heads_the_usual_recipe_at_the_longest_is_shown(study):
    base = cells_of(study, "ladder").assign(data_label="rare")
    longer = base.assign(recipe="long", data_label="rare, steps 240", **{"recipe.steps": 240})
    other = base.assign(recipe="other", data_label="rare, head default, steps 240", **{"recipe.steps": 240})
    begun = longer.assign(recipe="begun", data_label="rare, steps 960", **{"recipe.steps": 960}).head(1)
    kept, says = points.usual(pd.concat([base, longer, other, begun], ignore_index=True))
    assert set(kept["recipe"]) == {"long"} and says.startswith("Of each data set its usual recipe")
    assert points.usual(base)[1] == ""


def test_columns_of_curves_that_are_nearly_alike_are_drawn_once_and_named(study):
    drawn = drawing.draw("training_curves", study)
    assert drawn.data["recipe"].nunique() == 1 and "Much the same, so not drawn: " in drawn.caption


def test_of_a_field_of_a_map_zero_has_no_sign_and_colours_part_small_from_large():
    assert [style.signed(v, 1) for v in (-0.04, 0.04, 1.25)] == ["0.0", "0.0", "+1.2"]
    seven, eighty = style.folded(-7), style.folded(-80)
    assert eighty < seven < 0 and style.folded(0) == 0


def test_bars_of_public_sets_stay_inside_their_panels(study):
    drawn = drawing.draw("public_sets", study)
    data = drawn.data[drawn.data["source"] == "measured"]
    limits = {axis.get_title(loc="left"): axis.get_ylim() for axis in drawn.figure.axes}
    for label, own in data.groupby("label"):
        low, high = limits[label]
        assert low <= own["low"].min() and own["high"].max() <= high


def test_volume_bias_shows_one_of_two_heads(study):
    cells = study["cells"]
    own = cells[cells["parts"].astype(str).str.contains("uncertain")]
    others = own.assign(
        key=own["key"].astype(str) + "d",
        recipe="default0",
        data_label=own["data_label"].astype(str) + ", head default",
        **{"recipe.head": "default"},
    )
    both = {**study, "cells": pd.concat([cells, others], ignore_index=True)}
    data, alone = (drawing.draw("volume_bias", given).data for given in (both, study))
    measured = data[data["kind"] != "theory"]
    assert len(data) == len(alone) and not measured["data_label"].str.contains("head").any()
