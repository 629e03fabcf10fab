"""Sessions: tokens that clients carry, and bindings that we keep."""

import pytest

from epp_adapter.routing.sessions import SessionTable, decode_token, encode_token

A, B, C = "10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"


@pytest.mark.parametrize("address", [A, "[fd00::7]:8000"])
def test_a_token_names_its_endpoint(address):
    assert decode_token(encode_token(address)) == address


@pytest.mark.parametrize(
    "token", ["", "%%%", "AAAA", "x" * 5000, encode_token("not an address"), "é", "\udcff"]
)
def test_what_is_no_token_names_nobody(token):
    assert decode_token(token) is None


class TestTable:
    def test_a_session_goes_where_it_went(self):
        table = SessionTable()
        table.served("s", B, now=0)
        assert table.wanted("s", [A, B], now=1) == B

    def test_a_new_session_goes_to_the_endpoint_with_fewest(self):
        table = SessionTable()
        table.served("one", A, now=0)
        assert table.wanted("two", [A, B], now=0) == B

    def test_a_session_waits_for_its_endpoint_and_then_moves(self):
        table = SessionTable(miss_threshold=3)
        table.served("s", A, now=0)
        for _ in range(2):
            assert table.wanted("s", [B, C], now=1) is None
            table.served("s", B, now=1)
        assert table.wanted("s", [A, B, C], now=2) == A, "it came back in time"
        for _ in range(2):
            assert table.wanted("s", [B, C], now=3) is None
            table.served("s", C, now=3)
        moved = table.wanted("s", [B, C], now=3)
        assert moved == B
        table.served("s", moved, now=3)
        assert table.wanted("s", [A, B, C], now=4) == B

    def test_an_unused_session_is_forgotten_after_its_time(self):
        table = SessionTable(ttl_seconds=10)
        table.served("old", A, now=0)
        table.served("used", B, now=0)
        table.served("used", B, now=8)
        table.wanted("any", [A], now=11)
        assert len(table) == 1
        assert table.wanted("used", [A, B], now=12) == B

    def test_the_number_of_sessions_is_bounded_and_counts_are_given_back(self):
        table = SessionTable(max_sessions=3)
        for number in range(50):
            table.served(f"s{number}", A, now=number)
        assert len(table) == 3
        assert table._bound == {A: 3}

    def test_ids_that_are_no_text_or_huge_take_no_more_memory(self):
        table = SessionTable()
        table.served("\udcff" * 10, A, now=0)
        table.served("x" * 100_000, A, now=0)
        assert {len(key) for key in table._sessions} == {16}
