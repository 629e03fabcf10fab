"""The run in tables, for the terminal and for docs/e2e-vllm.md alike."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.e2e_vllm.comparison import Finding, Judged
from tests.e2e_vllm.engine_reply import EngineReply
from tests.e2e_vllm.vllm_server import BLOCK_SIZE, FLAGS
from tokenext.parity import Agreement, Report
from tokenext.parity import Finding as ParityFinding

__all__ = ["REQUIRED", "Run", "holds", "markdown", "plain", "problems", "summary"]

REQUIRED: Final = 300  # requests whose ids were handed over and are equal
SHOWN: Final = 20

_INTRODUCTION: Final = """\
Written by `make e2e-vllm` on {day}; do not edit. The model is a small Qwen3 with random weights on the real
Qwen3 tokenizer and chat template. Each request (seed {seed}) goes to vLLM twice, through the chain (Envoy,
tokenext, epp_adapter) and past it, with `return_token_ids: true`. Compared are (a) the ids in the token
record, (b) the ids that vLLM ran when asked through the chain, (c) the ids that it computed by itself; and
the errors of both ways."""
_REQUESTS: Final = """\
handed over: the record is exact, vLLM was given its ids, and all three agree. own ids: the client sent ids.
kept: exact and equal, but vLLM takes no ids for such a request. not exact, untokenized: vLLM tokenized; the
reasons are below. refused: vLLM answers with an error, in the same words on both ways."""
_FOREIGN: Final = """\
tokenext was given another chat template, and a tokenizer that puts a token in front of completions. vLLM
would never make these ids by itself; it ran them, and its usage counts them."""
_VERIFY: Final = """\
Its own probes, past the chain, at the render endpoints (--enable-scale-out) and at /tokenize, which reads
fewer fields."""
_CACHE: Final = f"""\
Cached tokens of the second of each two, in whole blocks of {BLOCK_SIZE} (the last token is always
computed). What our ids put into the cache is found by vLLM's own, and the other way round. A request for
prompt_logprobs reads no cache."""

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """`judged` is of the true model, `foreign` of another template, `turns` of a conversation that grows.

    `probed` is what `tokenext verify` found, by the way that it asked.
    """

    versions: Mapping[str, str]
    seed: int
    judged: Sequence[Judged]
    foreign: Sequence[Judged]
    turns: Sequence[EngineReply]
    probed: Mapping[str, Report]

    @property
    def mismatches(self) -> list[Judged]:
        return [each for each in (*self.judged, *self.foreign) if each.finding is Finding.MISMATCH]

    def count(self, finding: Finding) -> int:
        return sum(each.finding is finding for each in self.judged)


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    text: str
    head: Row
    rows: Sequence[Row]


def holds(run: Run) -> bool:
    """Whether all that the run is there to show was shown."""
    return (
        not run.mismatches
        and run.count(Finding.HANDED) >= REQUIRED
        and len(run.foreign) > 0
        and all(reply.status == 200 for reply in run.turns)
        and all(report.finding is ParityFinding.CLEAN for report in run.probed.values())
    )


def summary(run: Run) -> str:
    """One line."""
    proved = sum(each.finding is Finding.HANDED for each in run.foreign)
    return (
        f"e2e-vllm: {len(run.mismatches)} mismatches in {len(run.judged)} requests sent both ways: "
        f"{run.count(Finding.HANDED)} with ids handed over and equal (at least {REQUIRED} required); "
        f"vLLM ran foreign ids {proved} of {len(run.foreign)} times: {'passed' if holds(run) else 'FAILED'}"
    )


def problems(run: Run) -> Iterator[str]:
    for way, found in run.probed.items():
        if found.finding is not ParityFinding.CLEAN:
            smallest = found.smallest_mismatch
            said = found.problem if smallest is None else f"probe {smallest.number}, {smallest.name}"
            yield f"tokenext verify by {way}: {found.finding}: {said}"
    for each in run.mismatches[:SHOWN]:
        yield f"{each.seen.request.name}: {each.problem}"
    if len(run.mismatches) > SHOWN:
        yield f"... and {len(run.mismatches) - SHOWN} more"


def plain(run: Run) -> str:
    """For a terminal."""
    return "\n\n".join(_in_columns(table) for table in _tables(run))


def markdown(run: Run, day: str) -> str:
    """The page docs/e2e-vllm.md, which tells nothing of the machine but its versions."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    parts = [
        "# tokenext in front of a real vLLM",
        _INTRODUCTION.format(day=day, seed=run.seed),
        f"**{summary(run)}**",
        f"{versions}.\n\n`vllm serve` with `{' '.join(FLAGS)}`.",
        *(_as_markdown(table) for table in _tables(run)),
    ]
    return "\n\n".join(parts) + "\n"


