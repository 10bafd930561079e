"""Records become tables whose bytes are the same every time."""

import copy
import random

import pandas as pd
import pytest

from lossbench.base.errors import UserError
from lossbench.store.note import Dataset, Loss, Note, Part, Term
from lossbench.tables import compact, files, stamp


def test_every_record_is_one_row_and_every_image_and_step_one_more(mini_records, mini_tables):
    assert len(mini_tables["cells"]) == len(mini_records) == 64
    assert len(mini_tables["images"]) == 64 * 6
    assert len(mini_tables["curves"]) == 64 * 6
    assert set(mini_tables["images"]["key"]) == set(mini_tables["cells"]["key"])


def test_the_parameters_of_a_data_set_become_columns(cells):
    assert sorted(cells["data.foreground"].unique()) == [0.002, 0.01, 0.05, 0.2]
    assert cells["data.noise"].notna().all()
    assert set(cells["dataset_name"]) == {"scenes"}


def test_cells_of_one_data_set_seed_and_recipe_share_a_block(cells):
    sizes = cells.groupby("block").agg(
        losses=("loss", "nunique"), seeds=("seed", "nunique"), sets=("dataset", "nunique")
    )
    assert len(sizes) == 16
    assert (sizes["losses"] == 4).all() and (sizes["seeds"] == 1).all() and (sizes["sets"] == 1).all()


def test_a_null_metric_is_no_number_and_the_row_stays(mini_records):
    record = copy.deepcopy(mini_records[0])
    record["metrics"]["hd95@0.5"] = None
    record["images"]["dice@0.5"][0] = None
    frames = compact.compact([record])
    assert pd.isna(frames["cells"]["hd95@0.5"].iloc[0])
    assert frames["images"]["dice@0.5"].isna().sum() == 1


def test_a_column_that_only_some_records_have_is_empty_elsewhere(mini_records):
    record = copy.deepcopy(mini_records[0])
    record["curves"]["grad_norm"] = [1.0] * len(record["curves"]["step"])
    curves = compact.compact([record, mini_records[1]])["curves"]
    assert curves["grad_norm"].notna().sum() == len(record["curves"]["step"])


def test_a_label_that_spells_its_network_out_is_made_readable(mini_records):
    record = copy.deepcopy(mini_records[0])
    record["cell"]["data_label"] = "scenes, network smp:Unet(encoder_name='resnet18'), steps 9"
    assert compact.compact([record])["cells"]["data_label"].tolist() == ["scenes, ResNet-18 U-Net, steps 9"]


def test_a_copied_cell_names_its_original_and_without_copies_there_is_no_such_column(mini_records):
    record = copy.deepcopy(mini_records[0])
    record["provenance"] = {**record.get("provenance", {}), "copy_of": mini_records[1]["key"]}
    cells = compact.compact([record, mini_records[1]])["cells"].set_index("key")
    assert cells["copy_of"].to_dict() == {record["key"]: mini_records[1]["key"], mini_records[1]["key"]: ""}
    assert list(cells)[-1] == "copy_of" and "copy_of" not in compact.compact(mini_records[:2])["cells"]


def test_two_records_of_one_cell_are_refused(mini_records):
    with pytest.raises(UserError, match=r"two records of the cell .* keep the current one"):
        compact.compact([mini_records[0], mini_records[0]])


def test_no_records_give_empty_tables_with_their_columns():
    frames = compact.compact([])
    assert len(frames["cells"]) == 0 and "loss" in frames["cells"]


def test_the_order_of_the_records_does_not_change_a_byte(mini_records, tmp_path):
    shuffled = list(mini_records)
    random.Random(0).shuffle(shuffled)
    first = files.write_tables(compact.compact(mini_records), tmp_path / "a")
    second = files.write_tables(compact.compact(shuffled), tmp_path / "b")
    assert [p.name for p in first] == [p.name for p in second]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


def test_a_written_table_reads_back_as_it_was(mini_tables, tmp_path):
    files.write_tables(mini_tables, tmp_path / "tables")
    pd.testing.assert_frame_equal(files.load_table(tmp_path, "cells"), mini_tables["cells"])
    assert files.load_table(tmp_path, "curves").shape == mini_tables["curves"].shape


def test_cells_at_their_own_rate_and_at_a_shared_one_stand_in_one_table(mini_records, tmp_path):
    first, second = (copy.deepcopy(record) for record in mini_records[:2])
    first["cell"] |= {"recipe": {**first["cell"]["recipe"], "learning_rate": "own"}, "learning_rate": 0.015}
    tables = compact.compact([first, second])
    files.write_tables(tables, tmp_path / "tables")
    assert sorted(files.load_table(tmp_path, "recipes")["learning_rate"]) == ["0.005", "own"]
    assert set(files.load_table(tmp_path, "cells")["recipe.learning_rate"]) == {0.005, 0.015}


def test_a_missing_table_says_what_to_run_and_an_unknown_one_what_there_is(tmp_path):
    with pytest.raises(UserError, match="does not exist; `lossbench sweep"):
        files.load_table(tmp_path, "cells")
    (tmp_path / "records.zip").touch()
    with pytest.raises(UserError, match=r"`lossbench report --results .*` writes it .* without training"):
        files.load_table(tmp_path, "images")
    with pytest.raises(UserError, match="did you mean 'cells'"):
        files.load_table(tmp_path, "cell")


