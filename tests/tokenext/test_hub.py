import huggingface_hub
import pytest
from huggingface_hub import errors

from extproc.settings_file import SettingsError
from tokenext.hub import locate


def problem(source: str) -> str:
    with pytest.raises(SettingsError) as caught:
        locate(source, source="t.yaml", key="models[0].source")
    return str(caught.value)


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """Stands in for the hub: records what is asked for."""
    asked: list[dict] = []

    def snapshot_download(repository: str, **options: object) -> str:
        asked.append({"repository": repository, **options})
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def failing(monkeypatch, error: Exception) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def test_a_directory_is_taken_as_it_is(tmp_path, downloads):
    assert locate(str(tmp_path), source="t.yaml", key="k") == tmp_path
    assert downloads == []


def test_a_hub_id_is_fetched_without_weights_at_its_revision(tmp_path, downloads):
    assert locate("org/name@v1.0/x", source="t.yaml", key="k") == tmp_path
    (asked,) = downloads
    assert (asked["repository"], asked["revision"]) == ("org/name", "v1.0/x")
    assert "tokenizer.json" in asked["allow_patterns"]
    assert not any("safetensors" in pattern or pattern == "*" for pattern in asked["allow_patterns"])


@pytest.mark.parametrize(
    "source", ["/no/such/directory", "./models/x", "name", "a b/c", "org/name@", "../x/y"]
)
def test_what_is_neither_is_said_to_be_neither(source, downloads):
    assert problem(source) == (
        f"t.yaml: models[0].source: {source!r} is neither a directory nor a hub id (org/name[@revision])"
    )
    assert downloads == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.HFValidationError("x"), "is not a hub id"),
        (errors.LocalEntryNotFoundError("x"), "the hub cannot be reached"),
        (OSError("no route"), "the hub cannot be reached"),
    ],
)
def test_the_hubs_errors_become_one_sentence(monkeypatch, error, expected):
    failing(monkeypatch, error)
    assert problem("org/name@main").startswith("t.yaml: models[0].source: org/name@main ")
    assert expected in problem("org/name@main")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.GatedRepoError, "is gated"),
        (errors.RepositoryNotFoundError, "does not exist on the hub, or is private"),
        (errors.RevisionNotFoundError, "check the revision"),
    ],
)
def test_what_the_hub_refuses_is_told_apart(monkeypatch, kind, expected):
    failing(monkeypatch, kind.__new__(kind))
    assert expected in problem("org/name")


def test_offline_without_a_cache_is_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "the hub cannot be reached" in problem("org/name-that-is-not-there")
