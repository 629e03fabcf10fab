"""What the status page of tokenext shows: models, caches, and what became of requests."""

from collections.abc import Mapping, Sequence

from extproc.admin import Section
from tokenext.breaker import Breakers
from tokenext.catalog import Catalog, Model
from tokenext.conversations import ConversationSnapshot
from tokenext.prefix_tree import PrefixSnapshot

__all__ = ["sections"]

_DIGEST_CHARS = len("sha256:") + 12


def sections(
    catalog: Catalog,
    breakers: Breakers,
    outcomes: Mapping[tuple[str, str, str], float],
    prefixes: PrefixSnapshot | None,
    conversations: ConversationSnapshot | None,
) -> Sequence[Section]:
    """`outcomes`: requests since the start, by model, outcome and reason."""
    models = [
        (
            model.name,
            ", ".join((*model.aliases, *model.loras)) or "-",
            f"{model.engine.name}: {model.engine_reason}",
            model.profile.name,
            model.handoff,
            _parity(model),
            breakers.state(model.name),
            model.digest[:_DIGEST_CHARS],
        )
        for model in catalog.models
    ]
    return (
        Section(
            "Models",
            ("model", "other names", "engine", "profile", "hand-off", "parity", "breaker", "digest"),
            models,
        ),
        Section(
            "Requests since the start",
            ("model", "outcome", "reason", "requests"),
            [(*key, f"{count:,.0f}") for key, count in sorted(outcomes.items(), key=lambda each: -each[1])],
        ),
        Section(
            "Caches",
            ("cache", "holds", "of", "entries", "found", "not found"),
            _caches(prefixes, conversations),
        ),
    )


def _parity(model: Model) -> str:
    if model.doubt is not None:
        return f"doubted: {model.doubt}"
    return "not asked" if model.verification is None else "clean"


def _caches(
    prefixes: PrefixSnapshot | None, conversations: ConversationSnapshot | None
) -> Sequence[Sequence[object]]:
    rows: list[Sequence[object]] = []
    if prefixes is not None:
        found = prefixes.hits + prefixes.partial_hits
        rows.append(("prefixes", *_sizes(prefixes), f"{found:,}", f"{prefixes.misses:,}"))
    if conversations is not None:
        rows.append(
            (
                "conversations",
                *_sizes(conversations),
                f"{conversations.continued:,}",
                f"{conversations.new:,}",
            )
        )
    return rows


def _sizes(snapshot: PrefixSnapshot | ConversationSnapshot) -> tuple[str, str, str]:
    megabytes = (snapshot.bytes / 2**20, snapshot.budget_bytes / 2**20)
    return (*(f"{size:,.1f} MiB" for size in megabytes), f"{snapshot.entries:,}")  # type: ignore[return-value]
