"""The chain in front of a real vLLM: the ids that it attaches, that vLLM uses, that vLLM would have made."""
