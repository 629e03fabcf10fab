"""What libraries written in Rust raise."""

__all__ = ["is_library_failure"]


def is_library_failure(error: BaseException) -> bool:
    """True for an error of the library, False for one of the process (KeyboardInterrupt and the like).

    tokenizers and fastokens raise plain `Exception`. A Rust panic arrives as `pyo3_runtime.PanicException`,
    which derives from BaseException, cannot be imported, and must not end a worker thread.
    """
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"
