"""The shared kernel: what `tokenext` and `epp_adapter` must agree on to speak ext_proc.

Everything but `extproc.server` and `extproc.health` is pure: no IO, no clock, no logger, no await.
"""