def _tables(run: Run) -> Iterator[_Table]:
    found = list(Finding)
    kinds = list(dict.fromkeys(each.seen.request.kind for each in run.judged))
    counts = Counter((each.seen.request.kind, each.finding) for each in run.judged)
    totals = Counter(each.finding for each in run.judged)
    yield _Table(
        "Requests",
        _REQUESTS,
        ("kind", "requests", *found),
        [
            *(
                (kind, sum(counts[kind, each] for each in found), *(counts[kind, each] for each in found))
                for kind in kinds
            ),
            ("all", len(run.judged), *(totals[each] for each in found)),
        ],
    )
    yield _Table(
        "Why ids were not handed over",
        "equal: the ids that promise nothing were vLLM's own all the same.",
        ("finding", "reason", "requests", "equal", "for example"),
        list(_reasons(run.judged)),
    )
    yield _Table(
        "vLLM does not tokenize what it is given ids for",
        _FOREIGN,
        ("kind", "requests", "vLLM ran the record's ids", "tokens through the chain", "tokens past it"),
        list(_proofs(run.foreign)),
    )
    agreements = list(Agreement)
    yield _Table(
        "tokenext verify",
        _VERIFY,
        ("asked by", "finding", *agreements),
        [
            (way, found.finding, *(found.count(each) for each in agreements))
            for way, found in run.probed.items()
        ],
    )
    yield _Table(
        "Prefix cache, one way after the other",
        _CACHE,
        ("first asked", "requests", "tokens that may be cached", "cached"),
        list(_cached(run.judged)),
    )
    yield _Table(
        "Prefix cache, a conversation through the chain",
        "",
        ("turn", "prompt tokens", "cached"),
        [(number, each.prompt_tokens, each.cached_tokens) for number, each in enumerate(run.turns, 1)],
    )


def _reasons(judged: Iterable[Judged]) -> Iterator[Row]:
    quiet = (Finding.KEPT, Finding.NOT_EXACT, Finding.UNTOKENIZED, Finding.REFUSED)
    groups: dict[tuple[Finding, str], list[Judged]] = {}
    for each in judged:
        if each.finding in quiet:
            groups.setdefault((each.finding, each.seen.attached.reason or "-"), []).append(each)
    for (finding, reason), members in sorted(groups.items()):
        equal = sum((each.seen.attached.ids,) == each.seen.past.prompts for each in members)
        yield finding, reason, len(members), equal, members[0].seen.request.name


def _proofs(judged: Sequence[Judged]) -> Iterator[Row]:
    for kind in dict.fromkeys(each.seen.request.kind for each in judged):
        members = [each for each in judged if each.seen.request.kind == kind]
        yield (
            kind,
            len(members),
            sum(each.finding is Finding.HANDED for each in members),
            sum(each.seen.chain.prompt_tokens or 0 for each in members),
            sum(each.seen.past.prompt_tokens or 0 for each in members),
        )


def _cached(judged: Sequence[Judged]) -> Iterator[Row]:
    for chain_first, name in ((True, "through the chain"), (False, "past the chain")):
        seconds = [
            each.seen.past if chain_first else each.seen.chain
            for each in judged
            if each.finding is Finding.HANDED and each.seen.chain_first is chain_first
        ]
        counted = [each for each in seconds if each.cached_tokens is not None and each.prompt_tokens]
        possible = sum(
            (each.prompt_tokens - 1) // BLOCK_SIZE * BLOCK_SIZE for each in counted if each.prompt_tokens
        )
        yield name, len(counted), possible, sum(each.cached_tokens or 0 for each in counted)


def _in_columns(table: _Table) -> str:
    cells = [[str(cell) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        lines.append("  ".join((first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others))))
    return "\n".join((table.title, *lines))


def _as_markdown(table: _Table) -> str:
    head = "| " + " | ".join(map(str, table.head)) + " |"
    rows = ("| " + " | ".join(map(str, row)) + " |" for row in table.rows)
    lines = [head, "|" + "---|" * len(table.head), *rows]
    return f"## {table.title}\n\n" + (f"{table.text}\n\n" if table.text else "") + "\n".join(lines)
