"""Series of the hot path: they expose what Prometheus' own would, and may be read while they are written."""

import threading

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp_adapter.gateway_families import HistogramFamily, NumberFamily, Shown, ShownTwice

BOUNDS = (0.1, 0.5, 1, 2.5)
VALUES = (0.05, 0.1, 0.100001, 0.5, 0.7, 1, 2.5, 2.6, 1e6, 0)


def samples(*shown):
    registry = CollectorRegistry()
    registry.register(ShownTwice(shown))
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_a_histogram_exposes_what_prometheus_own_does():
    ours, registry = HistogramFamily(BOUNDS, ("model",)), CollectorRegistry()
    theirs = Histogram("seconds", "Text.", ["model"], buckets=BOUNDS, registry=registry)
    for value in VALUES:
        ours.observe(("a",), value)
        theirs.labels("a").observe(value)
    theirs_told = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert samples(Shown("seconds", "Text.", ours)) == theirs_told


def test_values_that_are_added_counted_are_those_that_are_observed():
    one_by_one, at_once = HistogramFamily(BOUNDS), HistogramFamily(BOUNDS)
    for value in (0.05, 0.3, 0.4, 9.0):
        one_by_one.observe((), value)
    at_once.add((), (1, 2, 0, 0, 1), 9.75)
    assert samples(Shown("x", "", one_by_one)) == pytest.approx(samples(Shown("x", "", at_once)))


def test_a_family_without_labels_is_there_before_its_first_value():
    assert samples(Shown("x", "", HistogramFamily(BOUNDS)))["x_count",] == 0


def test_the_older_name_sums_over_the_labels_it_does_not_have():
    family = NumberFamily("counter", ("model", "priority"))
    family.add(("a", "0"), 2)
    family.add(("a", "1"))
    family.add(("b", "0"))
    told = samples(Shown("new", "", family, "old", ("model",)))
    assert told["new_total", ("model", "a"), ("priority", "0")] == 2
    assert told["old_total", ("model", "a")] == 3
    assert told["old_total", ("model", "b")] == 1


def test_it_can_be_read_while_it_is_written():
    family, over = HistogramFamily(BOUNDS, ("model",)), threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            family.observe((f"m-{number % 5000}",), 0.3)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            for value in family.values():
                assert value.number >= 0
    finally:
        over.set()
        writer.join()
