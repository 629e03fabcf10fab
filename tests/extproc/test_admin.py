"""The admin port: what each page says, and that nothing of it is markup or secret."""

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry, Counter

from extproc.admin import AdminPages, Section, masked, serve_admin


class Service:
    def __init__(self) -> None:
        self.ready = True
        self.registry = CollectorRegistry()
        Counter("seen", "What was seen.", registry=self.registry).inc()
        self.rows = [["<script>", 7]]

    @property
    def pages(self) -> AdminPages:
        return AdminPages(
            service="a-service",
            version="1.2.3",
            registry=self.registry,
            ready=lambda: self.ready,
            config=lambda: {"listen": "unix:/x", "hub": {"api_token": "hush"}},
            sections=lambda: [Section("Models & more", ["name", "count"], self.rows)],
        )


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def url(service):
    with serve_admin("127.0.0.1", 0, service.pages) as port:
        yield f"http://127.0.0.1:{port}"


def get(url: str) -> tuple[int, str, str]:
    try:
        with urlopen(url, timeout=5) as response:
            return response.status, response.headers["content-type"], response.read().decode()
    except HTTPError as error:
        return error.code, error.headers["content-type"], error.read().decode()


def test_metrics_are_an_exposition(url):
    status, kind, text = get(f"{url}/metrics")
    assert (status, "seen_total 1.0" in text) == (200, True)
    assert kind.startswith("text/plain; version=")


def test_readiness_is_that_of_the_moment_and_liveness_is_not(url, service):
    assert get(f"{url}/readyz")[0] == 200
    service.ready = False
    assert get(f"{url}/readyz")[0] == 503
    assert get(f"{url}/healthz")[0] == 200


def test_the_version_names_the_service(url):
    assert json.loads(get(f"{url}/version")[2]) == {"service": "a-service", "version": "1.2.3"}


def test_the_config_is_shown_without_its_secrets(url):
    assert json.loads(get(f"{url}/config")[2]) == {"listen": "unix:/x", "hub": {"api_token": "***"}}


@pytest.mark.parametrize(
    ("key", "hidden"),
    [("api_token", True), ("password", True), ("clientSecret", True), ("max_tokens", False), ("key", False)],
)
def test_what_is_called_like_a_secret_is_hidden_wherever_it_stands(key, hidden):
    assert masked({"a": [{key: "x"}]}) == {"a": [{key: "***" if hidden else "x"}]}


def test_the_status_page_shows_tables_as_they_are_now_and_as_text(url, service):
    assert "&lt;script&gt;" in get(url)[2]
    assert "<script>" not in get(url)[2]
    service.rows = [["another", 8]]
    status, kind, text = get(f"{url}/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert "<h2>Models &amp; more</h2>" in text
    assert "<td>another</td><td>8</td>" in text


def test_an_unknown_page_says_which_there_are(url):
    status, _, text = get(f"{url}/nothing")
    assert (status, "/metrics" in text) == (404, True)


def test_a_head_request_has_no_body(url):
    with urlopen(Request(f"{url}/healthz", method="HEAD"), timeout=5) as response:
        assert (response.status, response.read(), response.headers["content-length"]) == (200, b"", "3")


def test_it_listens_on_ipv6_too(service):
    with serve_admin("[::1]", 0, service.pages) as port:
        assert get(f"http://[::1]:{port}/healthz")[0] == 200


def test_a_page_that_fails_is_one_record_of_the_log_and_the_next_one_answers(url, service, caplog):
    service.rows = [[1, 2], 7]  # no row
    with pytest.raises(OSError, match=r"closed|reset"):
        get(url)
    assert [record.message for record in caplog.records] == ["an admin page failed"]
    service.rows = []
    assert get(url)[0] == 200


def test_an_address_in_use_is_an_os_error(url, service):
    taken = int(url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"), serve_admin("127.0.0.1", taken, service.pages):
        pass
