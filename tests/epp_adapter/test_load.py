"""What is in flight is counted exactly and released once."""

from epp_adapter.routing.load import EndpointLoad, FixedLoads, InFlight

A, B = "10.0.0.1:8000", "10.0.0.2:8000"


def test_a_booking_counts_until_it_is_released_and_only_once():
    in_flight = InFlight()
    first, second = in_flight.book(A, 1.0), in_flight.book(A, 2.0)
    other = in_flight.book(B, 2.0)
    assert (in_flight.count(A), in_flight.count(B), in_flight.total) == (2, 1, 3)
    first.release()
    first.release()
    assert (in_flight.count(A), in_flight.total) == (1, 2)
    second.release()
    other.release()
    assert (in_flight.total, in_flight._started) == (0, {})


def test_only_what_was_sent_after_a_reading_is_new_to_it():
    in_flight = InFlight()
    bookings = [in_flight.book(A, moment) for moment in (1.0, 2.0, 3.0, 3.0)]
    assert [in_flight.since(A, moment) for moment in (0.0, 1.0, 2.5, 3.0)] == [4, 3, 2, 0]
    bookings[2].release()
    assert in_flight.since(A, 2.5) == 1
    assert in_flight.since(B, 0.0) == 0


def test_the_fake_source_tells_what_it_was_told():
    load = EndpointLoad(waiting=1, running=2, kv_utilization=0.5, updated_at=1.0)
    loads = FixedLoads({A: load})
    assert list(loads.loads([A, B])) == [load, None]
    loads.replace(B, load)
    assert list(loads.loads([B])) == [load]
