"""The main releases, word for word. After a change: `python -m tests.chart golden`, and read it."""

import pytest

from tests.chart.golden import GOLDEN, RELEASES, text
from tests.chart.rendering import render


@pytest.mark.parametrize("name", RELEASES)
def test_the_release_is_the_one_that_is_kept(name):
    kept = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    assert text(render(RELEASES[name])) == kept, "python -m tests.chart golden"
