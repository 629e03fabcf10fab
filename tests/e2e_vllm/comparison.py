"""Three tellings of one request's ids, and whether they agree.

(a) the record that tokenext attached, (b) what vLLM ran when the request came through the chain, (c) what
vLLM made of the same request by itself, asked past the chain.
"""

from dataclasses import dataclass
from enum import StrEnum

from tests.e2e_vllm.engine_reply import EngineReply, Ids
from tests.e2e_vllm.request import Expected, Request

__all__ = ["Attached", "Finding", "Judged", "Seen", "judge", "judge_foreign"]


@dataclass(frozen=True, slots=True)
class Attached:
    """What tokenext did with a request: the record's ids, None without a record, and why not more."""

    ids: Ids | None
    exact: bool
    handed_over: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One request on both ways. `chain_first`: the way past the chain came second, on a warm prefix cache."""

    request: Request
    attached: Attached
    chain: EngineReply
    past: EngineReply
    chain_first: bool


class Finding(StrEnum):
    """What became of a request."""

    HANDED = "handed over"  # exact, handed over, and all three agree
    OWN_IDS = "own ids"  # the client's own ids: exact, and nothing to hand over
    KEPT = "kept"  # exact and equal, but this engine takes no ids for such a request
    NOT_EXACT = "not exact"  # the record promises nothing
    UNTOKENIZED = "untokenized"  # no record
    REFUSED = "refused"  # vLLM answers with an error, on both ways the same
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class Judged:
    """`problem` says what disagrees, and is empty unless that is so."""

    seen: Seen
    finding: Finding
    problem: str = ""


def judge(seen: Seen) -> Judged:
    """The finding for a request; whatever tokenext was to do with it counts too."""
    problem = _disagreement(seen) or _surprise(seen)
    if problem:
        return Judged(seen, Finding.MISMATCH, problem)
    attached = seen.attached
    if seen.past.status != 200:
        return Judged(seen, Finding.REFUSED)
    if attached.ids is None:
        return Judged(seen, Finding.UNTOKENIZED)
    if not attached.exact:
        return Judged(seen, Finding.NOT_EXACT)
    if attached.handed_over:
        return Judged(seen, Finding.HANDED)
    return Judged(seen, Finding.OWN_IDS if seen.request.expected is Expected.OWN_IDS else Finding.KEPT)


def _disagreement(seen: Seen) -> str:
    chain, past, attached = seen.chain, seen.past, seen.attached
    if chain.status != past.status:
        return (
            f"status {chain.status} through the chain ({chain.error}), {past.status} past it ({past.error})"
        )
    if past.status != 200:
        return (
            ""
            if chain.error == past.error
            else f"error {chain.error!r} through the chain, {past.error!r} past it"
        )
    if seen.request.echoes and not (past.prompts and chain.prompts):
        return "vLLM echoed no ids"
    if chain.prompts != past.prompts:
        return f"vLLM ran other ids through the chain: {_difference(chain.prompts, past.prompts)}"
    if chain.prompt_tokens != past.prompt_tokens:
        return f"usage {chain.prompt_tokens} through the chain, {past.prompt_tokens} past it"
    if attached.exact and seen.request.echoes and (attached.ids,) != past.prompts:
        return f"the record's ids are not vLLM's: {_difference((attached.ids or (),), past.prompts)}"
    if attached.handed_over and not attached.exact:
        return "ids were handed over that promise nothing"
    return ""


def _surprise(seen: Seen) -> str:
    attached, expected = seen.attached, seen.request.expected
    if expected is Expected.HANDED and not attached.handed_over:
        return f"was to be handed over, and was not: {attached.reason or 'no reason'}"
    if expected is Expected.LEFT and attached.handed_over:
        return "was to be left to the engine, and was handed over"
    if expected is Expected.OWN_IDS and not (attached.exact and not attached.handed_over):
        return f"a client's own ids need an exact record and no more: {attached.reason or 'no reason'}"
    return ""


def judge_foreign(seen: Seen) -> Judged:
    """For ids that vLLM would never make itself: it must have run exactly those, and counted those."""
    chain, past, ids = seen.chain, seen.past, seen.attached.ids
    checks = {
        "both are answered": chain.status == past.status == 200,
        "the ids are handed over": seen.attached.handed_over,
        "vLLM ran the record's ids": chain.prompts == (ids,),
        "vLLM would have made others": past.prompts != (ids,),
        "usage counts the record's ids": chain.prompt_tokens in (None, len(ids or ())),
        "usage would have been another": past.prompt_tokens != len(ids or ()),
    }
    failed = [what for what, holds in checks.items() if not holds]
    if failed:
        return Judged(seen, Finding.MISMATCH, f"does not hold: {', '.join(failed)}")
    return Judged(seen, Finding.HANDED)


def _difference(ours: tuple[Ids, ...], theirs: tuple[Ids, ...]) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} prompts against {len(theirs)}"
    first, second = next(pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1])
    at = next(
        (index for index, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    return f"{len(first)} against {len(second)} ids, the first difference at {at}"
