"""Looks for a request's token record, from the cheapest place to the dearest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from epp_adapter.records.body_ids import read_body_ids
from epp_adapter.records.tokenizer import CalloutError, CalloutFault, Tokenizer
from extproc import wellknown
from extproc.events import RequestReady
from extproc.token_metadata import RecordError, RecordFault, TokenRecord, decode, spent
from extproc.verdict import JsonValue

__all__ = ["Finding", "FoundRecord", "RecordFinder", "RecordSource", "RecordState"]

_TOKENIZED_PATHS: Final = frozenset({"/v1/chat/completions", "/v1/completions"})


class RecordSource(StrEnum):
    """Where a record was looked for; a metric label."""

    METADATA = "metadata"
    BODY = "body"
    CALLOUT = "callout"


class RecordState(StrEnum):
    """What came of a look, beside RecordFault and CalloutFault; a metric label."""

    USED = "used"
    ABSENT = "absent"
    FOREIGN_DIGEST = "foreign_digest"  # tokenized with other files than those the pool is said to have


@dataclass(frozen=True, slots=True)
class Finding:
    source: RecordSource
    outcome: RecordState | RecordFault | CalloutFault


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """`findings` has every place that was looked at, in order; the last one tells where `record` is from."""

    record: TokenRecord | None
    findings: tuple[Finding, ...]


_ABSENT: Final = Finding(RecordSource.METADATA, RecordState.ABSENT)


@dataclass(frozen=True, slots=True)
class RecordFinder:
    """Metadata first; then the body's own ids, if `trust_body_ids`; then `tokenizer`, if there is one.

    `trust_body_ids` is for chains in which tokenext stands before us and takes out what clients write there:
    without it a client could choose its worker by made-up ids. `digests` are the tokenizer digests that the
    pool is said to have, by model: a record with another one is not used. `models` bounds what a body may
    call its model, since that is logged: other names count as no name. `observe` hears of every finding.
    `take_ids_out`: nobody behind us reads the ids in the metadata.
    """

    namespace: str = wellknown.RECORD_NAMESPACE
    trust_body_ids: bool = False
    tokenizer: Tokenizer | None = None
    digests: Mapping[str, str] | None = None
    models: frozenset[str] = frozenset()
    observe: Callable[[Finding], None] = lambda _: None
    take_ids_out: bool = False

    async def find(self, request: RequestReady) -> FoundRecord:
        """Never raises for what a peer sends; a record is found or it is not."""
        record, finding = self._in_metadata(request)
        findings = [finding]
        if record is None and self.trust_body_ids and request.body:
            record, finding = self._in_body(request.headers.path, request.body)
            findings.append(finding)
        if record is None and self.tokenizer is not None and self._may_ask(request):
            record, finding = await self._asked_for(self.tokenizer, request)
            findings.append(finding)
        for each in findings:
            self.observe(each)
        return FoundRecord(record, tuple(findings))

    def left_behind(self, found: FoundRecord) -> Mapping[str, JsonValue]:
        """What stands in `namespace` from now on: the record without its ids, where one stood there."""
        if (
            not self.take_ids_out
            or found.record is None
            or found.findings[-1].source is not RecordSource.METADATA
        ):
            return {}
        return {wellknown.RECORD_KEY: spent(found.record)}

    def _in_metadata(self, request: RequestReady) -> tuple[TokenRecord | None, Finding]:
        value = request.metadata.get(self.namespace, wellknown.RECORD_KEY)
        if value is None:
            return None, _ABSENT
        try:
            return self._checked(decode(value), RecordSource.METADATA)
        except RecordError as error:
            return None, Finding(RecordSource.METADATA, error.fault)

    def _in_body(self, path: str, body: bytes) -> tuple[TokenRecord | None, Finding]:
        try:
            record = read_body_ids(path, body)
        except RecordError as error:
            return None, Finding(RecordSource.BODY, error.fault)
        if record is None:
            return None, Finding(RecordSource.BODY, RecordState.ABSENT)
        if record.model not in self.models:
            record = TokenRecord("", "", record.token_ids, record.kind, engine_exact=record.engine_exact)
        return record, Finding(RecordSource.BODY, RecordState.USED)

    @staticmethod
    def _may_ask(request: RequestReady) -> bool:
        headers = request.headers
        return bool(request.body) and headers.method == "POST" and headers.path in _TOKENIZED_PATHS

    async def _asked_for(
        self, tokenizer: Tokenizer, request: RequestReady
    ) -> tuple[TokenRecord | None, Finding]:
        try:
            record = await tokenizer.tokenize(request.headers.path, request.body or b"")
        except CalloutError as error:
            return None, Finding(RecordSource.CALLOUT, error.fault)
        return self._checked(record, RecordSource.CALLOUT)

    def _checked(self, record: TokenRecord, source: RecordSource) -> tuple[TokenRecord | None, Finding]:
        expected = (self.digests or {}).get(record.model)
        if expected is not None and record.tokenizer_digest != expected:
            return None, Finding(source, RecordState.FOREIGN_DIGEST)
        return record, Finding(source, RecordState.USED)
