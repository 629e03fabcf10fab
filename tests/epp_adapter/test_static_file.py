import asyncio
import logging

import pytest

from epp_adapter.discovery.static_file import EndpointFile, ReloadOutcome
from epp_adapter.endpoints import Endpoint
from extproc.settings_file import SettingsError

ONE = "endpoints:\n- {address: 127.0.0.1:8001}\n"
TWO = "endpoints:\n- {address: 127.0.0.1:8001}\n- {address: 127.0.0.1:8002}\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "endpoints.yaml"


@pytest.fixture
def outcomes():
    return []


def endpoints_of(text: str, path) -> tuple[Endpoint, ...]:
    path.write_text(text)
    return EndpointFile(path, lambda outcome: None).current().endpoints


@pytest.mark.parametrize("written", ["16674052856592351092", '"16674052856592351092"'])
def test_an_instance_id_is_a_u64_as_number_or_decimal_string(path, written):
    text = f"endpoints:\n- {{address: 127.0.0.1:8001, dynamo_instance_id: {written}}}\n"
    assert endpoints_of(text, path) == (Endpoint("127.0.0.1:8001", 16674052856592351092),)


def test_no_endpoints_are_a_valid_set(path):
    assert endpoints_of("endpoints: []", path) == ()


def test_addresses_are_kept_in_their_one_spelling(path):
    text = 'endpoints: [{address: "[0:0::1]:8001"}]'
    assert endpoints_of(text, path)[0].address == "[::1]:8001"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpoints: [{address: worker:80}]", "endpoints[0].address: is not ip:port; host names"),
        (
            "endpoints: [{address: 127.0.0.1:80}, {address: 127.0.0.1:080}]",
            "endpoints[1].address: 127.0.0.1:80 stands here twice",
        ),
        (
            """endpoints: [{address: 127.0.0.1:80, dynamo_instance_id: 7},
                           {address: 127.0.0.1:81, dynamo_instance_id: "7"}]""",
            "endpoints[1].dynamo_instance_id: 7 stands here twice",
        ),
        (
            "endpoints: [{address: 127.0.0.1:80, dynamo_instance_id: -1}]",
            "endpoints[0].dynamo_instance_id: is not in the range",
        ),
        (
            "endpoints: [{address: 127.0.0.1:80, dynamo_instance_id: 18446744073709551616}]",
            "endpoints[0].dynamo_instance_id: is not in the range",
        ),
        (
            'endpoints: [{address: 127.0.0.1:80, dynamo_instance_id: "0x1f"}]',
            "endpoints[0].dynamo_instance_id: is not a decimal number",
        ),
        (
            f'endpoints: [{{address: 127.0.0.1:80, dynamo_instance_id: "{"9" * 5000}"}}]',
            "endpoints[0].dynamo_instance_id: is not a decimal number",
        ),
        ("endpoints: [{address: 127.0.0.1:80, weight: 3}]", "endpoints[0]: Object contains unknown field"),
        ("endpoints: [{}]", "endpoints[0]: Object missing required field `address`"),
        ("endpoint: []", "Object contains unknown field `endpoint`"),
        ("[]", "Expected `object`"),
        ("{", "is not YAML"),
        ("", "Expected `object`"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_file_key_and_rule(path, text, message):
    with pytest.raises(SettingsError) as caught:
        endpoints_of(text, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_missing_file_is_refused_by_name(path):
    with pytest.raises(SettingsError, match=r"endpoints\.yaml: cannot be read: No such file"):
        EndpointFile(path, lambda outcome: None)


async def test_a_changed_file_replaces_the_endpoints_whole(path, outcomes):
    path.write_text(ONE)
    source = EndpointFile(path, outcomes.append)
    before = source.current()
    path.write_text(TWO)
    await source.poll()
    assert len(before.endpoints) == 1
    assert len(source.current().endpoints) == 2
    assert outcomes == [ReloadOutcome.APPLIED]


async def test_an_unchanged_file_is_no_reload(path, outcomes):
    path.write_text(ONE)
    source = EndpointFile(path, outcomes.append)
    path.write_text(ONE)
    await source.poll()
    assert outcomes == []


async def test_a_file_of_the_same_size_and_time_is_still_seen_to_differ(path, outcomes):
    path.write_text(ONE)
    source = EndpointFile(path, outcomes.append)
    path.write_text(ONE.replace("8001", "8009"))
    await source.poll()
    assert source.current().endpoints[0].address == "127.0.0.1:8009"


@pytest.mark.parametrize("harm", ["endpoints: [{address: nowhere:80}]", "endpoints: [", None])
async def test_a_bad_reload_keeps_the_last_good_endpoints_and_is_told_once(path, outcomes, caplog, harm):
    path.write_text(ONE)
    source = EndpointFile(path, outcomes.append)
    if harm is None:
        path.unlink()
    else:
        path.write_text(harm)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            await source.poll()
    assert outcomes == [ReloadOutcome.REFUSED]
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]
    assert source.current().endpoints[0].address == "127.0.0.1:8001"

    path.write_text(TWO)
    await source.poll()
    assert outcomes == [ReloadOutcome.REFUSED, ReloadOutcome.APPLIED]
    assert len(source.current().endpoints) == 2


async def test_a_symlink_that_is_swapped_is_followed(tmp_path, path, outcomes):
    """Kubernetes updates a mounted ConfigMap by swapping a symlink above the file."""
    for name, text in (("v1", ONE), ("v2", TWO)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "endpoints.yaml").write_text(text)
    current = tmp_path / "..data"
    current.symlink_to("v1")
    path.symlink_to("..data/endpoints.yaml")
    source = EndpointFile(path, outcomes.append)
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").replace(current)
    await source.poll()
    assert len(source.current().endpoints) == 2


async def test_watching_picks_up_changes_by_itself(path, outcomes):
    path.write_text(ONE)
    source = EndpointFile(path, outcomes.append)
    watching = asyncio.create_task(source.watch(0.01))
    path.write_text(TWO)
    async with asyncio.timeout(5):
        while not outcomes:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.wait([watching])
    assert len(source.current().endpoints) == 2
