"""Which exchanges get a line: a share of the good ones, evenly and exactly, and all of the others."""

import itertools
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.log_settings import ExchangeLines, LogLevel, LogSettings
from extproc.settings_file import SettingsError, decode


def told(ratio: float, count: int) -> list[bool]:
    lines = ExchangeLines(LogSettings(exchange_ratio=ratio))
    return [lines.level(troubled=False) is LogLevel.INFO for _ in range(count)]


@pytest.mark.parametrize(("ratio", "every"), [(1.0, 1), (0.5, 2), (0.1, 10), (0.01, 100), (0.001, 1000)])
def test_a_share_is_every_nth_and_exactly_so(ratio, every):
    assert [number for number, line in enumerate(told(ratio, 5000), 1) if line] == list(
        range(every, 5001, every)
    )


def test_a_share_of_nothing_is_nothing():
    assert not any(told(0.0, 1000))


@given(st.integers(0, 1000), st.integers(0, 500), st.integers(0, 500))
def test_any_stretch_of_exchanges_has_its_share(thousandths, skipped, count):
    lines = told(thousandths / 1000, skipped + count)[skipped:]
    assert abs(sum(lines) - count * thousandths / 1000) < 1


@given(st.lists(st.booleans(), max_size=50))
def test_what_went_wrong_is_always_told_and_takes_no_turn_of_what_went_well(troubles):
    lines = ExchangeLines(LogSettings(exchange_ratio=0.2))
    levels = [lines.level(troubled=troubled) for troubled in troubles]
    assert all(level is LogLevel.WARNING for level, ill in zip(levels, troubles, strict=True) if ill)
    assert [level is not None for level, ill in zip(levels, troubles, strict=True) if not ill] == told(
        0.2, troubles.count(False)
    )


def test_settings_that_two_share_are_not_a_turn_that_they_share():
    settings = LogSettings(exchange_ratio=0.5)
    first, second = ExchangeLines(settings), ExchangeLines(settings)
    assert first.level(troubled=False) is second.level(troubled=False) is None


@pytest.mark.parametrize(
    ("level", "well", "ill"),
    [
        (LogLevel.DEBUG, LogLevel.INFO, LogLevel.WARNING),
        (LogLevel.INFO, LogLevel.INFO, LogLevel.WARNING),
        (LogLevel.WARNING, None, LogLevel.WARNING),
        (LogLevel.ERROR, None, None),
    ],
)
def test_a_level_leaves_out_what_is_below_it(level, well, ill):
    lines = ExchangeLines(LogSettings(level=level))
    assert (lines.level(troubled=False), lines.level(troubled=True)) == (well, ill)


def test_levels_have_the_order_and_the_numbers_of_logging():
    assert [level.rank for level in LogLevel] == [getattr(logging, level.name) for level in LogLevel]
    assert all(less.rank < more.rank for less, more in itertools.pairwise(LogLevel))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"level: loud", "level: Invalid enum value 'loud'"),
        (b"exchange_ratio: 1.01", "exchange_ratio: Expected `float` <= 1.0"),
        (b"exchange_ratio: -1", "exchange_ratio: Expected `float` >= 0.0"),
        (b"exchanges: false", "unknown field `exchanges`"),
    ],
)
def test_a_mistake_is_named(text, problem):
    with pytest.raises(SettingsError, match=problem):
        decode(text, LogSettings, source="t.yaml")
