"""Small model directories, made on the spot: no test needs a download."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# Shows every variable and message as it arrives; `arguments is string` makes Dynamo leave arguments unparsed.
CHAT_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>tools\\n' }}{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.reasoning_content %}{{- '<think>' + message.reasoning_content + '</think>' }}{%- endif %}
    {{- message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>' + call.function.name }}
        {%- if call.function.arguments is string %}{{- call.function.arguments }}
        {%- else %}{{- call.function.arguments | tojson }}{%- endif %}
        {{- '</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think></think>' }}{%- endif %}
{%- endif %}
"""

_CORPUS = (
    "The quick brown fox jumps over the lazy dog, and it's 42 degrees in Zürich.",
    "def main(arguments):\n    return sum(len(a) for a in arguments)\n",
    '{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}',
    "Привет, мир! 漢字かな交じり文 😀 مرحبا",
    "system user assistant tool message content function parameters properties",
)


def train(*, begin_with: str | None = None) -> Tokenizer:
    """A byte-level BPE; `begin_with` is put before every text that wants special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_tokens(
        [AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)]
    )
    if begin_with is not None:
        number = tokenizer.token_to_id(begin_with)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin_with} $A", special_tokens=[(begin_with, number)]
        )
    return tokenizer


def write_model(directory: Path, *, begin_with: str | None = None, truncate: bool = False) -> Path:
    """A whole model directory. `truncate` leaves settings of training behind in tokenizer.json."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = train(begin_with=begin_with)
    if truncate:
        tokenizer.enable_truncation(8)
        tokenizer.enable_padding(length=16, pad_token="<|endoftext|>", pad_id=0)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "bos_token": begin_with,
        "eos_token": {"content": "<|im_end|>", "lstrip": False, "special": True},
        "pad_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "config.json").write_text(
        json.dumps({"model_type": "qwen3", "max_position_embeddings": 4096})
    )
    return directory
