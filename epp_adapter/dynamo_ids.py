"""The instance id that Dynamo gives to a worker it discovers as a Kubernetes pod.

Dynamo 1.6 (lib/runtime, discovery/kube/utils.rs) hashes the pod's name as Rust's DefaultHasher does:
SipHash-1-3 with a zero key over the name's UTF-8 bytes and one byte 0xFF. It keeps the low 53 bits, so that
the id survives as a double. Whoever knows a pod's name therefore knows the id of the worker in it.
"""

from typing import Final

__all__ = ["dynamo_instance_id_of_pod", "siphash_1_3"]

_U64: Final = 2**64 - 1
_SAFE_INTEGER: Final = 2**53 - 1
_WORD: Final = 8
# "somepseudorandomlygeneratedbytes": the initial state of SipHash for a zero key.
_INITIAL: Final = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)

_State = tuple[int, int, int, int]


def dynamo_instance_id_of_pod(pod_name: str, container: str = "main") -> int:
    """`container` counts where Dynamo discovers containers (DYN_KUBE_DISCOVERY_MODE), unless it is `main`."""
    name = pod_name if container == "main" else f"{pod_name}-{container}"
    return siphash_1_3(name.encode() + b"\xff") & _SAFE_INTEGER


def siphash_1_3(data: bytes) -> int:
    """SipHash with one round per word and three at the end, key 0; a u64."""
    whole = len(data) - len(data) % _WORD
    state: _State = _INITIAL
    for start in range(0, whole, _WORD):
        state = _compress(state, int.from_bytes(data[start : start + _WORD], "little"))
    last = int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56
    v0, v1, v2, v3 = _compress(state, last)
    state = (v0, v1, v2 ^ 0xFF, v3)
    for _ in range(3):
        state = _round(state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _compress(state: _State, word: int) -> _State:
    v0, v1, v2, v3 = _round((*state[:3], state[3] ^ word))
    return v0 ^ word, v1, v2, v3


def _round(state: _State) -> _State:
    v0, v1, v2, v3 = state
    v0 = (v0 + v1) & _U64
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 = (v2 + v3) & _U64
    v3 = _rotate(v3, 16) ^ v2
    v0 = (v0 + v3) & _U64
    v3 = _rotate(v3, 21) ^ v0
    v2 = (v2 + v1) & _U64
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _U64
