import pytest

from epp_adapter.passive_health import HealthOptions
from epp_adapter.settings import parse_settings
from extproc.settings_file import SettingsError

BASE = """\
listen: 127.0.0.1:9002
strategies: {round-robin: {kind: round-robin}}
default_strategy: round-robin
"""
POOL = "endpoints: {pool: {name: p, api_server: 'http://127.0.0.1:8080'%s}}\n"


def parse(text):
    return parse_settings((BASE + text).encode(), source="epp.yaml")


def test_a_file_or_a_pool():
    assert parse("endpoints: {file: e.yaml}").endpoints.pool is None
    assert parse(POOL % "").endpoints.pool.rules


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("endpoints: {}", "endpoints: give either file or pool"),
        ("endpoints: {file: e.yaml, pool: {name: p}}", "endpoints: give either file or pool"),
        (POOL % ", kubeconfig: k", "endpoints.pool: give either kubeconfig or api_server"),
        ("endpoints: {pool: {name: p, api_server: nowhere}}", "endpoints.pool.api_server: is not ip:port"),
        (
            POOL % "" + "objectives: {batch: -1}",
            "objectives, model_rewrites: the pool's own objects say this",
        ),
        (POOL % ", rulez: true", "unknown field `rulez`"),
        ("endpoints: {file: e}\nscrape: {engine: triton}", "scrape.engine"),
        ("endpoints: {file: e}\nscrape: {port: 70000}", "scrape.port"),
        ("endpoints: {file: e}\nhealth: {failures: 0}", "health.failures"),
        ("endpoints: {file: e}\nhealth: {timeouts: 0}", "health.timeouts"),
        ("endpoints: {file: e}\nhealth: {timeouts: 1.5}", "health.timeouts"),
        ("endpoints: {file: e}\nhealth: {probe_path: health}", "health.probe_path"),
        ("endpoints: {file: e}\nmodel_rewrites: [{targets: []}]", "model_rewrites"),
        ("endpoints: {file: e}\ndestination_fallbacks: 17", "destination_fallbacks"),
    ],
)
def test_a_mistake_names_its_key(text, problem):
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert problem in str(caught.value)


def test_what_the_pool_does_not_say_the_settings_may():
    settings = parse(POOL % ", rules: false" + "objectives: {batch: -1}")
    assert settings.objectives == {"batch": -1}


def test_setting_aside_is_never_for_less_than_it_begins_with():
    options = parse("endpoints: {file: e}\nhealth: {base_seconds: 20}").health.options()
    assert (options.base_seconds, options.max_seconds) == (20.0, 20.0)


def test_how_many_failures_and_timeouts_set_an_endpoint_aside():
    assert parse("endpoints: {file: e}").health.options() == HealthOptions(1, 1.0, 5.0, timeouts=2)
    options = parse("endpoints: {file: e}\nhealth: {failures: 4, timeouts: 3}").health.options()
    assert (options.failures, options.timeouts) == (4, 3)
