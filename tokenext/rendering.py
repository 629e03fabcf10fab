"""Everything that became of one request, for a person or a script: prompt, tokens, and why."""

import time
from dataclasses import dataclass

from extproc.token_metadata import TokenRecord
from tokenext.cut_points import UncuttableError, analyse
from tokenext.declined import Declined, SkipReason
from tokenext.engine import EngineError
from tokenext.engines.pieces import Piece, pieces, unplaced
from tokenext.json_object import JsonObject
from tokenext.loading import LoadedModel
from tokenext.openai import Api, ChatRequest, parse
from tokenext.tokenization import Stopwatch, tokenize

__all__ = ["Rendering", "render"]


@dataclass(frozen=True, slots=True)
class Rendering:
    """`pieces` are the record's ids; without places where the request brings ids in the place of a text.

    `cuts` are the places in the prompt, in characters, behind which a kept prefix may end.
    """

    prompt: str
    record: TokenRecord
    pieces: tuple[Piece, ...]
    cuts: tuple[int, ...]
    uncuttable: str


def render(loaded: LoadedModel, api: Api, body: JsonObject) -> Rendering:
    """Do with a request what `serve` does, and keep what it throws away. Raises Declined."""
    model = loaded.model
    request = parse(api, body)
    record = tokenize(model, request, body, body_replaceable=False, watch=Stopwatch(time.perf_counter)).record
    profile = model.profile
    prompt = profile.chat(request) if isinstance(request, ChatRequest) else profile.completion(request)
    try:
        found = pieces(loaded.tokenizer_json, prompt.text, add_special_tokens=prompt.add_special_tokens)
    except EngineError:
        raise Declined(SkipReason.ENGINE_FAILED) from None
    found = _matching(loaded, found, record)
    cuts, uncuttable = _cuts(loaded, found)
    return Rendering(prompt.text, record, found, cuts, uncuttable)


def _matching(loaded: LoadedModel, found: tuple[Piece, ...], record: TokenRecord) -> tuple[Piece, ...]:
    """The pieces of the record's ids: all that were found, or those that truncation leaves of either end."""
    ids = record.token_ids.as_array().tolist()
    for part in (found, found[len(found) - len(ids) :], found[: len(ids)]):
        if [piece.id for piece in part] == ids:
            return part
    return unplaced(loaded.tokenizer_json, ids)


def _cuts(loaded: LoadedModel, found: tuple[Piece, ...]) -> tuple[tuple[int, ...], str]:
    files = loaded.files
    likely = (*files.chat_templates.values(), *files.special_tokens.values())
    try:
        points = analyse(loaded.tokenizer_json, likely=likely)
    except UncuttableError as error:
        return (), str(error)
    ids = {number for token in points.tokens for number in token.ids.as_array()}
    return tuple(piece.end for piece in found if piece.id in ids and piece.end), ""
