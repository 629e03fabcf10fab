from dataclasses import replace

import pytest

from tests.tokenext.models import fake_model
from tokenext.catalog import Catalog, digest
from tokenext.profiles import InexactReason


def test_a_model_is_found_by_name_and_alias_and_by_nothing_else():
    model = fake_model("m", aliases=("org/M",))
    catalog = Catalog([model])
    assert catalog.find("m") is model
    assert catalog.find("org/M") is model
    assert catalog.find("m-lora") is None
    assert catalog.find("M") is None


@pytest.mark.parametrize(("name", "aliases"), [("m", ()), ("n", ("m",)), ("n", ("a",))])
def test_one_name_for_two_models_is_refused(name, aliases):
    with pytest.raises(ValueError, match="names two models"):
        Catalog([fake_model("m", aliases=("a",)), fake_model(name, aliases=aliases)])


def test_a_digest_has_the_form_that_the_record_promises():
    assert digest(b"t", {}, {}, {}).startswith("sha256:")
    assert len(digest(b"t", {}, {}, {})) == len("sha256:") + 64


def test_the_digest_changes_with_everything_that_decides_the_ids():
    base = (b"t", {"default": "a"}, {"eos_token": "e"}, {"k": 1})
    others = [
        (b"T", *base[1:]),
        (base[0], {"tool_use": "a"}, *base[2:]),
        (base[0], {"default": "b"}, *base[2:]),
        (*base[:2], {"bos_token": "e"}, base[3]),
        (*base[:3], {"k": 2}),
    ]
    assert len({digest(*base), *(digest(*other) for other in others)}) == 6


def test_the_digest_does_not_depend_on_the_order_of_keys():
    assert digest(b"t", {}, {}, {"a": 1, "b": 2}) == digest(b"t", {}, {}, {"b": 2, "a": 1})


def test_a_doubted_model_is_the_same_but_for_the_doubt():
    catalog = Catalog([fake_model("m", aliases=("a",)), fake_model("n")])
    doubted = catalog.doubting({"m", "gone"})
    model = doubted.find("a")
    assert model is not None
    assert model.doubt is InexactReason.PARITY
    assert replace(model, doubt=None) == catalog.find("m")
    assert doubted.find("n") is catalog.find("n")
