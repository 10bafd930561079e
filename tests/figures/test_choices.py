"""The specification curve names its choices so that no two rows read the same, and explains what it draws."""

import numpy as np
import pandas as pd
import pytest

from lossbench.figures import choices, drawing


@pytest.fixture(scope="module")
def panels(study):
    """Return the panels of the figure of the made-up study, to which more recipes of one data set came."""
    cells, recipes = study["cells"], study["recipes"]
    usual = cells["recipe"].value_counts().idxmax()
    own = cells[(cells["recipe"] == usual) & cells["loss"].isin(["ce", "dice"])]
    own = own[own["dataset"] == own["dataset"].value_counts().sort_index().idxmax()]
    changed = {
        "sgd": {"optimizer": "sgd", "learning_rate": "0.1"},
        "slow": {"optimizer": "sgd", "learning_rate": "0.12345"},
        "own": {"learning_rate": "own"},
    }
    row = recipes[recipes["recipe"] == usual]
    # As a table that is read back holds rates where one of them is a word.
    recipes = recipes.assign(learning_rate=recipes["learning_rate"].astype(str))
    row = row.assign(learning_rate=row["learning_rate"].astype(str))
    more = [row.assign(recipe=name, **facts) for name, facts in changed.items()]
    others = [
        own.assign(recipe=name, key=own["key"] + name, block=own["block"] + f" {name}") for name in changed
    ]
    tables = {**study, "cells": pd.concat([cells, *others]), "recipes": pd.concat([recipes, *more])}
    return drawing.draw("specification_curve", tables).figure.axes


def test_the_caption_names_the_curve_of_another_contrast(study):
    drawn = drawing.draw("specification_curve", study)
    count = (drawn.data["contrast"] == "Dice + CE - CE").sum()
    says = f"The other curve, sorted by itself: {count} of Dice + CE minus cross-entropy. "
    assert count and says in drawn.caption
    assert choices._others_say(drawn.data[drawn.data["contrast"] == choices.MAIN]) == ""


def labels_of(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


def test_what_a_recipe_changes_is_said_in_words_and_once(panels):
    (shifts,) = [axis for axis in panels if axis.get_title(loc="left") == "What other choices shift"]
    labels = labels_of(shifts)
    assert len(set(labels)) == len(labels)
    assert {"batch size 1", "each loss's own rate", "rate 0.1, optimiser sgd"} <= set(labels)


def test_the_rate_is_marked_among_the_choices(panels):
    (marks,) = [axis for axis in panels if "threshold: 0.5" in labels_of(axis)]
    assert {"learning rate: each loss's own", "learning rate: one for all"} <= set(labels_of(marks))


def test_labels_are_cut_as_far_as_they_stay_different():
    same = "optimiser sgd of many letters, rate "
    assert choices._told_apart([same + "0.1000", same + "0.2000"]) == [same + "0.1…", same + "0.2…"]
    assert choices._told_apart([same + "1", same + "2"]) == [same + "1", same + "2"]
    assert choices._told_apart(["a" * 30, "b" * 30]) == ["a" * 25 + "…", "b" * 25 + "…"]
    assert choices._in_words("network smp:Unet(encoder_name='resnet18')") == "ResNet-18 U-Net"


def test_the_caption_explains_bars_where_there_are_some_and_the_rest():
    shares = pd.DataFrame({"contrast": choices.MAIN, "choice": ["data", "rest"], "share": [0.6, 0.4]})
    few = choices._shares_say(choices._most(shares.assign(low=np.nan, high=np.nan, n_sets=4)))
    assert "(4 data sets)" in few and "drawn anew" not in few
    assert '"three choices or more": what no choice and no pair of them explains' in few
    many = choices._shares_say(choices._most(shares.assign(low=0.3, high=0.7, n_sets=6)))
    assert "(0.5 % or more; bars: 95 % when data sets are drawn anew; " in many
    assert choices._shares_say(shares.iloc[:0]) == ""
