"""What a sweep ends with: one loss, the reason, the doubts. Scores are made by hand, sentences compared."""

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis.recommendation import as_text, recommend
from lossbench.analysis.resampling import ByGroup

CANNOT_TELL = "By Dice over all images one cannot tell: no loss is shown to be better; "

# Eight numbers of mean zero and of both signs, so that a difference of a hundredth of it is noise.
NOISE = np.array([-3, 2, -1, 1, 3, -2, -1, 1]) / 1000


def table(steps=1200, **scores):
    """Return cells of one data set; of each loss columns over eight seeds, ``dice`` if it is no mapping."""
    rows = []
    for loss, columns in scores.items():
        columns = columns if isinstance(columns, dict) else {"dice_all@0.5": columns}
        for seed in range(8):
            values = {name: np.broadcast_to(column, 8)[seed] for name, column in columns.items()}
            values.setdefault("dice@0.5", values["dice_all@0.5"])
            collapsed = values.pop("collapsed", False)
            rows.append(
                {
                    **dict.fromkeys(("init_hash", "order_hash", "split_hash", "dataset_name"), "h"),
                    "dataset": "d",
                    "data_label": "mine",
                    "recipe": f"r{steps}",
                    "family": "f",
                    "loss": loss,
                    "loss_label": loss,
                    "seed": seed,
                    "key": f"{loss}{seed}{steps}",
                    "recipe.steps": steps,
                    "outcome": "collapsed" if collapsed else "done",
                    **values,
                }
            )
    return pd.DataFrame(rows)


def only(*tables, **more):
    (found,) = recommend(pd.concat(tables, ignore_index=True), **more)
    return found


def test_the_best_loss_is_named_with_what_is_lower_and_what_cannot_be_told_apart():
    # ce: eight differences of 2 to 4 points; dice: of both signs, larger than a point.
    own = only(
        table(dice_ce=0.80, ce=[0.78, 0.77, 0.76, 0.78, 0.77, 0.76, 0.78, 0.76], dice=0.79 + 9 * NOISE)
    )
    assert own.kind == "use" and own.loss == "dice_ce"
    # The interval of eight ends at means of subsets: the smallest number, and of all the largest.
    assert (
        own.says.startswith("By Dice over all images use dice_ce: ce is 3.0 points lower [2.")
        and "dice cannot be told apart." in own.says
    )


def test_where_nothing_differs_the_answer_is_no_difference_that_matters():
    own = only(table(ce=0.8 + NOISE, dice=0.801 - NOISE, dice_ce=0.802 + NOISE / 2))
    assert own.kind == "same"
    same = "there is no difference that matters: all 3 losses lie within a point"
    assert own.says == f"By Dice over all images {same}. ce will do."


def test_where_nothing_is_shown_no_loss_is_called_better():
    own = only(table(ce=0.8 + 20 * NOISE, dice=0.82 - 20 * NOISE))
    assert own.kind == "open" and own.says.startswith(CANNOT_TELL)
    # Zero lies in the interval, which needs no reason.
    assert "; the largest difference is dice minus ce, +2.0 points [−" in own.says and "but" not in own.says
    assert "For now use dice" in own.says


def test_four_seeds_of_three_losses_show_nothing_and_the_answer_says_how_many_would():
    few = table(ce=0.5 + NOISE, dice=0.8, dice_ce=0.81).query("seed < 4")
    own = only(few)
    assert own.kind == "open"
    # 2 / 2^4 = .125, thrice that for three pairs; with 7 seeds 3 * 2 / 2^7 = .047.
    assert (
        "With 4 seeds nothing can be shown (the smallest p is 0.38 after adjustment): train 7 or more."
        in own.doubts
    )


def test_a_loss_that_still_rose_is_undertrained_and_not_out():
    own = only(table(300, ce=0.6 + NOISE, dice=0.8), table(1200, ce=0.75 + NOISE, dice=0.803 + NOISE / 9))
    assert own.doubts[0] == (
        "ce was still improving at 1,200 steps (+15.0 points since 300): train longer before you conclude."
    )
    rows = {row["loss"]: row for row in own.rows}
    assert rows["ce"]["undertrained"] == "still improving" and rows["ce"]["shown"] == "lower"
    assert not rows["dice"]["undertrained"]


def test_a_loss_that_collapsed_at_one_half_but_is_sound_at_its_own_threshold_is_undertrained():
    ce = {"dice_all@0.5": 0.0, "dice_all@val": 0.48 + NOISE, "collapsed": True}
    own = only(table(ce=ce, dice={"dice_all@0.5": 0.502 + NOISE, "dice_all@val": 0.502}))
    (says,) = [text for text in own.doubts if "collapsed" in text]
    why = "undertrained (sound at another threshold), not ruled out"
    assert says == f"ce collapsed in 8 of 8 trainings: {why}."


def test_a_difference_of_the_threshold_alone_is_said_to_be_one():
    ce = {"dice_all@0.5": 0.6 + NOISE, "dice_all@val": 0.8 + NOISE / 9}
    own = only(table(ce=ce, dice={"dice_all@0.5": 0.8, "dice_all@val": 0.8}))
    assert own.kind == "use" and any("At its own threshold ce is as good" in text for text in own.doubts)


