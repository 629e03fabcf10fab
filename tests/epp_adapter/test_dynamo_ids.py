import os
import subprocess
import sys

import pytest

from epp_adapter.dynamo_ids import dynamo_instance_id_of_pod, siphash_1_3

SAMPLES = [
    b"",
    b"a",
    b"1234567",
    b"12345678",
    b"123456789",
    b"x" * 300,
    *(bytes(range(n)) for n in range(1, 20)),
]


def test_siphash_equals_cpythons_own():
    """CPython hashes bytes by SipHash-1-3, and with PYTHONHASHSEED=0 by a zero key."""
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip("this Python hashes otherwise")
    program = f"print(*(hash(sample) % 2**64 for sample in {SAMPLES[1:]!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        check=True,
    )
    assert [siphash_1_3(sample) for sample in SAMPLES[1:]] == [int(word) for word in done.stdout.split()]


# What ai-dynamo-runtime 1.6.1 says itself (Endpoint.connection_id), run with discovery kubernetes, this
# POD_NAME and an API server that lists nothing.
DYNAMOS_OWN = {"vllm-agg-decode-5c8d7f9b6-x2x4z": 1824506723123880, "p": 4605646065096547}


@pytest.mark.parametrize(("name", "number"), DYNAMOS_OWN.items())
def test_an_id_is_the_one_dynamo_gives(name, number):
    assert dynamo_instance_id_of_pod(name) == number


@pytest.mark.parametrize(
    "name", ["vllm-agg-decode-5c8d7f9b6-x2x4z", "p", "a-pod-with-a-name-of-more-than-eight-bytes"]
)
def test_an_id_survives_as_a_double_and_is_the_names_own(name):
    number = dynamo_instance_id_of_pod(name)
    assert int(float(number)) == number == siphash_1_3(name.encode() + b"\xff") % 2**53
    assert number != dynamo_instance_id_of_pod(name + "0")


def test_a_container_has_an_id_of_its_own_unless_it_is_main():
    assert dynamo_instance_id_of_pod("p", "main") == dynamo_instance_id_of_pod("p")
    assert dynamo_instance_id_of_pod("p", "shadow") == dynamo_instance_id_of_pod("p-shadow")
    assert dynamo_instance_id_of_pod("p", "shadow") == 0x14A4BEBDBB6FE5, "as Dynamo 1.6.1 logs it"
