"""The sentences about mistakes."""

import shlex
from pathlib import Path

import pytest

from lossbench.base.errors import typed


@pytest.mark.parametrize("folder", ["results", "my results", "it's", "$HOME"])
def test_a_command_can_be_typed_as_it_is_printed(folder):
    command = typed("report", "--results", Path(folder))
    assert shlex.split(command) == ["lossbench", "report", "--results", folder]
