import msgspec
import pytest

from extproc.settings_file import SettingsError, decode, load


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: int


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: list[Inner]


def test_settings_are_decoded_from_yaml():
    assert decode(b"items: [{port: 1}]", Outer, source="a.yaml") == Outer([Inner(1)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"items: [{port: 1, prot: 2}]", "a.yaml: items[0]: Object contains unknown field `prot`"),
        (b"items: [{port: x}]", "a.yaml: items[0].port: Expected `int`, got `str`"),
        (b"itemz: []", "a.yaml: Object contains unknown field `itemz`"),
        (b"items: [", "a.yaml: is not YAML"),
        (b"", "a.yaml: Expected `object`, got `null`"),
    ],
)
def test_an_error_names_the_file_the_key_and_the_rule(text, message):
    with pytest.raises(SettingsError) as caught:
        decode(text, Outer, source="a.yaml")
    assert str(caught.value).startswith(message)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"absent.yaml: cannot be read: No such file"):
        load(tmp_path / "absent.yaml", Outer)


def test_a_file_is_loaded(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("items: []")
    assert load(path, Outer) == Outer([])
