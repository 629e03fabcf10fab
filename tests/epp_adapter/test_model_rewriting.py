import json

import pytest

from epp_adapter.model_rewriting import ModelRewriting
from epp_adapter.pool_rules import FixedRules, ModelRewrite, PoolRules, RewriteRule, RewriteTarget
from extproc.errors import BadRequestError, BodyTooLargeError, PeerProtocolError
from extproc.events import BodyMode, Headers, RequestReady, StaticMetadata

RULES = FixedRules(
    PoolRules(rewrites=(ModelRewrite("r", (RewriteRule(frozenset({"food"}), (RewriteTarget("lora-7"),)),)),))
)
REWRITING = ModelRewriting(RULES, random=lambda: 0.0)
BODY = b'{"model": "food", "prompt": "hi"}'


def request(body=BODY, *, replaceable=True, oversize=False, response=BodyMode.STREAMED):
    return RequestReady(
        Headers({":path": "/v1/completions"}),
        body,
        StaticMetadata(),
        oversize=oversize,
        body_replaceable=replaceable,
        response_body=response,
    )


def blind(**changes):
    return request(None, replaceable=False, **changes)


def test_a_rule_changes_the_model_asked_for():
    rewritten = REWRITING.rewrite(request(), "")
    assert (rewritten.asked, rewritten.served) == ("food", "lora-7")
    assert json.loads(rewritten.body) == {"model": "lora-7", "prompt": "hi"}


def test_a_header_wins_over_the_rules():
    assert REWRITING.rewrite(request(), "lora-8").served == "lora-8"


@pytest.mark.parametrize("rewriting", [ModelRewriting(), REWRITING])
def test_what_no_rule_names_passes(rewriting):
    assert rewriting.rewrite(request(b'{"model": "other"}'), "") is None


def test_a_model_that_stays_the_same_leaves_the_body_alone():
    assert REWRITING.rewrite(request(), "food") is None


@pytest.mark.parametrize("body", [b"", b"text", b"{}", b'{"model": 7}'])
def test_a_body_without_a_model_passes(body):
    assert REWRITING.rewrite(request(body), "") is None


def test_without_rules_no_body_is_needed():
    assert ModelRewriting().rewrite(blind(), "") is None


class TestRequiredModel:
    REQUIRING = ModelRewriting(require_model=True)

    @pytest.mark.parametrize("body", [b"text", b"{}", b'{"model": 7}'])
    def test_a_body_without_one_is_400(self, body):
        with pytest.raises(BadRequestError, match="names a model"):
            self.REQUIRING.rewrite(request(body), "")

    def test_a_request_without_a_body_passes(self):
        assert self.REQUIRING.rewrite(request(b""), "") is None

    def test_a_mode_that_hides_bodies_cannot_serve_it(self):
        with pytest.raises(PeerProtocolError, match=r"require_model.*processing_mode\.request_body_mode"):
            self.REQUIRING.rewrite(blind(), "")


def test_a_mode_that_hides_the_request_cannot_serve_rules():
    with pytest.raises(PeerProtocolError, match=r"request_body_mode.*BUFFERED or FULL_DUPLEX_STREAMED"):
        REWRITING.rewrite(blind(), "")


def test_a_mode_that_hides_the_response_cannot_serve_them_either():
    with pytest.raises(PeerProtocolError, match=r"response_body_mode.*STREAMED"):
        REWRITING.rewrite(request(response=BodyMode.NONE), "")


def test_what_a_client_wishes_there_is_the_clients_error():
    for asked in (blind(), request(response=BodyMode.NONE)):
        with pytest.raises(BadRequestError, match="x-llm-d-model-name-rewrite is not served here"):
            ModelRewriting().rewrite(asked, "lora-8")


@pytest.mark.parametrize("wanted", ["a\nb", "\udcff", "\x00"])
def test_a_wish_that_is_no_name_is_400(wanted):
    with pytest.raises(BadRequestError, match="no model's name"):
        REWRITING.rewrite(request(), wanted)


def test_a_body_that_is_too_large_to_rewrite_is_413():
    with pytest.raises(BodyTooLargeError):
        REWRITING.rewrite(request(None, oversize=True, replaceable=False), "")
