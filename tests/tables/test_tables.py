"""Records become tables whose bytes are the same every time."""

import copy
import random

import pandas as pd
import pytest

from lossbench.base.errors import UserError
from lossbench.tables import compact, freshness


def test_every_record_is_one_row_and_every_image_and_step_one_more(mini_records, mini_tables):
    assert len(mini_tables["cells"]) == len(mini_records) == 64
    assert len(mini_tables["images"]) == 64 * 6
    assert len(mini_tables["curves"]) == 64 * 6
    assert set(mini_tables["images"]["key"]) == set(mini_tables["cells"]["key"])


def test_the_parameters_of_a_data_set_become_columns_with_their_defaults_filled_in(cells):
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


def test_two_records_of_one_cell_are_refused(mini_records):
    with pytest.raises(UserError, match=r"two records of the cell .* keep the current one"):
        compact.compact([mini_records[0], mini_records[0]])


def test_no_records_give_empty_tables_with_their_columns():
    frames = compact.compact([])
    assert len(frames["cells"]) == 0 and "loss" in frames["cells"]


def test_the_order_of_the_records_does_not_change_a_byte(mini_records, tmp_path):
    shuffled = list(mini_records)
    random.Random(0).shuffle(shuffled)
    first = compact.write_tables(compact.compact(mini_records), tmp_path / "a")
    second = compact.write_tables(compact.compact(shuffled), tmp_path / "b")
    assert [p.name for p in first] == [p.name for p in second]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


def test_a_written_table_reads_back_as_it_was(mini_tables, tmp_path):
    compact.write_tables(mini_tables, tmp_path / "tables")
    pd.testing.assert_frame_equal(compact.load_table(tmp_path, "cells"), mini_tables["cells"])
    assert compact.load_table(tmp_path, "curves").shape == mini_tables["curves"].shape


def test_a_missing_table_says_what_to_run_and_an_unknown_one_what_there_is(tmp_path):
    with pytest.raises(UserError, match="does not exist; `lossbench sweep"):
        compact.load_table(tmp_path, "cells")
    with pytest.raises(UserError, match="did you mean 'cells'"):
        compact.load_table(tmp_path, "cell")


def test_a_damaged_table_says_how_to_rebuild_it(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "cells.parquet").write_bytes(b"not a table")
    with pytest.raises(UserError, match=r"cannot be read .* rebuilds it"):
        compact.load_table(tmp_path, "cells")


def test_a_table_that_changed_since_it_was_written_is_not_loaded(mini_tables, tmp_path):
    folder = tmp_path / "tables"
    freshness.stamp(folder, "digest", compact.write_tables(mini_tables, folder))
    path = folder / "recipes.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not freshness.is_fresh(folder, "digest")
    with pytest.raises(UserError, match=r"is not what was written there; `lossbench report .* rebuilds it"):
        compact.load_table(tmp_path, "recipes")
    assert len(compact.load_table(tmp_path, "cells"))
    freshness.unstamp(folder)  # then only its reader can tell
    pd.DataFrame({"name": ["a"]}).to_parquet(folder / "cells.parquet")
    with pytest.raises(UserError, match="lacks the column 'key'"):
        compact.stored(tmp_path, ["cells"])


def test_a_parameter_that_is_a_number_for_one_data_set_and_a_word_for_another_is_read_as_numbers():
    from lossbench.analysis.selection import numbers

    cells = pd.DataFrame({"data.size": ["64", "whole", None]})
    assert numbers(cells, "data.size").fillna(-1).tolist() == [64.0, -1.0, -1.0]
    assert numbers(cells, "data.foreground").isna().all()


def test_a_folder_that_cannot_be_written_is_named(mini_tables, tmp_path):
    (tmp_path / "tables").write_text("a file in the way")
    with pytest.raises(UserError, match="cannot write the tables to"):
        compact.write_tables(mini_tables, tmp_path / "tables")
