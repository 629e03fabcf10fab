"""Where a request's token record comes from: its metadata, the ids in its body, or a call to tokenext."""
