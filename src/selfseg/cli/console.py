"""What the verbs share: where they write, and how they read their words."""

from __future__ import annotations

import codecs
import functools
import inspect
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from selfseg.errors import ConfigError
from selfseg.numbers import require_usable
from selfseg.storage.remote.places import with_urls
from selfseg.telling import plain
from selfseg.telling.bars import Bars

if TYPE_CHECKING:
    from selfseg.collection.batching.room import Batching
    from selfseg.workers.plan import Where

OUT = Console()
ERR = Console(stderr=True)


_FURTHER = "further"
Option = TypeVar("Option")
Further = Annotated[Option, _FURTHER]
"""Marks an option of a verb that --help leaves out and --help-all shows."""


RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
ImagesPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
DataPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]


Processes = Annotated[int | None, tyro.conf.arg(metavar="N")]
"""Option: how many processes share the work."""

RayAddress = Further[str | None]
"""Option: the Ray cluster that shares the work."""


BatchSize = Further[int | Literal["auto"]]
"""Option: how many images a GPU looks at together."""


HELP = ("-h", "--help", "--help-all")


_MAY_BE_EMPTY = ("--label-suffix", "--backbone")


def check_words(words: Sequence[str]) -> None:
    """Refuse words of which something would be ignored without a word.

    Raises:
        ConfigError: for an option that is given twice, of which only the last would count; for an empty word, which as
            a path is the current folder, and mostly comes from a variable of the shell that isn't set.
    """
    given: dict[str, str] = {}
    for before, word in zip(["", *words], words, strict=False):
        option, sign, value = word.partition("=")
        if (not word and before not in _MAY_BE_EMPTY) or (
            sign and not value and option.startswith("-") and option not in _MAY_BE_EMPTY
        ):
            where = f" after {before}" if before and not word else f" in {word}" if word else ""
            raise ConfigError(f"there is an empty word{where}: is a variable of your shell not set?")
        if not re.fullmatch(r"--[^\W\d][\w.-]*|-[^\W\d]", option):
            continue
        name = re.sub(r"(^|\.)no-", r"\1", option.lstrip("-").replace("_", "-"))
        if name in given:
            both = option if given[name] == option else f"{given[name]} and {option}"
            raise ConfigError(
                f"{both} {'is given twice' if both == option else 'say the same thing twice'}; give it once, with all "
                "of its values behind it, as in -k 8 12"
            )
        given[name] = option


def parse(verb: str, function: Callable[..., int], words: Sequence[str]) -> int:
    """Call a verb's function with the options of the command line."""
    prog = f"selfseg {verb}"
    checked = _checked(function)
    if any(word in HELP for word in words):
        checked = _shown(checked, prog, everyday=asks_for_help(words))
    return tyro.cli(checked, prog=prog, args=_for_tyro(words))


def parse_settings(
    settings: Any,
    default: Any,
    everyday: Collection[str],
    words: Sequence[str],
    prog: str,
    about: str | None,
    nested: Mapping[str, Any] | None = None,
) -> Any:
    """A dataclass of settings from the options of the command line.

    Args:
        settings: the dataclass, which may be one with its type parameter filled in.
        default: an instance of it.
        everyday: names of the fields that --help shows; --help-all shows the others too.
        words: of the command line.
        prog: the command, for its help.
        about: what it does; --help shows the first line.
        nested: annotations of options that must be given and lie deeper, for --help.
    """
    if asks_for_help(words):
        settings, default = _everyday_settings(default, everyday, nested or {})
        about = f"{(about or '').strip().partition(chr(10))[0]} {_more(prog)}"
        settings.__doc__ = _flowing(settings.__doc__)
    given = tyro.cli(settings, default=default, args=_for_tyro(words), prog=prog, description=about)
    require_usable(given, "", _option)
    return given


def _checked(function: Callable[..., int]) -> Callable[..., int]:
    """A verb's function that refuses numbers which nothing can work with."""

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> int:
        require_usable(inspect.signature(function).bind(*args, **kwargs).arguments, "", _option)
        return function(*args, **kwargs)

    return checked


def _flowing(doc: str | None) -> str:
    r"""A docstring whose entries have one line each: a terminal breaks lines where it needs to.

    Example:
        >>> print(_flowing("Do it.\n\n    Args:\n        k: how\n            many.\n"))
        Do it.
        <BLANKLINE>
        Args:
            k: how many.
    """
    return re.sub(r"\n {8,}(?=\S)", " ", inspect.cleandoc(doc or ""))


