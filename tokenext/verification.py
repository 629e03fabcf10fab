"""One round of probes: what tokenext makes of each, and what the engine makes of it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from extproc.token_metadata import TokenIds, TokenRecord
from tokenext.catalog import Model
from tokenext.declined import Declined
from tokenext.openai import parse, read_body
from tokenext.oracle import Answer, NotAsked, Oracle, OracleError, Refusal
from tokenext.parity import Agreement, ProbeResult, Report, judge
from tokenext.probe_corpus import Probe
from tokenext.tokenization import Stopwatch, tokenize

__all__ = ["verify"]


async def verify(model: Model, oracle: Oracle, probes: Sequence[Probe], *, engine_model: str) -> Report:
    """Ask the engine about every probe, one at a time, and compare. Never raises for what an engine does.

    `engine_model` is the name that the engine knows the model by. A model that is in doubt is probed as if it
    were not: that is how the doubt ends.
    """
    trusted = replace(model, doubt=None)
    results: list[ProbeResult] = []
    for probe in probes:
        body = probe.body(engine_model)
        ours = await asyncio.to_thread(_ours, trusted, probe, body)
        try:
            answer = await oracle.ids(probe.api, body)
        except OracleError as error:
            return Report(tuple(results), str(error))
        results.append(_result(probe, len(body), ours, answer))
    equal = any(result.agreement is Agreement.EQUAL for result in results)
    return Report(tuple(results), "" if equal else _nothing_learnt(results))


def _nothing_learnt(results: Sequence[ProbeResult]) -> str:
    if any(result.agreement is Agreement.MISMATCH for result in results):
        return ""
    refused = [result for result in results if result.agreement is Agreement.REFUSED]
    if len(refused) * 2 > len(results):
        return f"the engine refuses {len(refused)} of {len(results)} probes ({refused[0].detail})"
    return "no probe could be compared"


def _ours(model: Model, probe: Probe, body: bytes) -> TokenRecord | str:
    """The record, or why there is none."""
    try:
        request_body = read_body(body)
        request = parse(probe.api, request_body)
        watch = Stopwatch(time.perf_counter)
        return tokenize(model, request, request_body, body_replaceable=False, watch=watch).record
    except Declined as declined:
        return declined.reason.value


def _result(probe: Probe, size: int, ours: TokenRecord | str, answer: Answer) -> ProbeResult:
    def result(agreement: Agreement, detail: str = "") -> ProbeResult:
        return ProbeResult(probe.number, probe.name, agreement, detail, size)

    if isinstance(answer, Refusal):
        return result(Agreement.REFUSED, str(answer.status))
    if isinstance(answer, NotAsked):
        return result(Agreement.NOT_ASKED)
    if isinstance(ours, str):
        return result(Agreement.DECLINED, ours)
    agreement = judge(ours.token_ids, answer, exact=ours.engine_exact)
    if agreement is Agreement.MISMATCH:
        return replace(
            result(agreement, _lengths(ours.token_ids, answer)), ours=ours.token_ids, theirs=answer
        )
    return result(agreement, ours.reason)


def _lengths(ours: TokenIds, theirs: TokenIds) -> str:
    return f"{len(ours)} ids here, {len(theirs)} there"
