"""The log's way out: lines go to a descriptor, and what cannot be written is counted and fails nothing."""

import logging
import os

import pytest
from prometheus_client import CollectorRegistry

from extproc.line_writer import LineWriter, LostLines


@pytest.fixture
def full_disk():
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        writer = LineWriter(file.fileno())
        writer.write("one \u00fc\n")
        assert (tmp_path / "log").read_text() == "one \u00fc\n"
        assert writer.lost == 0


def test_a_full_disk_loses_lines_counts_them_and_raises_nothing(full_disk):
    writer = LineWriter(full_disk)
    for _ in range(3):
        writer.write("lost\n")
    assert writer.lost == 3


def test_a_reader_that_is_gone_is_no_error_either():
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing)
    writer.write("lost\n")
    os.close(writing)
    assert writer.lost == 1


def test_text_that_is_no_unicode_is_written_readably(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        LineWriter(file.fileno()).write("a \udcff\n")
    assert (tmp_path / "log").read_text() == "a \\udcff\n"


def test_logging_can_write_through_it_and_complains_to_nobody(full_disk, capfd):
    writer = LineWriter(full_disk)
    handler = logging.StreamHandler(writer)
    handler.handle(logging.makeLogRecord({"msg": "lost"}))
    assert writer.lost == 1
    assert capfd.readouterr().err == ""


def test_what_is_lost_is_a_counter_of_the_service(full_disk):
    registry = CollectorRegistry()
    writer = LineWriter(full_disk)
    registry.register(LostLines("a_service", writer))
    writer.write("lost\n")
    assert registry.get_sample_value("a_service_log_lines_lost_total") == 1
