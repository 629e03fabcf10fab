from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_CHAT: _ClassVar[Kind]
    KIND_COMPLETION: _ClassVar[Kind]
KIND_UNSPECIFIED: Kind
KIND_CHAT: Kind
KIND_COMPLETION: Kind

class BlockHashes(_message.Message):
    __slots__ = ("scheme", "block_size", "hashes")
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    HASHES_FIELD_NUMBER: _ClassVar[int]
    scheme: str
    block_size: int
    hashes: bytes
    def __init__(self, scheme: _Optional[str] = ..., block_size: _Optional[int] = ..., hashes: _Optional[bytes] = ...) -> None: ...

class TokenRecord(_message.Message):
    __slots__ = ("model", "tokenizer_digest", "token_count", "token_ids", "kind", "engine_exact", "reason", "block_hashes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ENGINE_EXACT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BLOCK_HASHES_FIELD_NUMBER: _ClassVar[int]
    model: str
    tokenizer_digest: str
    token_count: int
    token_ids: bytes
    kind: Kind
    engine_exact: bool
    reason: str
    block_hashes: BlockHashes
    def __init__(self, model: _Optional[str] = ..., tokenizer_digest: _Optional[str] = ..., token_count: _Optional[int] = ..., token_ids: _Optional[bytes] = ..., kind: _Optional[_Union[Kind, str]] = ..., engine_exact: _Optional[bool] = ..., reason: _Optional[str] = ..., block_hashes: _Optional[_Union[BlockHashes, _Mapping]] = ...) -> None: ...
