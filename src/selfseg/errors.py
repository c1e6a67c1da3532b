"""The errors that selfseg raises on purpose.

SelfsegError
├── DataError                a user's files are not what they should be
│   ├── BadImage             one image can't be read (skipped, counted, listed)
│   │   └── BadMask          one image has no usable mask (treated as a bad image)
│   ├── TooManyBadImages     more of a collection is bad than is believable
│   ├── Unreachable          a place on the network can't be read or written
│   ├── EmptyCollection      no image where images were expected
│   └── LabelError           a label is missing, of another size, or outside the classes
├── ConfigError              an option has a value that can't work
│   └── MissingExtra         an optional package is needed; says what to install
├── RunError                 a run's folder can't be used as asked
│   ├── RecipeMismatch       the run was made by another recipe
│   ├── CheckpointError      a checkpoint is incomplete, foreign or does not fit
│   └── StorageError         a file could not be written (a full disk)
├── NonFiniteLoss            training met a loss that is not a number
├── OutOfMemory              there was not enough memory
└── Interrupted              a signal asked to stop; the state was saved
"""


class SelfsegError(Exception):
    """Base of every error raised on purpose; the message carries the value and the way out."""

    exit_code = 1


class DataError(SelfsegError):
    """A user's files are not what they should be."""

    exit_code = 3


class BadImage(DataError):
    """One image can't be read; `reason` is one of the words documented in `selfseg.data.reading.images`."""

    def __init__(self, path: object, reason: str, detail: str = "") -> None:
        self.path = str(path)
        self.reason = reason
        self.detail = detail
        super().__init__(f"{path}: {reason}" + (f" ({detail})" if detail else ""))

    def __reduce__(self) -> tuple[type["BadImage"], tuple[str, str, str]]:
        # Loader processes send exceptions by pickling their arguments; the default would send the message.
        return type(self), (self.path, self.reason, self.detail)


class BadMask(BadImage):
    """One image has no usable mask; `reason` is one of the words documented in `selfseg.data.labelled.mask_files`."""


class TooManyBadImages(DataError):
    """More of a collection is bad than is believable."""


class Unreachable(DataError):
    """A place on the network can't be read or written: no connection, no such bucket, not allowed."""


class EmptyCollection(DataError):
    """No image where images were expected."""


class LabelError(DataError):
    """A label is missing, of another size than its image, or outside the classes."""


class ConfigError(SelfsegError):
    """An option has a value that can't work."""

    exit_code = 2


class MissingExtra(ConfigError):
    """An optional package is needed.

    Example:
        >>> str(MissingExtra("DeepLabV3+", "segmentation_models_pytorch", "smp"))
        "DeepLabV3+ needs the package segmentation_models_pytorch: pip install 'selfseg[smp]'"
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs the package {package}: pip install 'selfseg[{extra}]'")


class RunError(SelfsegError):
    """A run's folder can't be used as asked."""

    exit_code = 4


class RecipeMismatch(RunError):
    """The run was made by another recipe."""


class CheckpointError(RunError):
    """A checkpoint is incomplete, foreign or does not fit."""


class StorageError(RunError):
    """A file could not be written."""


class NonFiniteLoss(SelfsegError):
    """Training met a loss that is not a number; the weights are those of before the step."""

    exit_code = 5


class OutOfMemory(SelfsegError):
    """There was not enough memory."""

    exit_code = 6


class Interrupted(SelfsegError):
    """A signal asked to stop; the state was saved and the same command goes on."""

    exit_code = 75  # EX_TEMPFAIL: try again


_NO_THREAD = "start new thread"  # Python's words, where memory or the number of threads is used up


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch, NumPy, numba or OpenCV says that there was not enough memory.

    Example:
        >>> ran_out_of_memory(MemoryError()), ran_out_of_memory(RuntimeError("shapes differ"))
        (True, False)
        >>> ran_out_of_memory(RuntimeError("could not create a primitive"))  # what oneDNN says, within torch
        True
    """
    if isinstance(error, MemoryError):
        return True
    words = ("allocate memory", "out of memory", "not enough memory", "Insufficient memory", "bad_alloc", _NO_THREAD)
    if str(error).strip() in ("could not create a primitive", "could not execute a primitive"):
        return isinstance(error, RuntimeError)
    return type(error).__name__ == "OutOfMemoryError" or (
        (isinstance(error, RuntimeError) or type(error).__module__ == "cv2")
        and any(word in str(error) for word in words)
    )


def out_of_memory(error: BaseException, doing: str = "") -> str:
    """What to say of an error that `ran_out_of_memory`.

    Args:
        error: the error.
        doing: what the memory was for, such as "in step 1".

    Example:
        >>> out_of_memory(MemoryError(), "in step 1")
        'there was not enough memory in step 1 (MemoryError)'
        >>> ran_out_of_memory(no_thread := RuntimeError("can't start new thread")), "ulimit" in out_of_memory(no_thread)
        (True, True)
    """
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    said = f"there was not enough memory {doing}".rstrip()
    if _NO_THREAD in reason:
        said += ", or no further thread is allowed (`ulimit -u`, or a container's limit of processes)"
    return f"{said} ({reason})"
