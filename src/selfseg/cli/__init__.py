"""The command `selfseg`: each verb is one public function of the same name.

Where a word would say too little it is longer: masks is `mine_masks`, data `check_data`, name `name_clusters`, time
`time_recipe`, weights `import_weights`.

A command that was stopped by a signal (Ctrl-C, SIGTERM, SIGUSR1, SIGHUP) exits with 75, and a second signal ends it at
once; wrong options exit with 2, bad files with 3, an unusable run with 4, a loss that is not a number with 5, want of
memory with 6.
"""

from __future__ import annotations

import errno
import gc
import importlib
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence

from selfseg.cli.console import ERR, OUT, check_words, parse, patient_errors, prepare_streams, to_nowhere
from selfseg.errors import (
    ConfigError,
    Interrupted,
    OutOfMemory,
    SelfsegError,
    StorageError,
    out_of_memory,
    ran_out_of_memory,
)
from selfseg.signals import Stopped, ending_on_signals
from selfseg.storage.remote.places import with_urls
from selfseg.telling import TOLD, Once, plain
from selfseg.version import __version__

_USAGE = """[bold]selfseg[/]: a folder of unlabelled images becomes a semantic segmenter.

The usual way, for a folder photos:
  selfseg train pyramid photos --out runs/photos    learn from the images
  selfseg cluster runs/photos photos -k 8 27        group their pixels
  selfseg studio runs/photos photos                 name the groups

Make a segmenter
  [bold]train[/]     RECIPE IMAGES --out RUN      learn an embedding of your images
  [bold]cluster[/]   RUN IMAGES -k 8 27           group the pixels of all images
  [bold]studio[/]    RUN IMAGES                   name clusters in the browser
  [bold]name[/]      RUN 3=road 5=road 7=sky      name clusters, or list them
  [bold]recipes[/]   [NAME]                       list the recipes for train
  [bold]masks[/]     IMAGES --out MASKS           find masks of objects, without labels
  [bold]weights[/]   FILE --out RUN               make a run of published weights

Use it
  [bold]apply[/]     RUN IMAGES --out DIR         write masks of the named classes
  [bold]segment[/]   RUN IMAGES --out DIR         write masks of all clusters
  [bold]embed[/]     RUN IMAGES --out DIR         write a vector for every place
  [bold]export[/]    RUN --format timm            write weights for other programs

See what it learned
  [bold]report[/]    RUN                          make one page that shows the run
  [bold]concepts[/]  RUN IMAGES --top 10          make a page of the prototypes
  [bold]probabilities[/] RUN IMAGES               make a page: prototypes at each pixel
  [bold]nearest[/]   RUN IMAGES --masks MASKS     make a page of objects that look alike
  [bold]film[/]      RUN IMAGES                   make an animation of the training

Measure it, with labels
  [bold]evaluate[/]  RUN DATA --protocols linear  measure a run on labelled images
  [bold]compare[/]   RUN... DATA --out DIR        measure several runs on one page
  [bold]finetune[/]  RUN DATA --labels 1 5 25     measure a run where labels are few
  [bold]transfer[/]  PRESET RUN DATA --out DIR    fine-tune on a task with labels

Check
  [bold]data[/]      FOLDER                       say what is in a folder of data
  [bold]time[/]      RECIPE IMAGES                measure the time of a training step
  [bold]doctor[/]                                 see if training works on this machine

`selfseg VERB --help` explains the options that you need most, and
`selfseg VERB --help-all` all of them; for training `selfseg train RECIPE --help`."""


def entry() -> int:
    """The command in a process of its own: `main`, and a quick end."""
    code = main(last=True)
    if "triton" not in sys.modules:  # it would print all that it holds, if nobody searched it for garbage
        gc.freeze()  # or Python searches all of torch for garbage before it ends, which takes a second
    return code


def main(arguments: Sequence[str] | None = None, *, last: bool = False) -> int:
    """Run the command line.

    Args:
        arguments: the words after `selfseg`; None takes the process's.
        last: whether the process ends afterwards, see `ending_on_signals`.

    Returns:
        The exit code.
    """
    prepare_streams()
    with patient_errors():
        return _main(list(sys.argv[1:] if arguments is None else arguments), last)


def _main(words: list[str], last: bool) -> int:
    """`main` with its words, and with streams that can be used."""
    try:
        code = _begin(words, last)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        to_nowhere(sys.stdout)
        ERR.print("[bold red]error:[/] ", end="")
        ERR.print(f"can't write what is printed: {error.strerror}", highlight=False)
        return StorageError.exit_code


