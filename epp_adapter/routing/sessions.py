"""Sessions: which endpoint served a client's session before. Pure; bounded in number and in time."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Final

from epp_adapter.endpoints import AddressError, canonical_address

__all__ = ["SessionTable", "decode_token", "encode_token"]

_MAX_TOKEN: Final = 256


def encode_token(address: str) -> str:
    """The session token that a client gets: its endpoint's address in URL-safe base64."""
    return urlsafe_b64encode(address.encode()).decode("ascii")


def decode_token(token: str) -> str | None:
    """The address in a token; None for whatever is no token of ours."""
    if not token or len(token) > _MAX_TOKEN:
        return None
    try:
        return canonical_address(urlsafe_b64decode(token.encode()).decode())
    except (AddressError, Base64Error, ValueError):
        return None


class _Session:
    __slots__ = ("address", "misses", "used_at")

    def __init__(self, address: str, used_at: float) -> None:
        self.address = address
        self.used_at = used_at
        self.misses = 0


class SessionTable:
    """Owns the bindings of client-chosen session ids to endpoints.

    A binding that is not used for `ttl_seconds` is forgotten, and the longest unused one when there are more
    than `max_sessions`. Ids are kept as digests, so that a client cannot choose how much memory one takes.
    """

    def __init__(
        self, ttl_seconds: float = 600.0, miss_threshold: int = 3, max_sessions: int = 100_000
    ) -> None:
        self._ttl = ttl_seconds
        self._miss_threshold = miss_threshold
        self._max = max_sessions
        self._sessions: dict[bytes, _Session] = {}
        self._bound: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def wanted(self, session_id: str, addresses: Sequence[str], now: float) -> str | None:
        """The candidate that the session should go to; None where its endpoint is away for a short while.

        A session that is new, or whose endpoint was away for `miss_threshold` requests in a row, goes to the
        candidate with the fewest sessions.
        """
        self._expire(now)
        session = self._sessions.get(_digest(session_id))
        if session is not None:
            if session.address in addresses:
                session.misses = 0
                return session.address
            session.misses += 1
            if session.misses < self._miss_threshold:
                return None
        return min(addresses, key=lambda address: self._bound.get(address, 0), default=None)

    def served(self, session_id: str, address: str, now: float) -> None:
        """The session's request went to this endpoint. While it waits for another one, it stays with that."""
        key = _digest(session_id)
        session = self._sessions.pop(key, None)
        if session is None or (session.address != address and session.misses >= self._miss_threshold):
            if session is not None:
                self._unbind(session.address)
            session = _Session(address, now)
            self._bound[address] = self._bound.get(address, 0) + 1
        session.used_at = now
        self._sessions[key] = session
        if len(self._sessions) > self._max:
            self._drop_oldest()

    def _expire(self, now: float) -> None:
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if now - oldest.used_at <= self._ttl:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        key = next(iter(self._sessions))
        self._unbind(self._sessions.pop(key).address)

    def _unbind(self, address: str) -> None:
        self._bound[address] -= 1
        if not self._bound[address]:
            del self._bound[address]


def _digest(session_id: str) -> bytes:
    return hashlib.blake2b(session_id.encode(errors="surrogatepass"), digest_size=16).digest()
