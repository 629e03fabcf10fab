"""vLLM's render and tokenize API, served from tokenext's catalog (docs/render-api.md)."""