def _nobody_reads() -> bool:
    """Whether the output goes into a pipe that was closed, as by `| head`; what is left of it then goes nowhere."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream, 0)
        if poll.poll(0):  # an error of the pipe; nothing else was asked for
            gone = True
            to_nowhere(stream)
    return gone


def _begin(words: list[str], last: bool) -> int:
    """`main` with its words."""
    _share_the_cores()
    if not words or words[0] in ("-h", "--help", "help"):
        OUT.print(_USAGE, highlight=False, soft_wrap=True)
        return 0
    if words[0] in ("-V", "--version"):
        OUT.print(f"selfseg {__version__}", highlight=False)
        return 0
    with ending_on_signals(last):
        return _run(words)


def _run(words: Sequence[str]) -> int:
    """Call a verb; every error that is expected becomes a sentence and an exit code."""
    TOLD.setLevel(logging.INFO)
    told = Once(lambda sentence: ERR.print(plain(sentence), markup=False, highlight=False, soft_wrap=True))
    TOLD.addHandler(told)
    try:
        return _call(words[0], words[1:])
    except SelfsegError as error:
        ERR.print("[bold red]error:[/] ", end="")
        ERR.print(
            plain(with_urls(str(error))), markup=False, highlight=False, soft_wrap=True
        )  # paths are copied from it
        return error.exit_code
    except SystemExit as stop:  # tyro's way to end after --help and wrong options
        return stop.code if isinstance(stop.code, int) else ConfigError.exit_code
    except Stopped as stop:
        ERR.print(
            f"stopped by {stop.name}; what was finished is kept, and the same command continues from there",
            soft_wrap=True,
        )
        return Interrupted.exit_code
    except KeyboardInterrupt:
        ERR.print("interrupted")
        return 130
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        ERR.print("[bold red]error:[/] ", end="")
        ERR.print(out_of_memory(error), markup=False, highlight=False, soft_wrap=True)
        return OutOfMemory.exit_code
    finally:
        _tell_repeats()
        TOLD.removeHandler(told)


def _tell_repeats() -> None:
    """Say how many requests had to be made again, if any server was asked."""
    connecting = sys.modules.get("selfseg.storage.remote.connecting")
    count = 0 if connecting is None else connecting.repeated()
    if count:
        requests = "request failed and was" if count == 1 else "requests failed and were"
        ERR.print(f"{count} {requests} sent again; docs/remote.md explains when that happens")


def _share_the_cores() -> None:
    """Let torch's threads sleep after some microseconds without work, not after milliseconds.

    GNU's OpenMP reads this when torch is loaded. Alone a command is as fast as before; two at once on the same cores
    take half the time, because threads that wait don't hold the cores which the others need (docs/numbers.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


# Each verb's module and function, loaded when it is called: most of them need torch, which takes seconds.
_VERBS = {
    "train": ("training", "train"),
    "cluster": ("runs", "cluster"),
    "segment": ("runs", "segment"),
    "studio": ("studio", "studio"),
    "name": ("segmenters", "name"),
    "apply": ("segmenters", "apply"),
    "embed": ("runs", "embed"),
    "concepts": ("runs", "concepts"),
    "probabilities": ("picturing", "probabilities"),
    "nearest": ("picturing", "nearest"),
    "film": ("picturing", "film"),
    "evaluate": ("measuring", "evaluate"),
    "compare": ("measuring", "compare"),
    "finetune": ("measuring", "finetune"),
    "transfer": ("measuring", "transfer"),
    "data": ("data_sets", "data"),
    "masks": ("masks", "masks"),
    "report": ("runs", "report"),
    "weights": ("runs", "weights"),
    "export": ("runs", "export"),
    "time": ("training", "time"),
    "recipes": ("training", "list_recipes"),
    "doctor": ("training", "doctor"),
}
_OF_WORDS = {"train", "finetune", "transfer", "data", "time", "recipes", "doctor"}  # the others' functions have options


def _call(verb: str, words: Sequence[str]) -> int:
    """Call a verb's function."""
    if verb not in _VERBS:
        raise ConfigError(f"there is no verb {verb!r}; the verbs are {', '.join(_VERBS)}")
    check_words(words)
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError("the current folder was removed; go to one that is there") from error
    module, name = _VERBS[verb]
    function: Callable[..., int] = getattr(importlib.import_module(f"selfseg.cli.{module}"), name)
    return function(list(words)) if verb in _OF_WORDS else parse(verb, function, words)
