"""The admin port's bearer token: who is let in where, while the file changes under it."""

import http.client

import pytest
from prometheus_client import CollectorRegistry

from extproc.admin import AdminPages, serve_admin
from extproc.admin_token import BearerToken, bearer_token
from extproc.settings_file import SettingsError

CLOSED = ["/", "/metrics", "/config", "/version", "/nothing", "/metrics?name=x"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    return path


@pytest.fixture
def port(file):
    pages = AdminPages(
        service="a-service",
        version="1",
        registry=CollectorRegistry(),
        ready=lambda: True,
        config=dict,
        sections=list,
    )
    with serve_admin("127.0.0.1", 0, pages, BearerToken(file)) as port:
        yield port


def ask(port, path, authorization=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {} if authorization is None else {"Authorization": authorization}
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["www-authenticate"], answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer s3cre",
        "Bearer s3cret2",
        "Basic s3cret",
        "s3cret",
        "Bearer \xe9",
    ],
)
def test_without_the_token_nothing_is_shown(port, path, authorization):
    status, scheme, body = ask(port, path, authorization)
    assert (status, scheme, body) == (401, "Bearer", b"a bearer token is needed\n")


def test_head_needs_the_token_too(port):
    assert ask(port, "/metrics", method="HEAD") == (401, "Bearer", b"")


@pytest.mark.parametrize("path", ["/", "/metrics", "/config", "/version"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_who_knows_the_token_sees_everything(port, path, scheme):
    assert ask(port, path, f"{scheme} s3cret")[0] == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_none(port, path):
    assert ask(port, path)[0] == 200


def test_a_token_that_is_exchanged_counts_from_the_next_request_on(port, file):
    assert ask(port, "/metrics", "Bearer s3cret")[0] == 200
    file.write_text("other")
    assert ask(port, "/metrics", "Bearer s3cret")[0] == 401
    assert ask(port, "/metrics", "Bearer other")[0] == 200


@pytest.mark.parametrize("gone", ["removed", "emptied"])
def test_while_there_is_no_token_nobody_is_let_in_and_the_log_says_so_once(port, file, caplog, gone):
    for _ in range(2):  # each time that it goes
        caplog.clear()
        if gone == "removed":
            file.unlink()
        else:
            file.write_text("")
        for authorization in ("Bearer s3cret", "Bearer ", None):
            assert ask(port, "/metrics", authorization)[0] == 401
        assert ask(port, "/healthz")[0] == 200
        assert caplog.text.count("lets nobody in") == 1
        assert "s3cret" not in caplog.text
        file.write_text("s3cret")
        assert ask(port, "/metrics", "Bearer s3cret")[0] == 200


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file"),
        (b" \n", "is empty"),
        (b"two words", "is not one word of printable ASCII"),
        (b"caf\xe9", "is not one word of printable ASCII"),
        (b"bell\x07", "is not one word of printable ASCII"),
        (b"x" * 5000, "is longer than 4096 bytes"),
    ],
)
def test_a_file_without_a_token_is_refused_at_the_start_and_not_quoted(tmp_path, content, problem):
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        bearer_token("token", tmp_path / "t.yaml")
    assert f"t.yaml: admin_token_file: {tmp_path}/token {problem}" in str(caught.value)
    assert "words" not in str(caught.value)


def test_without_the_setting_there_is_no_token(tmp_path):
    assert bearer_token(None, tmp_path / "t.yaml") is None
