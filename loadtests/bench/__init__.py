"""`make bench`: what the chain costs, as ratios measured interleaved in one run."""