def _option(name: str) -> str:
    """A field's name as the command line has it."""
    return f"--{name.replace('_', '-')}"


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether the everyday options are asked for."""
    return "-h" in words or "--help" in words


def _for_tyro(words: Sequence[str]) -> list[str]:
    """Tyro has one kind of help."""
    return ["--help" if word == "--help-all" else word for word in words]


def _shown(function: Callable[..., int], prog: str, everyday: bool) -> Callable[..., int]:
    """A function for its help: the everyday one is without the options that are marked as `Further`."""
    hints = get_type_hints(function, include_extras=True)
    further = [name for name, hint in hints.items() if everyday and _FURTHER in getattr(hint, "__metadata__", ())]

    def shown(*args: Any, **kwargs: Any) -> int:
        return function(*args, **kwargs)

    doc = _flowing(function.__doc__)
    about, _, rest = doc.partition("\nArgs:")
    shown.__doc__ = f"{about.rstrip()} {_more(prog)}\n\nArgs:{rest}" if further else doc
    shown.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    shown.__annotations__ = {name: _hidden(hint) if name in further else hint for name, hint in hints.items()}
    return shown


def _everyday_settings(default: Any, shown: Collection[str], nested: Mapping[str, Any]) -> tuple[type[Any], Any]:
    """A dataclass like that of `default`, and its default, for a help: some of its fields, and the nested options."""
    cls, hints = type(default), get_type_hints(type(default), include_extras=True)
    values = {each.name: getattr(default, each.name) for each in fields(default)}
    # The type of a hidden number is told: tyro takes True for 1 where both may be anything.
    kinds = {name: type(value) if isinstance(value, int | float) else Any for name, value in values.items()}
    annotations = {name: hints[name] if name in shown else _hidden(kinds[name]) for name in values} | dict(nested)
    values |= dict.fromkeys(nested, tyro.MISSING)
    short: Any = dataclass(frozen=True)(
        type(cls.__name__, (), {"__annotations__": annotations, "__doc__": cls.__doc__, **values})
    )
    return short, short(**values)


def _hidden(hint: Any) -> Any:
    return Annotated[hint, tyro.conf.Suppress]


def _more(prog: str) -> str:
    """The sentence that tells how to see all options."""
    return f"`{prog} --help-all` shows all options."


def say(sentence: str) -> None:
    """Print a line as it is: paths may hold brackets, and are copied from it."""
    OUT.print(plain(with_urls(sentence)), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def passes() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for each pass over images: call what is yielded with (what, images done, images in all)."""
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=ERR) as bar:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield show


def where_to_work(processes: int | None, ray: str | None) -> Where:
    """What --processes and --ray say; raises ConfigError for a number that can't be."""
    from selfseg.workers.plan import Where

    return Where(processes=(0 if ray is not None else 1) if processes is None else processes, ray=ray)


def batching(images: int | Literal["auto"]) -> Batching:
    """What --batch says; raises ConfigError for a number that can't be."""
    from selfseg.collection.batching.room import Batching

    return Batching(images)


_NARROW = 20


def prepare_streams() -> None:
    """Make the three streams such that anything can be printed, and that no file takes the place of a closed one.

    Of a command that is started with `2>&-`, the next file that is opened would get the number of the standard errors,
    and a library that complains there would write into it: into weights, say.
    """
    if shutil.get_terminal_size().columns < _NARROW:  # tyro looks for ever for a place to break its lines
        os.environ["COLUMNS"] = str(_NARROW)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed; the lowest number that is free is taken
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors="replace"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ANYTHING)


class Patient:
    """Standard errors that may fail: that a message can't be printed is no reason to end a training.

    Its log may lie on a full disk, and its terminal may have been closed. A reader that has gone is told as ever.

    Args:
        stream: which is written to.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As of a file."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise
        except OSError:
            return len(text)

    def flush(self) -> None:
        """As of a file."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def patient_errors() -> Iterator[None]:
    """While inside, standard errors are `Patient`."""
    before = sys.stderr
    sys.stderr = Patient(before)
    try:
        yield
    finally:
        sys.stderr = before


def to_nowhere(stream: IO[str]) -> None:
    """Let a stream that can't be written to any more take what is still in it, and lose it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _anything(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes of file names that are no UTF-8 as they are; letters that the terminal has not as their number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = (
        bytes([ord(each) - 0xDC00]) if "\udc80" <= each <= "\udcff" else each.encode("ascii", "backslashreplace")
        for each in error.object[error.start : error.end]
    )
    return b"".join(found), error.end


_ANYTHING = "selfseg.anything"
codecs.register_error(_ANYTHING, _anything)
