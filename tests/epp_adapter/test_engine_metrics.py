import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp_adapter.engine_metrics import ENGINES, read_load
from epp_adapter.routing.load import EndpointLoad

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
# HELP vllm:num_requests_waiting Number of requests waiting; see vllm:num_requests_running 99
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 77.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="8192"} 1.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="old",waiting_lora_adapters=""} 1.7e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a, b",waiting_lora_adapters="c"} 1.7000001e+09
vllm:time_to_first_token_seconds_bucket{le="0.1"} 5.0
"""
SGLANG = b"""\
sglang:num_running_reqs{model_name="m"} 3.0
sglang:num_queue_reqs{model_name="m"} 2.0
sglang:token_usage{model_name="m"} 0.25
sglang:cache_config_info{page_size="64",num_pages="100"} 1.0
"""
TRTLLM = b"""\
trtllm_num_requests_running 3
trtllm_num_requests_waiting 2
trtllm_kv_cache_utilization 0.25
trtllm_kv_cache_tokens_per_block 32
trtllm_kv_cache_max_blocks 100
"""


def read(page, engine="vllm"):
    return read_load(page, ENGINES[engine], now=7.0)


def test_vllm():
    assert read(VLLM) == EndpointLoad(
        waiting=2,
        running=3,
        kv_utilization=0.25,
        updated_at=7.0,
        active_adapters=frozenset({"a", "b"}),
        waiting_adapters=frozenset({"c"}),
        max_adapters=4,
        block_size=16,
        num_blocks=8192,
    )


@pytest.mark.parametrize(
    ("engine", "page", "block_size"), [("sglang", SGLANG, 64), ("trtllm-serve", TRTLLM, 32)]
)
def test_other_engines(engine, page, block_size):
    assert read(page, engine) == EndpointLoad(2, 3, 0.25, 7.0, block_size=block_size, num_blocks=100)


def test_the_engines_cores_are_one_endpoint():
    page = VLLM + VLLM.replace(b'engine="0"', b'engine="1"').replace(b"} 0.25", b"} 0.75")
    load = read(page)
    assert (load.waiting, load.running, load.kv_utilization) == (4, 6, 0.5)


def test_an_older_name_is_known():
    assert read(VLLM.replace(b"kv_cache_usage", b"gpu_cache_usage")).kv_utilization == 0.25


@pytest.mark.parametrize("line", VLLM.splitlines()[2:8:2])
def test_a_page_that_lacks_one_of_the_three_is_no_reading(line):
    name = line.partition(b"{")[0]
    if name in (b"vllm:num_requests_running", b"vllm:num_requests_waiting", b"vllm:kv_cache_usage_perc"):
        assert read(VLLM.replace(b"\n" + name + b"{", b"\nanother{")) is None


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-1", b"", b"x", b"} 3"])
def test_odd_values_are_none(value):
    page = VLLM.replace(
        b'vllm:num_requests_waiting{engine="0",model_name="m"} 2.0', b"vllm:num_requests_waiting " + value
    )
    if value == b"} 3":
        assert read(page).waiting == 3
    else:
        assert read(page) is None


def test_a_timestamp_may_follow_and_the_last_line_need_not_end():
    page = (
        b"vllm:num_requests_waiting 2 1700000000000\nvllm:num_requests_running 3\nvllm:kv_cache_usage_perc 1"
    )
    assert read(page) == EndpointLoad(2, 3, 1.0, 7.0)


def test_what_a_cache_does_not_know_yet_is_0():
    assert read(VLLM.replace(b'num_gpu_blocks="8192"', b'num_gpu_blocks="None"')).num_blocks == 0


def test_labels_may_hold_anything():
    page = VLLM.replace(b'model_name="m"', b'model_name="a } 9 \\" b\\\\"')
    assert read(page) == read(VLLM)


@given(st.binary(max_size=300), st.integers(0, len(VLLM)))
def test_no_page_breaks_it(noise, at):
    read(VLLM[:at] + noise + VLLM[at:])
    read(noise)
