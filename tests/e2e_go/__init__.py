"""The Go of proto/README.md, on the test vectors."""
