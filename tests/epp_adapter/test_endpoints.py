from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp_adapter.endpoints import (
    AddressError,
    Destination,
    Endpoint,
    EndpointSnapshot,
    FixedEndpoints,
    candidates,
    canonical_address,
    parse_subset_hint,
)

A = Endpoint("10.0.0.1:8000")
B = Endpoint("10.0.0.2:8000")
B2 = Endpoint("10.0.0.2:8001")
V6 = Endpoint("[fd00::7]:8000")
ALL = EndpointSnapshot((A, B, B2, V6))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        (" 127.0.0.1:80 ", "127.0.0.1:80"),
        ("127.0.0.1:0080", "127.0.0.1:80"),
        ("[::1]:8000", "[::1]:8000"),
        ("[FD00:0:0::0007]:8000", "[fd00::7]:8000"),
    ],
)
def test_an_address_has_one_spelling(text, canonical):
    assert canonical_address(text) == canonical


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("worker-1:8000", "host names are not resolved"),
        ("localhost:8000", "host names are not resolved"),
        ("127.0.0.1", "port"),
        ("127.0.0.1:", "port"),
        ("127.0.0.1:0", "port"),
        ("127.0.0.1:65536", "port"),
        ("127.0.0.1:http", "port"),
        ("127.0.0.1:" + "9" * 5000, "port"),
        ("127.0.0.1:\u0663", "port"),
        ("127.0.0.01:80", "host names"),
        ("::1:8000", "brackets"),
        ("[127.0.0.1]:80", "brackets"),
        ("", "port"),
        (":80", "host names"),
    ],
)
def test_what_is_no_address_is_refused_with_the_rule_it_breaks(text, rule):
    with pytest.raises(AddressError, match=rule):
        canonical_address(text)


@given(st.text())
def test_any_text_is_an_address_or_an_address_error(text):
    with suppress(AddressError):
        assert canonical_address(canonical_address(text)) == canonical_address(text)


def test_no_hint_allows_all_that_is_ready():
    down = Endpoint("10.0.0.3:8000", ready=False)
    assert candidates(EndpointSnapshot((A, down, B)), parse_subset_hint(None)) == (A, B)


@pytest.mark.parametrize(
    ("hint", "allowed"),
    [
        (["10.0.0.1:8000"], (A,)),
        ("10.0.0.1:8000", (A,)),
        ("10.0.0.1:8000,10.0.0.2:8001", (A, B2)),
        (" 10.0.0.1:8000 , 10.0.0.2:8001 ", (A, B2)),
        (["10.0.0.2"], (B, B2)),
        ("10.0.0.2", (B, B2)),
        (["fd00::7"], (V6,)),
        (["[fd00::7]"], (V6,)),
        (["[fd00:0::0:7]:8000"], (V6,)),
        (["[fd00::7]:8001"], ()),
        (["10.0.0.9:8000"], ()),
        (["10.0.0.1:8000", 7, None], (A,)),
        ([], ()),
        ("", ()),
        (",", ()),
        ({"10.0.0.1:8000": True}, ()),
        (7.0, ()),
        (True, ()),
        ([["10.0.0.1:8000"]], ()),
        (["not:an:address"], ()),
    ],
)
def test_a_hint_allows_what_it_names_and_never_more(hint, allowed):
    assert candidates(ALL, parse_subset_hint(hint)) == allowed


def test_an_endpoint_that_is_not_ready_is_no_candidate_even_if_named():
    down = Endpoint("10.0.0.3:8000", ready=False)
    assert candidates(EndpointSnapshot((down,)), parse_subset_hint([down.address])) == ()


def test_a_destination_is_a_comma_list_in_order():
    assert Destination((B, A)).rendered() == "10.0.0.2:8000,10.0.0.1:8000"
    assert Destination((B, A)).first is B


def test_a_destination_is_never_empty():
    with pytest.raises(ValueError, match="at least one"):
        Destination(())


def test_a_replaced_source_gives_the_new_endpoints_and_leaves_old_snapshots_alone():
    source = FixedEndpoints(A)
    before = source.current()
    source.replace(B)
    assert (before.endpoints, source.current().endpoints) == ((A,), (B,))
