"""Every figure is a pure function of the tables: same tables, same bytes; too little data gives a sentence,
not a crash.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from lossbench.base.errors import UserError
from lossbench.figures import drawing, style

EMPIRICAL = [name for name, entry in drawing.entries().items() if not entry.theory]
THEORY = [name for name, entry in drawing.entries().items() if entry.theory]

MINI = ("size_ratio", "dice_gap", "leaderboard", "training_curves")


@pytest.fixture(scope="module")
def drawn(tables):
    return {name: drawing.draw(name, tables) for name in MINI}


@pytest.fixture(scope="module")
def full(study):
    found, skipped = drawing.draw_everything(study, [*EMPIRICAL, *THEORY])
    assert not skipped
    return {item.name: item for item in found}


def only(tables, **choice):
    cells = tables["cells"]
    for column, values in choice.items():
        cells = cells[cells[column].isin(values)]
    keyed = {name: tables[name] for name in drawing.TABLES if name not in ("cells", "recipes")}
    return {"cells": cells, "recipes": tables["recipes"]} | {
        n: table[table["key"].isin(cells["key"])] for n, table in keyed.items()
    }


def test_figures_are_found_in_their_room_and_stand_in_the_order_of_their_numbers():
    entries = drawing.entries()
    assert [entry.number for entry in entries.values()] == list(range(1, len(entries) + 1))
    modules = {path.stem for path in Path(drawing.__file__).parent.glob("*.py")}
    theirs = {entry.draw.__module__.rpartition(".")[2] for entry in entries.values()}
    assert modules - theirs == {"__init__", "drawing", "points", "style"}


@pytest.fixture(scope="module")
def saved(full, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    return {name: drawing.save(item, folder) for name, item in full.items()}


@pytest.fixture(scope="module")
def again(study, tmp_path_factory):
    """The files of `draw_all`, which draws from the tables as they are stored."""
    from lossbench.tables.files import write_tables

    folder = tmp_path_factory.mktemp("results")
    write_tables(study, folder / "tables")
    paths = drawing.draw_all(folder)
    assert {path.parent for path in paths} == {folder / "figures"}
    return {path.name: path for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EMPIRICAL, *THEORY])
def test_the_same_tables_give_the_same_bytes(name, saved, again):
    for path in saved[name]:
        assert path.read_bytes() == again[path.name].read_bytes(), path.name


@pytest.mark.parametrize("name", MINI)
def test_a_caption_says_how_many_cells_and_blocks_and_where_they_came_from(name, drawn):
    caption = drawn[name].caption
    shown = (
        "64 cells in 16 blocks (4" if name == "training_curves" else "96 cells in 24 blocks (6"
    )  # four panels at most
    assert f"{shown} data set variants, 4 seeds each)" in caption
    assert "1 collapsed" in caption or name == "training_curves"


@pytest.mark.parametrize("name", EMPIRICAL)
def test_every_caption_ends_with_its_evidence_and_every_figure_is_described(name, full):
    assert re.search(
        r"\d+ cells in \d+ blocks? \(\d+ data set variants?(?: in \d+ settings)?, [13] seeds? each\)",
        full[name].caption,
    )
    assert "commit 01234567; on CPU." in full[name].caption
    assert len(full[name].alt) > 40 and "nan" not in full[name].alt


@pytest.mark.parametrize("name", [*EMPIRICAL, *THEORY])
def test_the_numbers_behind_a_figure_are_saved_beside_it(name, full, saved):
    paths = saved[name]
    assert [p.name for p in paths] == [f"{name}{end}" for end in drawing.ENDINGS]
    assert len(paths[2].read_text().splitlines()) == len(full[name].data) + 1
    assert paths[0].stat().st_size < 400_000


@pytest.mark.parametrize("name", [*EMPIRICAL, *THEORY])
def test_an_svg_holds_no_date_no_program_and_no_address_but_its_namespaces(name, full):
    svg = full[name].svg
    assert "dc:date" not in svg and "Matplotlib" not in svg
    links = set(re.findall(r"https?://[^\"'<> ]+", svg))
    assert all(
        link.startswith(("http://www.w3.org/", "http://purl.org/", "http://creativecommons.org/"))
        for link in links
    ), links


def test_the_size_figure_shows_geometric_means_of_the_ratio(tables, drawn):
    cells = tables["cells"]
    own = cells[(cells["loss"] == "ce") & (cells["data.foreground"] == 0.01)]
    row = drawn["size_ratio"].data.query("loss == 'ce' and size == 'hard' and foreground == 0.01").iloc[0]
    assert row["mean"] == pytest.approx(np.exp(own["log_size_ratio_hard@0.5"].mean()))
    assert row["low"] < row["mean"] < row["high"] and row["n"] == 4


def test_the_gap_figure_shows_paired_differences_in_points(tables, drawn):
    cells = tables["cells"]
    wide = cells[cells["data.foreground"] == 0.002].pivot(index="block", columns="loss", values="dice@val")
    row = drawn["dice_gap"].data.query("loss == 'dice' and arm == 'val' and foreground == 0.002").iloc[0]
    assert row["mean"] == pytest.approx(100 * (wide["dice"] - wide["ce"]).mean())
    assert "ce" not in set(drawn["dice_gap"].data["loss"])


@pytest.mark.parametrize("name", MINI)
def test_dollar_signs_of_a_label_are_drawn_as_they_stand(tables, name):
    """Two of them enclose a formula elsewhere, and this one has no end."""
    cells = tables["cells"]
    priced = {column: "$\\frac{$ " + cells[column] for column in ("loss_label", "data_label")}
    drawn = drawing.draw(name, tables | {"cells": cells.assign(**priced)})
    assert drawn.svg.count("$\\frac{$") >= 4


def test_a_public_set_stands_at_its_measured_foreground(drawn):
    data = drawn["size_ratio"].data
    assert data[data["dataset"] == "sirst"]["foreground"].iloc[0] == pytest.approx(0.0006, rel=0.1)


def test_scenes_at_one_foreground_fraction_are_no_ladder(tables):
    from lossbench.figures import points

    place = points.places(only(tables, dataset=["scenes(foreground=0.05)", "sirst"])["cells"])
    assert (place["ladder"] == "").all()


def test_refused_pairs_have_no_place_among_paired_differences(tables):
    cells = tables["cells"].copy()
    cells.loc[cells["loss"] == "focal", "order_hash"] = "another"
    drawn = drawing.draw("dice_gap", {**tables, "cells": cells})
    assert "focal" not in set(drawn.data["loss"])


@pytest.mark.parametrize("name", EMPIRICAL)
@pytest.mark.parametrize(
    "choice",
    [
        {"seed": [0]},
        {"loss": ["ce"]},
        {"loss": ["dice", "focal"]},
        {"dataset": ["sirst"]},
        {"parts": ["uncertain"]},
        {"outcome": ["collapsed"]},
        {"outcome": []},
    ],
    ids=["one seed", "only ce", "no ce", "one public set", "one part", "only the collapsed cell", "no cells"],
)
def test_little_data_gives_a_figure_or_a_sentence(name, choice, study):
    try:
        drawing.entries()[name].draw(only(study, **choice))
    except drawing.NothingToDraw as reason:
        assert str(reason).startswith("needs ")


def test_many_losses_are_drawn_too(tables):
    import pandas as pd

    base = tables["cells"]
    ce = base[base["loss"] == "ce"]
    more = [
        ce.assign(
            loss=f"loss{i}", loss_label=f"a rather long loss label {i}", family="user", key=ce["key"] + str(i)
        )
        for i in range(8)
    ]
    cells = pd.concat([base, *more], ignore_index=True)
    for name in (*MINI, "rankings"):
        assert drawing.draw(name, {**tables, "cells": cells}).svg


def test_an_unknown_figure_names_the_nearest(tables):
    with pytest.raises(UserError, match="did you mean 'size_ratio'"):
        drawing.draw("size_ratios", tables)


def test_family_colours_are_readable_on_their_paper_and_told_apart_by_the_colour_blind():
    def linear(text):
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return np.array([p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts])

    def contrast(a, b):
        return style.contrast(style.luminance(a), style.luminance(b))

    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") < 4.5
    # Viénot 1999: what a deuteranope sees of linear RGB.
    deuteranope = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    pairs = {**style.FAMILIES, "other": style.OTHER}
    for light, dark in pairs.values():
        assert contrast(light, "#ffffff") > 4.5 and contrast(dark, "#171b22") > 4.5
    for theme in (0, 1):
        seen = {name: deuteranope @ linear(pair[theme]) for name, pair in pairs.items()}
        for first, second in (("distribution", "overlap"), ("distribution", "size"), ("overlap", "compound")):
            assert np.linalg.norm(seen[first] - seen[second]) > 0.08, (first, second)


@pytest.mark.parametrize("colours", ["PuOr", "Oranges", "Blues", "Greys"])
def test_the_number_in_a_field_can_be_read_on_every_colour(colours):
    import matplotlib
    import pandas as pd

    values = pd.DataFrame([np.linspace(0, 1, 101)])
    _, axes = style.canvas(1, 1, 1.0)
    style.heat(axes[0][0], values, values.map("{:.2f}".format), colours, 0.0, 1.0)
    fields = matplotlib.colormaps[colours](values.to_numpy()[0])[:, :3]
    inks = [text.get_color() for text in axes[0][0].texts]
    assert len(inks) == 101 and style.PAPER not in inks and style.INK not in inks
    for ink, field in zip(inks, fields, strict=True):
        assert style.contrast(style.luminance(ink), style.luminance(field)) > 4.5


def test_a_loss_looks_alike_whatever_losses_stand_beside_it_and_in_theory():
    import pandas as pd

    from lossbench.figures import theory, training

    rows = pd.DataFrame(
        [
            ("ce", "ce", "distribution"),
            ("dice", "dice", "overlap"),
            ("batch_dice(classes='all')", "batch dice", "overlap"),
            ("mine", "mine", "user"),
            ("yours", "yours", "user"),
        ],
        columns=["loss", "loss_label", "family"],
    )
    looks, without_ce = style.lines(rows), style.lines(rows[1:])
    assert looks["dice"] == without_ce["dice"] and looks["mine"] == without_ce["mine"]
    assert len({(look["marker"], str(look["linestyle"])) for look in looks.values()}) == 5
    many = rows.loc[[0] * 24].assign(
        loss=[*style.FIRST, *(f"more {n}" for n in range(24 - len(style.FIRST)))]
    )
    looks_of_many = style.lines(many.assign(loss_label=many["loss"]))
    assert len({(look["marker"], str(look["linestyle"])) for look in looks_of_many.values()}) == 24
    weighed = [str(looks_of_many[loss]["linestyle"]) for loss in ("ce", "wce", "wce(power=0.5)", "focal")]
    assert len(set(weighed)) == 4  # lines without marks, of one colour
    batch = looks["batch_dice(classes='all')"]
    assert {
        "CE": looks["ce"],
        "Dice of each image": looks["dice"],
        "Dice over the batch": batch,
    } == training.BATCH_LOOKS
    assert theory.PULLS["Dice over the batch"][-1] == batch | {"marker": ""}
    dice = [look for name, look in theory.CONSTANTS.items() if "Dice" in name]
    assert {look["color"] for look in dice} == {style.colour("overlap")}
    assert len({str(look["linestyle"]) for look in dice}) == 5


def test_the_force_of_dice_is_said_to_be_even_only_where_foreground_is_rare():
    caption = drawing.draw("gradient_mass", {}).caption
    assert "much smaller than p" in caption and "1.99-fold at 9 %" in caption


def test_the_evidence_counts_the_seeds_of_each_loss(tables):
    cells = tables["cells"]
    fewer = cells[(cells["loss"] != "focal") | (cells["seed"] > 0)]
    assert ", 4 seeds each)" in style.evidence(cells)
    assert ", 3 to 4 seeds each)" in style.evidence(fewer)


def test_panels_fill_their_rows_evenly():
    assert [style.shape(n, 4) for n in (1, 4, 5, 6, 7, 9)] == [(1, 1), (1, 4), (2, 3), (2, 3), (2, 4), (3, 3)]


def test_a_fault_in_one_figure_takes_no_other_along(tables, monkeypatch):
    draw = drawing.draw

    def broken(name, given):
        return draw(name, given) if name == "size_ratio" else [][0]

    monkeypatch.setattr(drawing, "draw", broken)
    found, skipped = drawing.draw_everything(tables, ["leaderboard", "size_ratio"])
    assert [item.name for item in found] == ["size_ratio"]
    assert skipped["leaderboard"] == f"{drawing.FAULT} IndexError: list index out of range"


def test_a_fault_is_said_when_figures_alone_are_drawn_after_all_others_are_written(
    tables, tmp_path, monkeypatch
):
    from lossbench.tables.files import write_tables

    write_tables(tables, tmp_path / "tables")
    drawn = drawing.draw("size_ratio", tables)
    skipped = {"panel": "needs cells", "leaderboard": f"{drawing.FAULT} IndexError: 1"}
    monkeypatch.setattr(drawing, "draw_everything", lambda _: ([drawn], skipped))
    with pytest.raises(UserError, match=r"^figure 'leaderboard': a fault in lossbench.*IndexError: 1$"):
        drawing.draw_all(tmp_path)
    assert (tmp_path / "figures" / "size_ratio.png").is_file()
