"""Tables for a paper: what LaTeX would take for a command is written as a letter."""

import pandas as pd

from lossbench.tables.files import latex_text


def test_a_table_in_latex_has_its_rows_escaped_and_says_when_it_is_cut():
    frame = pd.DataFrame({"loss_label": ["ce + l1_a", "50 %"], "mean": [0.123456, None]})
    assert latex_text(frame).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"loss\_label & mean \\",
        r"\midrule",
        r"ce + l1\_a & 0.1235 \\",
        r"50 \% & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    long = pd.DataFrame({"n": range(201)})
    assert latex_text(long).startswith("% 200 of 201 rows") and latex_text(long).count("\\\\") == 201
