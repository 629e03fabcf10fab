"""A part of the matrix renders what an API server and both services take; `make chart` asks all of it."""

import pytest

from tests.chart.checks import CHECKS
from tests.chart.matrix import combinations, sample
from tests.chart.rendering import render

SAMPLE = dict(sample())


def test_the_matrix_is_as_large_as_promised():
    assert len(dict(combinations())) >= 300
    assert len(SAMPLE) >= 60


@pytest.mark.parametrize("name", SAMPLE)
def test_a_release_holds_what_every_release_must(name):
    release = render(SAMPLE[name])
    for check, holds in CHECKS.items():
        try:
            holds(release)
        except (AssertionError, ValueError) as error:
            pytest.fail(f"{check}: {error}")
