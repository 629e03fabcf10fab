"""One target under atheris: `python -m tests.fuzz.one NAME [libFuzzer's options and corpora]`."""

import sys

import atheris

# Only what is imported in here is followed by the fuzzer.
with atheris.instrument_imports(include=["tokenext", "epp_adapter", "extproc", "loadtests.stack.sse"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