def test_a_damaged_table_says_how_to_rebuild_it(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "cells.parquet").write_bytes(b"not a table")
    with pytest.raises(UserError, match=r"cannot be read .* rebuilds it"):
        files.load_table(tmp_path, "cells")


def test_a_table_that_changed_since_it_was_written_is_not_loaded(mini_tables, tmp_path):
    folder = tmp_path / "tables"
    stamp.stamp(folder, "digest", files.write_tables(mini_tables, folder))
    path = folder / "recipes.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not stamp.is_fresh(folder, "digest")
    with pytest.raises(UserError, match=r"is not what was written there; `lossbench report .* rebuilds it"):
        files.load_table(tmp_path, "recipes")
    assert len(files.load_table(tmp_path, "cells"))
    stamp.unstamp(folder)  # then only its reader can tell
    pd.DataFrame({"name": ["a"]}).to_parquet(folder / "cells.parquet")
    with pytest.raises(UserError, match="has no column 'key'"):
        files.stored(tmp_path, ["cells"])


def test_tables_of_before_losses_were_spelled_out_know_each_loss_by_its_spec_alone(mini_tables, tmp_path):
    files.write_tables({"cells": mini_tables["cells"].drop(columns="loss_spellings")}, tmp_path / "tables")
    cells = files.stored(tmp_path, ["cells"])["cells"]
    assert (cells["loss_spellings"] == cells["loss"]).all()


def test_a_parameter_that_is_a_number_for_one_data_set_and_a_word_for_another_is_read_as_numbers():
    from lossbench.analysis.selection import numbers

    cells = pd.DataFrame({"data.size": ["64", "whole", None]})
    assert numbers(cells, "data.size").fillna(-1).tolist() == [64.0, -1.0, -1.0]
    assert numbers(cells, "data.foreground").isna().all()


def test_a_folder_that_cannot_be_written_is_named(mini_tables, tmp_path):
    (tmp_path / "tables").write_text("a file in the way")
    with pytest.raises(UserError, match="cannot write the tables to"):
        files.write_tables(mini_tables, tmp_path / "tables")


def test_a_record_that_is_older_than_a_recipe_field_is_of_the_same_family(mini_records):
    old, new = (copy.deepcopy(record) for record in mini_records[:2])
    for record, digest in ((old, "a"), (new, "b")):
        record["cell"]["recipe_digest"] = digest
    new["cell"]["recipe"]["precision"] = "float32"
    whole = dict(new["cell"]["recipe"])
    cells = compact.compact([old, new], Note(name="", recipes={"a": whole, "b": whole}, cells=[]))["cells"]
    assert cells["recipe.family"].nunique() == 1
    assert compact.compact([old, new])["cells"]["recipe.family"].nunique() == 2


def test_a_loss_is_spelled_as_the_note_says_or_else_with_the_parameters_of_its_record(mini_records):
    record = copy.deepcopy(mini_records[0])
    record["cell"] |= {"loss": "dice", "loss_terms": [[1.0, "dice", {"smooth": 1e-5}]]}
    assert compact.compact([record])["cells"]["loss_spellings"].tolist() == ["dice(smooth=1e-05)"]
    named = Loss(label="dice", family="overlap", aliases=["dice(smooth=1e-05)", "soft_dice(smooth=1e-05)"])
    note = Note(name="", losses={"dice": named}, cells=[])
    spelled = "dice(smooth=1e-05) | soft_dice(smooth=1e-05)"
    assert compact.compact([record], note)["cells"]["loss_spellings"].tolist() == [spelled]


def test_what_the_note_says_of_parts_losses_and_data_sets_is_three_tables():
    part = Part(
        name="ladder", title="C1", fixed=True, seeds=[0, 1], losses=["0.5*ce + dice"], datasets=["scenes"]
    )
    terms = [Term(weight=0.5, name="ce"), Term(name="dice", params={"smooth": 1.0})]
    sum_ = Loss(label="both", family="compound", terms=terms)
    scenes = Dataset(name="scenes", family="synthetic")
    note = Note(
        name="mini", parts=[part], losses={"0.5*ce + dice": sum_}, datasets={"scenes": scenes}, cells=[]
    )
    tables = compact.noted(note)
    assert tables["parts"].iloc[0].to_dict() == {
        "experiment": "mini",
        "part": "ladder",
        "title": "C1",
        "fixed": True,
        "seeds": "[0, 1]",
        "losses": '["0.5*ce + dice"]',
        "datasets": '["scenes"]',
    }
    assert tables["losses"][["loss", "weight", "name", "params"]].values.tolist() == [
        ["0.5*ce + dice", 0.5, "ce", "{}"],
        ["0.5*ce + dice", 1.0, "dice", '{"smooth": 1.0}'],
    ]
    assert tables["datasets"][["dataset", "family"]].values.tolist() == [["scenes", "synthetic"]]


def test_a_text_that_a_spreadsheet_would_run_is_marked_as_text(tmp_path):
    labels = ["=cmd|' /C calc'!A0", "@SUM(A1)", "+1+1", "\t=1", "dice", "-1.5", "a=b", None]
    frame = pd.DataFrame({"label": labels, "value": [-1.0] * 8, "mixed": [1, None] * 4})
    path = files.write_csv(frame, tmp_path / "t.csv")
    read = pd.read_csv(path, keep_default_na=False, dtype=str)
    assert read["label"].tolist() == [*(f"'{label}" for label in labels[:4]), *labels[4:7], ""]
    assert read["value"].tolist() == ["-1"] * 8 and read["mixed"].tolist() == ["1", ""] * 4
