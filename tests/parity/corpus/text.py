"""Text of many kinds: plain prose, code, many scripts, and what tokenizers and templates may stumble over."""

# ruff: noqa: RUF001  # letters that look like others are the point

import random
from typing import Final

__all__ = ["SPECIAL_TOKENS", "hostile", "prose", "reasoning"]

_VOCABULARY: Final = """
the river carries what nobody asked for and returns it changed by noon a lamp was left burning on purpose
because engineers measure twice and then argue about the ruler while rain writes quickly without any plan
please summarise compare translate explain list refactor this function table recipe letter for me in
three steps using only words that my grandmother would accept I'll don't it's we've they're o'clock naïve
café HTTP GPU JSON k8s 3.14 2,718 $9.99 100% x86_64 C++ node.js user@example.org
"""
_WORDS: Final = tuple(_VOCABULARY.split())
_OTHER_SCRIPTS: Final = (
    "今天天气很好，我们去公园散步吧。",
    "東京の夜景はとても綺麗でした。カタカナとひらがな",
    "오늘은 날씨가 정말 좋네요 ㅋㅋㅋ",
    "Привет, как дела? Ёлка и подъезд.",
    "Γειά σου Κόσμε — ΑΣ Σίσυφος",
    "مرحبا بالعالم، كيف حالك اليوم؟",
    "שלום עולם, מה שלומך?",
    "नमस्ते दुनिया, आप कैसे हैं?",
    "สวัสดีชาวโลก วันนี้เป็นอย่างไรบ้าง",
    "İstanbul'da ılık bir gün; straße, ẞ, ﬁne",
    "ⴰⵣⵓⵍ ᚠᛇᚻ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 ꧁",
)
_CODE: Final = (
    "def area(r: float) -> float:\n    return 3.141592653589793 * r ** 2\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\t// fast\n}\n",
    "SELECT id, \"full name\" FROM t WHERE a <> 'b' AND c IS NULL;\r\n",
    '```json\n{"a": [1, 2.50, null], "b\\n": "\\u00e9"}\n```',
    '<div class="x">&amp; &lt;b&gt; <!-- c --></div>',
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n- [ ] todo\n  1. nested\n",
    "C:\\Users\\me\\notes.txt && rm -rf ./*  # don't",
    "\x1b[31mred\x1b[0m\tdone\x07",
)
SPECIAL_TOKENS: Final = (
    *(
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|start_header_id|>",
    ),
    *("<|end_header_id|>", "<|python_tag|>", "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<bos>", "<eos>"),
    *("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<pad>", "<think>", "</think>", "<tool_call>"),
    *(
        "</tool_call>",
        "<tool_response>",
        "</tool_response>",
        "<|vision_start|>",
        "<|image_pad|>",
        "<|im_start",
    ),
)
_ODD: Final = (
    *(
        "",
        " ",
        "\n",
        "\n\n\n",
        "\t",
        "  leading and trailing  ",
        "\r\n",
        "\u00a0nbsp\u2003em\u3000",
        "\u200b\ufeff",
    ),
    *(
        "a\0b",
        "\0",
        "\x01\x02\x1f\x7f\x80\x85",
        "\x1c\x1d inner \x1e\x1f",
        "\u2028\u2029",
        "\ufffd\ufffe\uffff",
    ),
    *(
        "e\u0301 vs é",
        "\u212b \u00c5 A\u030a",
        "ﬀ ﬁ ① Ⅷ ²",
        "\u1100\u1161\u11a8 각",
        "a\u0300\u0301\u0302\u0303",
    ),
    *(
        "👨\u200d👩\u200d👧\u200d👦",
        "🏳️\u200d🌈 ☠️ 🇩🇪🇫🇷",
        "😀😃😄",
        "\u202eRTL override\u202c",
        "\U0010ffff\U000e0001",
    ),
    *(
        "{{ messages }}",
        "{% if true %}x{% endif %}",
        "{# c #}",
        "${HOME} %s %(a)s {0}",
        '\\n \\u0041 \\\\ \\"',
    ),
    *("CONTINUE_FINAL_MESSAGE_TAG", "CONTINUE_FINAL_MESSAGE_TAG ", "<tool_response>x</tool_response>"),
    *(
        "</think>",
        "<think></think>",
        "<think>a</think>b</think>c",
        "▁▁ ▁under▁score▁",
        "Ġ Ċ ĉ",
        "<0x0A><0xE2>",
    ),
    *("'", '"', "`", "'''", "0", "-1", "1e5", "NaN", "None", "null", "true", "[]", "{}"),
)
_RUN_CHARACTERS: Final = " a0\n=-.#é字😀\u0301\t▁<"


def prose(rng: random.Random, words: int = 40) -> str:
    """Something a person might send: sentences, sometimes code or another script."""
    pieces: list[str] = []
    for _ in range(rng.randint(1, 3)):
        draw = rng.random()
        if draw < 0.15:
            pieces.append(rng.choice(_CODE))
        elif draw < 0.3:
            pieces.append(rng.choice(_OTHER_SCRIPTS))
        else:
            pieces.append(_sentence(rng, rng.randint(1, words)))
    return rng.choice((" ", "\n", "\n\n", "  ", ". ")).join(pieces)


def hostile(rng: random.Random) -> str:
    """Anything but prose: special tokens, control characters, normal forms, long runs, broken Unicode."""
    draw = rng.random()
    if draw < 0.3:
        return "".join(
            rng.choice((rng.choice(SPECIAL_TOKENS), _sentence(rng, 3), " ", "\n")) for _ in range(6)
        )
    if draw < 0.6:
        return "".join(rng.choice(_ODD) for _ in range(rng.randint(1, 4)))
    if draw < 0.75:
        return rng.choice(_RUN_CHARACTERS) * rng.choice((2, 17, 255, 256, 257, 3000))
    if draw < 0.8:
        return rng.choice(("\ud800", "\udfff", "a\ud83d", "\ude00\ud83d z", "ok \udc80 ok"))
    return "".join(chr(_code_point(rng)) for _ in range(rng.randint(1, 60)))


def reasoning(rng: random.Random) -> str:
    """What a model thought before it answered."""
    text = prose(rng, 20)
    return rng.choice(
        (text, f"\n{text}\n", f"  {text}  ", "", "\n\n", f"{text}</think>", "so: " + hostile(rng))
    )


def _sentence(rng: random.Random, words: int) -> str:
    text = " ".join(rng.choice(_WORDS) for _ in range(words))
    return rng.choice((text, text.capitalize() + ".", text.upper(), text + "?", f"**{text}**", f'"{text}"'))


def _code_point(rng: random.Random) -> int:
    """Any scalar value, the lower ones more often."""
    while True:
        point = rng.randrange(1, 1 << rng.choice((7, 8, 11, 16, 17)))
        if not 0xD800 <= point <= 0xDFFF:
            return point
