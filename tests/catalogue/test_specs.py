"""Spec strings are parsed, resolved against the catalogue, and refused with one sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.base import specs
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import parse_dataset, parse_loss


def test_defaults_are_filled_in_and_left_out_of_the_canonical_text():
    spec = parse_loss("tversky( fn_weight = 0.7, fp_weight=0.4 )")
    assert spec.text == "tversky(fp_weight=0.4)"
    assert spec.terms[0].params["fn_weight"] == 0.7
    assert spec.identity() == parse_loss("tversky(fp_weight=0.4)").identity()


def test_an_integer_becomes_a_float_where_the_default_is_one():
    assert parse_loss("tversky(fp_weight=1)").identity() == parse_loss("tversky(fp_weight=1.0)").identity()


def test_a_sum_keeps_its_weights_and_is_a_compound():
    spec = parse_loss("0.5*ce + dice(over='batch')*2")
    assert [(t.weight, t.name) for t in spec.terms] == [(0.5, "ce"), (2.0, "dice")]
    assert spec.text == "0.5*ce + 2*dice(over='batch')" and spec.family == "compound"


def test_an_adapter_is_read_without_its_library():
    spec = parse_loss("monai:DiceFocalLoss(gamma=2)")
    assert spec.terms[0].library == "monai" and spec.terms[0].params == {"gamma": 2}


@pytest.mark.parametrize("path", ["run:a", "Dataset: BUSI", "it's a:b", 'a "b:c"', "C:\\new:x"])
def test_a_colon_within_quotes_is_part_of_a_name(path):
    assert parse_dataset(f"folder(path={path!r})").params["path"] == path


def test_names_in_quotes_do_not_count_towards_the_length_of_a_spec():
    names = ["a" * 250] * 20
    assert parse_dataset(f"folder(path='a', leave_out={names!r})").params["leave_out"] == names
    for text in (f"ce{' ' * 2000}", f"f'{'(' * 3000}'", f"dice(over='{'a' * 200_000}')"):
        with pytest.raises(UserError, match="is longer than" if "ce" in text else "cannot read|longer"):
            parse_loss(f"{text} + ce")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("dise", "did you mean 'dice'"),
        ("dice(ovr='batch')", "did you mean 'over'"),
        ("dice(0.5)", "name the parameters"),
        ("dice(over=batch)", "quote it: over='batch'"),
        ("dice(over='x', over='y')", "stands twice"),
        ("-1*dice", "cannot read"),
        ("0*dice", "must be positive"),
        ("dice - ce", "cannot read"),
        ("mona:Dice()", "the libraries are"),
        ("__import__('os').system('true')", "cannot read"),
        ("dice(**{'a': 1})", "not read"),
        ("focal(gamma='two')", "must be a number"),
        ("", "named by a string"),
        ("(" * 500, "cannot read"),
        ("1" + "0" * 400 + "*ce", r"the weights in '1000.*\.\.\.' must be positive and below 1e\+100"),
        ("dice(smooth=1e999)", "must be a finite number"),
        ("dice(smooth={[1]: 2})", "must be a finite number"),
        ("dice(smooth=1j)", "must be a finite number"),
        ("dice(classes={1})", "must be a finite number"),
        ("dice(classes=[b'x'])", "must be a finite number"),
    ],
)
def test_a_bad_spec_gets_one_sentence(text, part):
    with pytest.raises(UserError, match=part.replace("(", r"\(")):
        parse_loss(text)


@pytest.mark.parametrize(
    "text", ["ce_db", "ce_db(weight=0.1)", "ce_db( over='sample',weight=.1 )", "short(weight=0.1)"]
)
def test_a_spec_with_defaults_written_out_means_the_same_loss(text):
    assert specs.means(
        text, "ce_db", ["ce_db(over='sample', weight=0.1)", "short(over='sample', weight=0.1)"]
    )


@pytest.mark.parametrize(
    "text", ["dice", "dice(smooth=2.0)", "dice(over='batch', smooth=1)", "2*dice(smooth=1)", "a b"]
)
def test_a_spec_that_leaves_out_or_changes_what_is_not_a_default_means_another_loss(text):
    assert not specs.means(text, "dice(smooth=1.0)", ["dice(over='sample', smooth=1.0)"])


def test_a_sum_means_the_same_term_by_term():
    full = specs.render_sum([(0.5, "ce", {"norm": "pixels"}), (1.0, "dice", {"smooth": 1.0})])
    assert full == "0.5*ce(norm='pixels') + dice(smooth=1.0)"
    assert specs.means("0.5*ce + dice(smooth=1.0)", "0.5*ce + dice", [full])
    assert not specs.means("ce + dice", "0.5*ce + dice", [full])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("smp:Unet(encoder_name='resnet18')", "ResNet-18 U-Net"),
        (
            "smp:UnetPlusPlus(encoder_name='efficientnet-b0', decoder_channels=[8, 4])",
            "EfficientNet-b0 U-Net++ (decoder_channels 8, 4)",
        ),
        ("smp:FPN(encoder_name='resnext50_32x4d')", "resnext50_32x4d FPN"),
        ("smp:Unet", "U-Net of smp"),
        ("unet(widths=[4, 8])", "U-Net (widths 4, 8)"),
        ("mine", "mine"),
        ("not a spec (", "not a spec ("),
    ],
)
def test_a_network_is_called_as_a_reader_would_call_it(text, name):
    assert specs.network_name(text) == name


def test_a_label_names_its_network_and_keeps_all_else():
    label = "scenes 0.2 %, network smp:Unet(encoder_name='resnet18'), head default"
    assert specs.network_named(label) == "scenes 0.2 %, ResNet-18 U-Net, head default"
    for same in ("scenes 0.2 %, network mine, steps 200", "network of roads", "scenes, ResNet-18 U-Net"):
        assert specs.network_named(same) == same


def test_a_data_set_is_one_term_with_known_parameters():
    assert parse_dataset("scenes(foreground=0.01)").text == "scenes"
    assert parse_dataset("scenes(foreground=0.02)").params["foreground"] == 0.02
    for bad in ("scenes + scenes", "2*scenes", "scenez", "scenes(fg=1)"):
        with pytest.raises(UserError):
            parse_dataset(bad)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_no_text_makes_the_parser_raise_anything_but_a_sentence(text):
    try:
        specs.parse(text)
    except UserError as error:
        assert str(error)
