"""Tokenizer engines: adapters of the seam in `tokenext.engine`, and the choice between them."""
