"""The shape of a log line, and whose lines are written."""

import json
import logging
from contextlib import contextmanager

import pytest

from extproc.json_lines import JsonLines, TimeText, log_through
from extproc.line_writer import LineWriter
from extproc.log_settings import LogLevel


def test_times_are_utc_with_milliseconds_and_each_second_is_its_own():
    times = TimeText()
    assert [times.of(seconds) for seconds in (1_000_000.25, 1_000_000.75, 1_000_061.0, 0.0)] == [
        "1970-01-12T13:46:40.250Z",
        "1970-01-12T13:46:40.750Z",
        "1970-01-12T13:47:41.000Z",
        "1970-01-01T00:00:00.000Z",
    ]


def test_a_line_has_time_level_logger_and_message():
    record = logging.makeLogRecord(
        {"created": 1_000_000.25, "levelname": "WARNING", "name": "a.b", "msg": "%d of %s", "args": (2, "x")}
    )
    assert JsonLines().format(record) == (
        '{"time":"1970-01-12T13:46:40.250Z","level":"warning","logger":"a.b","message":"2 of x"}'
    )


def test_an_exception_stays_on_one_line():
    try:
        raise ValueError("first\nsecond")  # noqa: TRY301
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "it failed", "exc_info": (type(error), error, None)})
    line = JsonLines().format(record)
    assert "\n" not in line
    assert "first\nsecond" in json.loads(line)["exception"]


@contextmanager
def untouched():
    """The root logger as a process finds it at its start; afterwards as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in ("extproc", "a_service"):
            logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("level", "ours", "others"),
    [
        (LogLevel.DEBUG, ["debug", "info", "warning", "error"], ["info", "warning", "error"]),
        (LogLevel.INFO, ["info", "warning", "error"], ["info", "warning", "error"]),
        (LogLevel.WARNING, ["warning", "error"], ["warning", "error"]),
        (LogLevel.ERROR, ["error"], ["error"]),
    ],
)
def test_lines_below_the_level_are_not_written_nor_debug_lines_of_others(tmp_path, level, ours, others):
    with (tmp_path / "log").open("wb", buffering=0) as file, untouched():
        log_through(LineWriter(file.fileno()), level, service="a_service")
        for name in ("a_service.part", "extproc.tls", "somebody.else"):
            for each in LogLevel:
                logging.getLogger(name).log(each.rank, each.value)
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["message"] for line in told if line["logger"] == "a_service.part"] == ours
    assert [line["message"] for line in told if line["logger"] == "extproc.tls"] == ours
    assert [line["message"] for line in told if line["logger"] == "somebody.else"] == others
