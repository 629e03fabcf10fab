"""Write random weights of a small Qwen3: `python make_model.py FOLDER`, run by vLLM's environment.

FOLDER holds a tokenizer; nothing of it is touched. The weights are the same every time.
"""

import sys

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM


def main(folder: str, max_length: int) -> None:
    torch.manual_seed(7)
    config = Qwen3Config(
        # Of the tokenizer: what a model of that family has.
        vocab_size=151936,
        eos_token_id=151645,
        pad_token_id=151643,
        # Of our choice: as small as vLLM's attention on the CPU takes.
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=151645, pad_token_id=151643)
    model.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
