"""Engines that show their ids: adapters of the seam in `tokenext.oracle`, over HTTP."""
