"""Data cards: written once by a sweep, shown by the report, harmless when damaged."""

import base64
import io
import json

import numpy as np

from lossbench.catalogue.registry import parse_dataset
from lossbench.data import cards as cardfile
from lossbench.report import data_cards as datacards

SPEC = "scenes(foreground=0.1, size=32, n_train=6, n_val=3, n_test=4, size_ratio=20.0)"


def stored(tmp_path):
    return cardfile.store(tmp_path, [(parse_dataset(SPEC), "v1", "scenes")], 0)


def test_a_card_holds_facts_histograms_and_pictures(tmp_path):
    card = datacards.read(tmp_path, stored(tmp_path))[0]
    facts = dict(card["rows"])
    assert facts["images"].startswith("train 6, val 3, test 4; 32 × 32") and facts["spec"].startswith(
        "scenes("
    )
    assert len(card["samples"]) == 4 and card["samples"][0]["src"].startswith("data:image/png;base64,")
    assert all(sum(bar["count"] for bar in h["bars"]) == h["n"] for h in card["histograms"])


def test_a_card_is_written_once_and_a_damaged_one_is_left_out(tmp_path):
    files = stored(tmp_path)
    path = tmp_path / "cards" / files["scenes"]
    stamp = path.stat().st_mtime_ns
    stored(tmp_path)
    assert path.stat().st_mtime_ns == stamp
    path.write_text("{")
    assert datacards.read(tmp_path, files) == []
    assert datacards.read(tmp_path, {"x": "../../etc/passwd"}) == []


def test_a_card_of_unequal_images_says_their_sizes_and_what_share_is_scored(tmp_path):
    files = stored(tmp_path)
    path = tmp_path / "cards" / files["scenes"]
    unequal = {"shape": None, "sizes": "3 sizes from 8x8 to 32x40", "scored": {"val": 1.0, "test": 0.25}}
    path.write_text(json.dumps(json.loads(path.read_text()) | unequal))
    facts = dict(datacards.read(tmp_path, files)[0]["rows"])
    assert "; 3 sizes from 8x8 to 32x40, 1 × 1 px" in facts["images"]
    assert facts["scored"] == "25 % of test, drawn once for all losses"


def test_a_card_says_what_was_published_and_why_it_cannot_be_compared_or_that_nothing_was(tmp_path):
    files = stored(tmp_path)
    path = tmp_path / "cards" / files["scenes"]
    plain = json.loads(path.read_text())
    score = {"score": 0.826, "metric": "mean IoU", "of": "PSPNet", "source": "a journal"}

    def row(**facts):
        path.write_text(json.dumps(plain | facts))
        return dict(datacards.read(tmp_path, files)[0]["rows"]).get("published")

    assert row() is None  # scenes have their best possible score
    compared = row(published=[score | {"comparable": False, "why": "the split leaks"}])
    assert compared == "mean IoU 0.826, PSPNet (a journal): not comparable, the split leaks"
    assert row(published=[score | {"comparable": True}]) == "mean IoU 0.826, PSPNet (a journal)"
    assert row(unpublished="no split is named") == "no published figure to compare with: no split is named"


def test_a_picture_with_foreign_characters_is_not_put_into_the_page(tmp_path):
    files = stored(tmp_path)
    path = tmp_path / "cards" / files["scenes"]
    facts = json.loads(path.read_text())
    facts["samples"][0]["png"] = '"><script>'
    path.write_text(json.dumps(facts))
    assert len(datacards.read(tmp_path, files)[0]["samples"]) == 3


def test_a_mask_is_laid_over_its_image_in_the_classes_colour():
    from PIL import Image

    image, mask = np.full((8, 8), 100, np.uint8), np.zeros((8, 8), np.uint8)
    mask[2, 3], mask[7, 7] = 1, 255
    sample = cardfile.picture(image, mask)
    both = np.asarray(Image.open(io.BytesIO(base64.b64decode(sample["png"]))))
    right = both[:, -8:]
    assert tuple(both[2, 3]) == (100, 100, 100) and tuple(right[0, 0]) == (100, 100, 100)
    assert tuple(right[2, 3]) == (171, 132, 45) and tuple(right[7, 7]) == (128, 128, 128)


def test_pictures_of_real_data_are_left_out_on_request_those_of_generated_scenes_stay(tmp_path):
    files = stored(tmp_path)
    path = tmp_path / "cards" / files["scenes"]
    facts = json.loads(path.read_text())
    for name, file in (("camvid(size=80)", "real.json"), ("someones_own(x=1)", "own.json")):
        (tmp_path / "cards" / file).write_text(json.dumps({**facts, "name": name}))
    cards = {
        c["label"]: c
        for c in datacards.read(
            tmp_path, {**files, "camvid": "real.json", "own": "own.json"}, {facts["name"]}, False
        )
    }
    assert len(cards["scenes"]["samples"]) == 4 and not cards["scenes"]["withheld"]
    assert cards["camvid"]["samples"] == [] == cards["own"]["samples"] and cards["camvid"]["withheld"]
    assert cards["camvid"]["histograms"] == cards["scenes"]["histograms"]
    assert len(datacards.read(tmp_path, {"camvid": "real.json"})[0]["samples"]) == 4


def test_recipes_that_share_a_data_set_share_its_card(tmp_path):
    files = stored(tmp_path)
    cards = datacards.read(tmp_path, {"scenes, steps 800": files["scenes"], **files})
    assert [card["label"] for card in cards] == ["scenes"]
