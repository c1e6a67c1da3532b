"""The command `selfseg`: each verb is one public function of the same name.

Where a word would say too little it is longer: masks is `mine_masks`, data `check_data`, name `name_clusters`, time
`time_recipe`, weights `import_weights`.

A command that was stopped by a signal (Ctrl-C, SIGTERM, SIGUSR1) exits with 75, and a second signal ends it at once;
wrong options exit with 2, bad files with 3, an unusable run with 4, a loss that is not a number with 5, want of memory
with 6.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence

from selfseg.cli.console import ERR, OUT, parse
from selfseg.errors import ConfigError, Interrupted, OutOfMemory, SelfsegError, ran_out_of_memory
from selfseg.signals import Stopped, ending_on_signals
from selfseg.storage.remote.places import with_urls
from selfseg.telling import TOLD, Once
from selfseg.version import __version__

_USAGE = """[bold]selfseg[/]: a folder of unlabelled images becomes a semantic segmenter

  [bold]train[/]     RECIPE IMAGES --out RUN      learn an embedding; the same command goes on with a stopped run
  [bold]cluster[/]   RUN IMAGES -k 8 27           group the pixels of all images into k concepts
  [bold]segment[/]   RUN IMAGES --out DIR         an index PNG and a coloured overlay per image
  [bold]studio[/]    RUN IMAGES                   look at the clusters in the browser, name and correct them
  [bold]name[/]      RUN 3=road 5=road 7=sky      name clusters: a segmenter; without names: list them
  [bold]apply[/]     RUN IMAGES --out DIR         masks of the named classes, as palette PNGs
  [bold]embed[/]     RUN IMAGES --out DIR         one vector per pixel, memory-mapped float16
  [bold]concepts[/]  RUN IMAGES --top 10          what each prototype (or with --k each cluster) finds
  [bold]probabilities[/] RUN IMAGES               how probable each prototype is at each pixel, as a page
  [bold]nearest[/]   RUN IMAGES --masks MASKS     the objects that are nearest to some, as a page
  [bold]film[/]      RUN IMAGES                   how the embedding came about, as an animation
  [bold]evaluate[/]  RUN DATA --protocols linear  measure on a labelled folder, beside trivial baselines
  [bold]compare[/]   RUN... DATA --out DIR        several runs under one protocol, on one page
  [bold]finetune[/]  RUN DATA --labels 1 5 25     what the run is worth where labels are few, as a curve
  [bold]transfer[/]  PRESET RUN DATA --out DIR    fine-tune the backbone on a task with labels, and measure it
  [bold]data[/]      NAME:ROOT                    is a data set complete? counts, damage, classes, a contact sheet
  [bold]masks[/]     IMAGES --out MASKS           what stands out in each image, as masks of objects
  [bold]report[/]    RUN                          one page that shows what was learned
  [bold]weights[/]   FILE --out RUN               published weights as a run; without --out: what is in it
  [bold]export[/]    RUN --format timm            what was learned, in the files that other projects load
  [bold]time[/]      RECIPE IMAGES                what a step and a look at an image cost, by phase
  [bold]recipes[/]                                what can be trained
  [bold]doctor[/]                                 what this machine has, and whether training works

`selfseg VERB --help` tells the everyday options, `--help-all` every one; for training `selfseg train RECIPE --help`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `selfseg`; None takes the process's.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):  # names of files may be no UTF-8; they are printed as they are
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        code = _begin(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        return 128 + signal.SIGPIPE


def _nobody_reads() -> bool:
    """Whether the output goes into a pipe that was closed, as by `| head`; what is left of it then goes nowhere."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream, 0)
        if poll.poll(0):  # an error of the pipe; nothing else was asked for
            gone = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return gone


def _begin(words: list[str]) -> int:
    """`main` with its words."""
    _share_the_cores()
    if not words or words[0] in ("-h", "--help", "help"):
        OUT.print(_USAGE, highlight=False)
        return 0
    if words[0] in ("-V", "--version"):
        OUT.print(f"selfseg {__version__}", highlight=False)
        return 0
    with ending_on_signals():
        return _run(words)


def _run(words: Sequence[str]) -> int:
    """Call a verb; every error that is expected becomes a sentence and an exit code."""
    TOLD.setLevel(logging.INFO)
    told = Once(lambda sentence: ERR.print(sentence, markup=False, highlight=False, soft_wrap=True))
    TOLD.addHandler(told)
    try:
        return _call(words[0], words[1:])
    except SelfsegError as error:
        ERR.print("[bold red]error:[/] ", end="")
        ERR.print(with_urls(str(error)), markup=False, highlight=False, soft_wrap=True)  # paths are copied from it
        return error.exit_code
    except SystemExit as stop:  # tyro's way to end after --help and wrong options
        return stop.code if isinstance(stop.code, int) else ConfigError.exit_code
    except Stopped as stop:
        ERR.print(f"stopped by {stop.name}; what was finished stays, and the same command goes on", soft_wrap=True)
        return Interrupted.exit_code
    except KeyboardInterrupt:
        ERR.print("interrupted")
        return 130
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        ERR.print("[bold red]error:[/] ", end="")
        ERR.print(f"memory ran out ({error})", markup=False, highlight=False, soft_wrap=True)
        return OutOfMemory.exit_code
    finally:
        _tell_repeats()
        TOLD.removeHandler(told)


def _tell_repeats() -> None:
    """Say how many requests had to be made again, if any server was asked."""
    connecting = sys.modules.get("selfseg.storage.remote.connecting")
    count = 0 if connecting is None else connecting.repeated()
    if count:
        ERR.print(f"{count} {'request was' if count == 1 else 'requests were'} repeated; docs/remote.md tells why")


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
        raise ConfigError(f"no verb {verb!r}; there are {', '.join(_VERBS)}")
    module, name = _VERBS[verb]
    function: Callable[..., int] = getattr(importlib.import_module(f"selfseg.cli.{module}"), name)
    return function(list(words)) if verb in _OF_WORDS else parse(verb, function, words)
