"""The status page of tokenext: what an operator looks for first."""

from tests.tokenext.models import fake_model
from tokenext.breaker import BreakerOptions, Breakers
from tokenext.catalog import Catalog
from tokenext.conversations import ConversationSnapshot
from tokenext.prefix_tree import PrefixSnapshot
from tokenext.status_page import sections

CATALOG = Catalog([fake_model("m", aliases=("alias",)), fake_model("other")])


def shown(breakers=None, outcomes=None, prefixes=None, conversations=None, catalog=CATALOG):
    breakers = breakers or Breakers(BreakerOptions(failures=1), lambda *_: None)
    return {
        section.title: section
        for section in sections(catalog, breakers, outcomes or {}, prefixes, conversations)
    }


def cells(section, row=0):
    return dict(zip(section.columns, map(str, section.rows[row]), strict=True))


def test_every_model_is_there_with_its_engine_and_its_digest():
    models = shown()["Models"]
    assert [row[0] for row in models.rows] == ["m", "other"]
    assert cells(models)["other names"] == "alias"
    assert cells(models)["digest"].startswith("sha256:")


def test_a_breaker_and_a_doubt_are_seen():
    breakers = Breakers(BreakerOptions(failures=1), lambda *_: None)
    breakers.of("m").failed(0.0)
    models = shown(breakers, catalog=CATALOG.doubting({"m"}))["Models"]
    assert cells(models)["breaker"] == "open"
    assert cells(models)["parity"].startswith("doubted")
    assert cells(models, 1)["breaker"] == "closed"


def test_the_most_frequent_outcome_comes_first():
    outcomes = {("m", "passed", "deadline"): 2.0, ("m", "tokenized", ""): 12_345.0}
    assert [row[-1] for row in shown(outcomes=outcomes)["Requests since the start"].rows] == ["12,345", "2"]


def test_caches_that_are_off_have_no_row():
    assert shown()["Caches"].rows == []
    prefixes = PrefixSnapshot(hits=3, partial_hits=4, misses=1, bytes=1 << 20, budget_bytes=64 << 20)
    caches = shown(prefixes=prefixes, conversations=ConversationSnapshot(5, 6, 0, 2, 1 << 19, 1 << 24))[
        "Caches"
    ]
    assert cells(caches)["found"] == "7"
    assert cells(caches)["of"] == "64.0 MiB"
    assert (cells(caches, 1)["found"], cells(caches, 1)["not found"]) == ("5", "6")
