"""Our block hashes beside those of a running vLLM."""
