"""Loss cards: formula, paper, parameters, what happens on empty images, and how other libraries spell it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Fact = tuple[str, str]

LIBRARIES = {"monai": "MONAI", "smp": "segmentation-models-pytorch", "nnunet": "nnU-Net"}

ARXIV, DOI = "https://arxiv.org/abs/", "https://doi.org/"

# Where a paper that a loss cites can be read, by first author and year; of two of one name and year, the one
# whose subject is named comes first, for the first that fits is taken.
PAPERS = {
    "Abhishek & Hamarneh 2021": f"{ARXIV}2010.13454",
    "Abraham & Khan 2019": f"{ARXIV}1810.07842",
    "Acebes 2024": f"{DOI}10.1007/978-3-031-72111-3_67",
    "Berman 2018": f"{ARXIV}1705.08790",
    "Bouteille 2025": f"{ARXIV}2511.17146",
    "Brosch 2015": f"{DOI}10.1007/978-3-319-24574-4_1",
    "Celaya 2023": f"{ARXIV}2302.03868",
    "Cui 2019": f"{ARXIV}1901.05555",
    "Drozdzal 2016": f"{ARXIV}1608.04117",
    "Eigen & Fergus 2015": f"{ARXIV}1411.4734",
    "Fidon 2017": f"{ARXIV}1707.00478",
    "Galdran 2022": f"{DOI}10.1007/978-3-031-26354-5_4",
    "Gonzalez-Jimenez 2023": f"{ARXIV}2306.00753",
    "Isensee 2021": f"{DOI}10.1038/s41592-020-01008-z",
    "Islam & Glocker 2021": f"{ARXIV}2104.05788",
    "Jungo 2018": f"{ARXIV}1806.02562",
    "Kamnitsas 2017": f"{ARXIV}1603.05959",
    "Karimi & Salcudean 2019": f"{ARXIV}1904.10030",
    "Kervadec 2019": f"{ARXIV}1812.07032",
    "Kirchhoff 2024": f"{ARXIV}2404.03010",
    "Kofler 2022": f"{ARXIV}2205.08209",
    "Leng 2022": f"{ARXIV}2204.12511",
    "Lin 2017": f"{ARXIV}1708.02002",
    "Liu 2022": f"{ARXIV}2111.15430",
    "Liu 2024": f"{ARXIV}2104.08717",
    "Menon 2021": f"{ARXIV}2007.07314",
    "Milletari 2016": f"{ARXIV}1606.04797",
    "Murugesan 2023": f"{ARXIV}2303.06268",
    "Paszke 2016": f"{ARXIV}1606.02147",
    "Rahman & Wang 2016": f"{DOI}10.1007/978-3-319-50835-1_22",
    "Ronneberger 2015": f"{ARXIV}1505.04597",
    "Salehi 2017": f"{ARXIV}1706.05721",
    "Shit 2021": f"{ARXIV}2003.07311",
    "Shrivastava 2016": f"{ARXIV}1604.03540",
    "Sudre 2017": f"{ARXIV}1707.03237",
    "Szegedy 2016": f"{ARXIV}1512.00567",
    "Taghanaki 2019": f"{ARXIV}1805.02798",
    "Wang 2019 (adaptive wing)": f"{ARXIV}1904.07399",
    "Wang 2019": f"{ARXIV}1908.06112",
    "Wang 2023 (Jaccard metric losses)": f"{ARXIV}2302.05666",
    "Wang 2023": f"{ARXIV}2303.16296",
    "Wong 2018": f"{ARXIV}1809.00076",
    "Wu 2016": f"{ARXIV}1605.06885",
    "Xie & Tu 2015": f"{ARXIV}1504.06375",
    "Yeung 2022": f"{ARXIV}2102.04525",
    "Yeung 2023": f"{DOI}10.1007/s10278-022-00735-3",
    "Yu & Blaschko 2015": f"{ARXIV}1512.07797",
    "Yuan 2020": f"{ARXIV}1909.11065",
    "Zhang & Sabuncu 2018": f"{ARXIV}1805.07836",
    "Zhao 2019": f"{ARXIV}1910.12037",
    "Zhu 2019": f"{ARXIV}1808.05238",
}

# A citation may name several papers, and say more than their names.
NAME = re.compile("|".join(re.escape(name) for name in PAPERS))


def order(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a loss of the cells, in the order of their families: the order of the cards."""
    known = cells.drop_duplicates("loss").sort_values(["family", "loss_label"], kind="stable")
    return known[["loss", "loss_label", "family"]]


def cards(
    cells: pd.DataFrame, losses: pd.DataFrame, spellings: pd.DataFrame | None = None
) -> list[dict[str, Any]]:
    """Return one card a loss of the cells, in the order of their families; sums name their terms."""
    # A loss that is in the cells has a card, also where the note is older than its facts.
    return [
        {
            "loss": loss,
            "label": label,
            "family": family,
            "short": _short(terms := losses[losses["loss"] == loss]),
            "facts": [*_facts(loss, terms), *_spelled(loss, spellings)],
            "papers": _papers(terms),
        }
        for loss, label, family in order(cells).itertuples(index=False, name=None)
    ]


def _short(terms: pd.DataFrame) -> str:
    """Return the formula in one line, for the tip that a loss's name shows."""
    return "; ".join(f"{row.name}: {row.formula}" for row in terms.itertuples(index=False) if row.formula)


def _papers(terms: pd.DataFrame) -> list[Fact]:
    """Return the papers that the terms cite and that can be linked, with their links."""
    found = dict.fromkeys(name for cite in terms["cite"] for name in NAME.findall(cite))
    return [(name, PAPERS[name]) for name in found]


def _spelled(loss: str, spellings: pd.DataFrame | None) -> list[Fact]:
    """Return how other libraries spell a loss, as the sweep noted it."""
    if spellings is None:
        return []
    own = spellings[spellings["loss"] == loss]
    return [
        (f"in {LIBRARIES.get(row.library, row.library)}", row.code) for row in own.itertuples(index=False)
    ]


def _facts(loss: str, table: pd.DataFrame) -> list[Fact]:
    terms = table.to_dict("records")
    return [("spec", loss), *(fact for term in terms for fact in _term(term, len(terms) > 1))]


def _term(term: dict[str, Any], in_sum: bool) -> list[Fact]:
    """Return what is known of one summand, each fact under its name; in a sum every fact names its
    summand.
    """
    # What the data decide is no parameter of the loss to a reader.
    params = {key: value for key, value in json.loads(term["params"]).items() if key != "ignore_index"}
    facts = {
        "what it does": term["doc"].replace("``", ""),
        "formula": term["formula"],
        "source": term["cite"],
        "cost": term["cost"],
        "parameters": ", ".join(f"{key} = {value!r}" for key, value in params.items()),
        "empty images": term["empty"],
        "needs": ", ".join(json.loads(term["needs"])),
    }
    named = in_sum or ":" in term["name"]  # a loss of another library is known by its name alone
    first = [("term", f"{term['weight']:g} × {term['name']}")] if named else []
    prefix = f"{term['name']}: " if in_sum else ""
    return first + [(name, f"{prefix}{fact}") for name, fact in facts.items() if fact]
