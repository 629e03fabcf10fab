from pathlib import Path

import pytest

from tests.tokenext.model_dirs import write_model


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="session")
def begin_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer puts a token before every text that wants special tokens."""
    return write_model(tmp_path_factory.mktemp("models") / "begin", begin_with="<|endoftext|>")


@pytest.fixture(scope="session")
def truncating_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "truncating", truncate=True)