def test_at_its_own_threshold_a_loss_is_as_good_only_where_that_is_shown():
    # Half a point behind on average, and eight seeds scatter by several.
    ce = {"dice_all@0.5": 0.6 + NOISE, "dice_all@val": 0.795 + 20 * NOISE}
    own = only(table(ce=ce, dice={"dice_all@0.5": 0.8, "dice_all@val": 0.8}))
    (says,) = [text for text in own.doubts if "threshold" in text]
    assert says.startswith("ce cannot be told apart at the threshold from validation (−0.5 points [")
    ce["dice_all@val"] = 0.83 + NOISE
    own = only(table(ce=ce, dice={"dice_all@0.5": 0.8, "dice_all@val": 0.8}))
    assert any(text.startswith("At its own threshold ce is better (+3.0 points [") for text in own.doubts)


def grouped(cells, count, **apart):
    """Return the scores by test group of all cells, those of a loss ``apart`` from its mean."""
    rows = [
        {"key": cell["key"], "group": str(n), "class": "", "n dice_all@0.5": 1}
        | {"dice_all@0.5": cell["dice_all@0.5"] + apart.get(cell["loss"], [0.0] * count)[n]}
        for cell in cells.to_dict("records")
        for n in range(count)
    ]
    return ByGroup(pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("ce", "gap", "ends"),
    [
        (0.801, "+0.1 points [+0.1, +0.1]", "."),
        (0.5, "+30.2 points [+30.2, +30.2]", " (on these ce is lower)."),
    ],
)
def test_of_three_patients_nothing_is_said_of_others(ce, gap, ends):
    cells = table(ce=ce, dice=0.802)
    own = only(cells, by_group=grouped(cells, 3))
    assert own.kind == "open" and own.says.startswith(CANNOT_TELL)
    reason = ", but with fewer than 8 test groups nothing can be said of other images."
    # A large difference has its reason in the same sentence.
    assert f"the largest difference is dice minus ce, {gap}{reason}" in own.says
    why = "The test part has 3 groups of images; with fewer than 8 nothing can be said of other images"
    assert why + ends in own.doubts


def test_what_these_images_show_and_others_may_not_is_said():
    cells, far = table(ce=0.801, dice=0.802), [0.2, -0.2] * 5
    own = only(cells, by_group=grouped(cells, 10, ce=far))
    assert own.kind == "open"
    assert "ce is within a point on these test images; others may say otherwise." in own.doubts
    cells = table(ce=0.75, dice=0.8)
    own = only(cells, by_group=grouped(cells, 10, ce=far))
    assert "ce is lower on these test images; others may say otherwise." in own.doubts
    # The interval that is printed is the wider one: 5 points and more than ten to either side.
    assert "the largest difference is dice minus ce, +5.0 points [−1" in own.says


def test_of_several_recipes_validation_chooses_and_not_the_test_score():
    lucky = {"dice_all@0.5": 0.9, "val_dice_all@0.5": 0.6}
    sound = {"dice_all@0.5": 0.8, "val_dice_all@0.5": 0.7}
    one = table(ce=lucky, dice=lucky).assign(recipe="lucky")
    other = table(ce=sound, dice=sound).assign(recipe="sound", key=lambda own: own["key"] + "s")
    assert only(one, other).recipe == "sound"


def test_of_two_alike_the_one_with_fewer_false_alarms_is_recommended():
    loud = {"dice_all@0.5": 0.81 + 9 * NOISE, "false_alarms@0.5": 0.9 + NOISE}
    quiet = {"dice_all@0.5": 0.8, "false_alarms@0.5": 0.1 - NOISE}
    assert only(table(dice=loud, batch_dice=quiet)).loss == "batch_dice"


def test_false_alarms_are_told_of_the_loss_by_name():
    loud = {"dice_all@0.5": 0.81 + NOISE, "false_alarms@0.5": 0.9}
    own = only(table(ce=loud, dice={"dice_all@0.5": 0.7, "false_alarms@0.5": 0.05}))
    assert "ce marks something on 90 % of the images without foreground; dice on 5 %." in own.doubts


def test_a_difference_that_the_adjustment_leaves_open_says_so():
    # The smallest p of eight seeds is .0078; six losses are fifteen pairs, and fifteen times that is .12.
    losses = {f"loss {n}": 0.5 + n / 1000 * NOISE for n in range(5)}
    own = only(table(ce=0.6, **losses))
    assert ", but it is not shown once p is adjusted over all pairs of losses." in own.says


@pytest.mark.parametrize("order", [("ce", "dice"), ("dice", "ce")])
def test_empty_images_count(order):
    # On images with the class dice is ahead; on all images, where it marks every empty one, ce is.
    scores = {
        "dice": {"dice@0.5": 0.8 + NOISE, "dice_all@0.5": 0.3},
        "ce": {"dice@0.5": 0.7 + NOISE, "dice_all@0.5": 0.8 + NOISE},
    }
    assert only(table(**{loss: scores[loss] for loss in order})).loss == "ce"


def test_the_printed_answer_holds_the_leaderboard_the_reason_and_the_spelling():
    spelled = pd.DataFrame([{"loss": "dice", "library": "monai", "code": "DiceLoss(softmax=True)"}])
    text = "\n".join(as_text(only(table(ce=0.6 + NOISE, dice=0.8 + NOISE / 9), spellings=spelled)))
    assert "By Dice over all images use dice: ce is 20.0 points lower" in text
    assert "In MONAI: DiceLoss(softmax=True)" in text
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["dice", "ce"]


def test_one_loss_alone_gives_no_answer():
    assert recommend(table(ce=0.5)) == []
