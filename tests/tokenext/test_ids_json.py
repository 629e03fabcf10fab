"""Ids as JSON: of a conversation only the new ones are spelled, and the list is the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.token_metadata import TokenIds
from tokenext.ids_json import ids_as_json, spelled

ids = st.lists(st.integers(0, 2**32 - 1), max_size=8)
LONG = [*range(7, 40_007, 13)]  # more than are worth recalling, of one to five digits


def listed(*values: int) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


@given(ids)
def test_the_list_is_json(values):
    assert ids_as_json(TokenIds.pack(values)) == listed(*values)


@given(ids, ids)
def test_a_turn_that_goes_on_has_the_list_of_its_own_ids(first_ending, second_ending):
    before = spelled(TokenIds.pack([*LONG, *first_ending]), None)
    after = TokenIds.pack([*LONG, *second_ending])
    told = spelled(after, before)
    assert told.ids == after
    assert told.text == listed(*LONG, *second_ending)


@pytest.mark.parametrize("place", [0, 1, 1023, 1024, 1025, len(LONG) - 1])
def test_another_id_anywhere_is_no_old_one(place):
    changed = [*LONG]
    changed[place] = 4_294_967_295
    before = spelled(TokenIds.pack(LONG), None)
    assert spelled(TokenIds.pack(changed), before).text == listed(*changed)
    assert spelled(TokenIds.pack(LONG), spelled(TokenIds.pack(changed), before)).text == listed(*LONG)


@pytest.mark.parametrize("length", [0, 1, 1024, 1500, len(LONG)])
def test_a_shorter_prompt_is_its_own(length):
    before = spelled(TokenIds.pack(LONG), None)
    assert spelled(TokenIds.pack(LONG[:length]), before).text == listed(*LONG[:length])
