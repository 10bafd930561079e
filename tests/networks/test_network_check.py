"""`lossbench check` measures a network, whatever it does, and never raises."""

import pytest
from typer.testing import CliRunner

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import parse_network
from lossbench.cli.main import app
from lossbench.networks import contract
from lossbench.networks.build import Network


def rows(own, text):
    return {row.test: row for row in contract.run(text, [own]).rows}


def test_a_twenty_line_network_of_ones_own_passes(own):
    report = contract.run("tiny", [own])
    assert report.passed
    found = {row.test: row for row in report.rows}
    assert found["bias of the head, which head = 'prior' sets"].measured == "4.bias"
    assert found["weights that are trained"].measured == f"{8 * 9 + 8 + 16 + 8 * 2 + 2}"
    assert found["training twice gives the same bits"].measured == "draws random numbers (dropout)"


def test_a_grouped_network_is_compared_with_its_cells(own):
    assert rows(own, "unet(widths=[4, 8])")["K cells in one network are K networks"].passed
    assert rows(own, "tiny")["K cells in one network are K networks"].passed is None


@pytest.mark.parametrize("text", ["halves", "pair", "raises", "a_list"])
def test_a_network_that_gives_no_logits_fails_in_one_row(own, text):
    report = contract.run(text, [own])
    assert not report.passed and len(report.rows) == 1 and report.rows[0].note


@pytest.mark.parametrize("last", ["softmax", "softmax in evaluation", "sigmoid"])
def test_a_network_that_returns_probabilities_fails(own, last):
    found = rows(own, f"ends_in(last='{last}')")["returns logits"]
    assert found.passed is False and f"leave the {last.split()[0]} out" in found.note


@pytest.mark.parametrize(
    "text", ["ends_in(last='zero')", "ends_in(last='positive')", "tiny", "unet", "grouped"]
)
def test_logits_are_not_mistaken_for_probabilities(own, text):
    (found,) = contract.logits(Network(parse_network(text, [own]), 1, 2, (64, 64)))
    assert found.passed and not found.note


def test_what_is_random_or_idle_or_depends_on_the_batch_is_found(own):
    found = rows(own, "restless")
    assert "does not come from torch's global generator" in found["training twice gives the same bits"].note
    assert found["an image's logits do not depend on its companions"].passed is False
    assert found["the gradient reaches every weight"].note == "not: idle"
    assert "two builds from one seed" not in found["one seed, one start; another seed, another start"].note


def shown(*arguments):
    """Return exit code and output of a command."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_the_command_knows_losses_from_networks(own):
    assert shown("check", "ce")[1].startswith("ce  passes")
    code, output = shown("check", "halves", "--with", str(own))
    assert code == 1 and output.startswith("halves  fails")
    for text, part in {
        "unett": "'unett' is neither a loss nor a network; did you mean 'unet'",
        "smp:DiceLos": "not one of its segmentation losses",
        "torchvision:fcn_resnet5": "did you mean 'fcn_resnet50'",
    }.items():
        with pytest.raises(UserError, match=part):
            shown("check", text)


def test_networks_are_listed_with_their_parameters(own):
    code, output = shown("list", "networks", "--with", str(own))
    assert code == 0 and "width=8, dropout=0.5" in output and "torchvision:NAME" in output
    assert "lraspp_mobilenet_v3_large" in shown("list", "networks", "torchvision")[1]
    with pytest.raises(UserError, match="unknown network 'unett'; did you mean 'unet'"):
        shown("list", "networks", "unett")
