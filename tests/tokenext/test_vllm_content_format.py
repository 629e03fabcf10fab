"""Templates with the content format that vLLM 0.32.0 itself detects for them (renderers/hf.py)."""

from pathlib import Path

import jinja2
import pytest
import yaml

from tokenext.content_format import ContentFormat
from tokenext.vllm_content_format import vllm_content_format

CASES = yaml.safe_load((Path(__file__).parent / "golden" / "content_formats.yaml").read_text())


def detected(source: str) -> ContentFormat:
    from tokenext.template_bounds import RenderBounds
    from tokenext.template_environment import template_environment

    environment = template_environment(now=lambda: None, bounds=RenderBounds())
    assert isinstance(environment, jinja2.Environment)
    return vllm_content_format(environment.parse(source))


@pytest.mark.parametrize("source", CASES["parts"].values(), ids=CASES["parts"])
def test_it_takes_parts(source):
    assert detected(source) is ContentFormat.PARTS


@pytest.mark.parametrize("source", CASES["string"].values(), ids=CASES["string"])
def test_it_takes_text(source):
    assert detected(source) is ContentFormat.STRING
