"""The note of a results folder reads back as it was written; an older one shows less, a damaged one is
named.
"""

import json

import pytest

from lossbench.base.errors import UserError
from lossbench.store import note

KEY, FINGERPRINT = "00112233445566ff", "9f8e7d6c"
OLD = {"name": "mini", "cells": [[KEY, FINGERPRINT, "dice", "scenes", "b0"]]}


def read(folder, facts):
    (folder / note.NAME).write_text(json.dumps(facts))
    return note.read(folder)


def test_what_is_written_reads_back(tmp_path):
    part = {"name": "ladder", "title": "Which?", "fixed": True, "seeds": [0, 1], "losses": ["dice"]}
    loss = {"label": "dice", "family": "overlap", "terms": [{"name": "dice", "params": {"smooth": 1e-5}}]}
    note.write(tmp_path, {**OLD, "parts": [part], "losses": {"dice": loss}})
    found = note.read(tmp_path)
    assert found.parts[0].title == "Which?" and found.losses["dice"].terms[0].params == {"smooth": 1e-5}
    assert found.cells == [note.NotedCell(KEY, FINGERPRINT, "dice", "scenes", "b0", "")]


def test_a_note_of_before_parts_and_facts_were_noted_still_reads(tmp_path):
    found = read(tmp_path, OLD)
    assert found.name == "mini" and found.cells[0].parts == "" and not found.parts and not found.losses


def test_a_folder_without_a_sweep_has_no_note(tmp_path):
    assert note.read(tmp_path) is None


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ([1], "it is not the note of a sweep"),
        ({"cells": []}, "it has no 'name'"),
        ({**OLD, "cells": [[KEY, "xyz", "a", "b", "c", "d"]]}, "its 'cells.0.1' is not what it should be"),
        (
            {**OLD, "cells": [["../x", FINGERPRINT, "a", "b", "c"]]},
            "its 'cells.0.0' is not what it should be",
        ),
        ({**OLD, "cards": {"scenes": "../../etc/passwd"}}, "its 'cards.scenes' is not what it should be"),
        ({**OLD, "parts": [{"name": "a", "fixed": 1}]}, "its 'parts.0.fixed' is not what it should be"),
        ({**OLD, "losses": {"dice": {"label": "dice"}}}, "it has no 'losses.dice.family'"),
    ],
)
def test_a_note_that_is_not_as_it_should_be_is_named_with_what_writes_it_again(tmp_path, facts, why):
    with pytest.raises(UserError) as error:
        read(tmp_path, facts)
    assert f"{note.NAME}: {why}; the sweep's command writes it again" in str(error.value)


@pytest.mark.parametrize("text", ["{", "", '{"name": NaN, "cells": []}', "[" * 100_000])
def test_a_note_that_is_no_json_cannot_be_read(tmp_path, text):
    (tmp_path / note.NAME).write_text(text)
    with pytest.raises(UserError, match="cannot be read"):
        note.read(tmp_path)
