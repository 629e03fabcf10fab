"""Token ids in a request's body, where tokenext has handed them to the engine: the record's second way to us.

Fields, by who reads them: `nvext.token_data` (NVIDIA Dynamo 1.6), `kv_transfer_params.prompt_token_ids` (vLLM
0.32, chats), `prompt` as a list of ids (completions of both), `input_ids` (SGLang).
"""

from array import array
from typing import Annotated, Final

import msgspec

from extproc.token_metadata import MAX_ID_COUNT, Kind, RecordError, RecordFault, TokenIds, TokenRecord

__all__ = ["read_body_ids"]

_Id = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
_KINDS: Final = {"/v1/chat/completions": Kind.CHAT, "/v1/completions": Kind.COMPLETION}


class _Nvext(msgspec.Struct, frozen=True):
    token_data: list[_Id] | None = None


class _TransferParams(msgspec.Struct, frozen=True):
    prompt_token_ids: list[_Id] | None = None


class _Body(msgspec.Struct, frozen=True):
    model: str = ""
    nvext: _Nvext | None = None
    kv_transfer_params: _TransferParams | None = None
    input_ids: list[_Id] | None = None
    prompt: msgspec.Raw = msgspec.Raw(b"null")


_BODY: Final = msgspec.json.Decoder(_Body)
_IDS: Final = msgspec.json.Decoder(list[_Id])


def read_body_ids(path: str, body: bytes) -> TokenRecord | None:
    """The record that a body stands for, or None where it holds no ids.

    Its `model` is what the client called it. `engine_exact` holds, since tokenext hands over nothing else.
    Raises RecordError for ids that cannot be read.
    """
    kind = _KINDS.get(path)
    if kind is None:
        return None
    try:
        fields = _BODY.decode(body)
        ids = _ids(fields)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise RecordError(
            RecordFault.BAD_FIELD, "the ids in the body are no list of unsigned numbers"
        ) from None
    if not ids:
        return None
    if len(ids) > MAX_ID_COUNT:
        raise RecordError(RecordFault.TOO_LARGE, f"more than {MAX_ID_COUNT} ids")
    packed = TokenIds.pack(array("I", ids))
    return TokenRecord(fields.model, "", packed, kind, engine_exact=True)


def _ids(body: _Body) -> list[int] | None:
    if body.nvext is not None and body.nvext.token_data:
        return body.nvext.token_data
    if body.kv_transfer_params is not None and body.kv_transfer_params.prompt_token_ids:
        return body.kv_transfer_params.prompt_token_ids
    if body.input_ids:
        return body.input_ids
    prompt = bytes(body.prompt)
    return _IDS.decode(prompt) if prompt.startswith(b"[") and prompt[1:].lstrip()[:1].isdigit() else None
