"""What the oracles are asked: generated, recorded and hand-written requests, the same for the same seed."""
