"""The verbs around training: train, time, recipes, doctor."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.markup import escape
from tyro.conf import arg

from selfseg.cli.console import HELP, OUT, asks_for_help, parse_settings, say
from selfseg.errors import ConfigError, Interrupted
from selfseg.numbers import require_usable
from selfseg.storage.remote.urls import as_url

if TYPE_CHECKING:
    from selfseg.training.recipe import Recipe

_EVERYDAY = (
    "images",
    "out",
    "steps",
    "epochs",
    "batch_size",
    "init",
    "seed",
    "workers",
    "accelerator",
    "channels",
    "pages",
)


_TRAIN = """usage: selfseg train RECIPE IMAGES --out RUN [OPTIONS]

Learn an embedding from the images, without labels, and write it to the folder RUN. If you stop the training, the same
command continues it.

Start with the recipe pyramid, which takes a minute or two. Recipes with _small in their name are for your own images.
`selfseg train RECIPE --help` explains the options. `selfseg recipes RECIPE` prints what is known about a recipe, e.g.
from which paper it is and how good it was. The recipes:
"""

_RECIPES = """usage: selfseg recipes [NAME]

List what `selfseg train` can train; with a name, print all about that recipe.
"""

_DOCTOR = """usage: selfseg doctor

Show what this machine and the installed packages have, and try whether a short training works. Takes no options.
"""


def train(words: list[str]) -> int:
    """Train by a recipe."""
    from selfseg.training.recipe import recipes

    known = recipes()
    if not words or words[0] in HELP:
        say(_TRAIN)
        list_recipes([])
        return 0 if words else ConfigError.exit_code
    name, rest = words[0], words[1:]
    function = _recipe_function(name, known)
    recipe = parse_recipe(function, rest, f"selfseg train {name}")
    from torch import distributed

    from selfseg.data.reading.skipping import accepting
    from selfseg.models.distributed import rank
    from selfseg.training.loop import train as run_train
    from selfseg.training.machines.launching import find_launch

    launch = find_launch()

    try:
        run = run_train(recipe)
    except Interrupted:
        # Fabric kills all processes that it has started, its first one too, when it sees that one has ended with an
        # error. torchrun and srun must be told that the run is not over.
        if rank() > 0 and launch is None:
            return 0
        raise
    first = launch.rank == 0 if launch else rank() == 0
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()  # its threads may abort a process that ends with them
    if first:
        run = run if as_url(recipe.out) is None else recipe.out  # not the local copy
        places = f"{quote(str(run))} {quote(str(recipe.images))}"
        say(f"trained: {run}; next: selfseg cluster {places}{accepting(recipe.max_bad)} -k 8 27")
    return 0


def parse_recipe(function: Callable[..., Recipe[Any]], words: Sequence[str], prog: str) -> Recipe[Any]:
    """A recipe with the settings of a command line.

    Args:
        function: the recipe.
        words: `IMAGES --out RUN` (`--masks MASKS`) and overrides such as `--method.temperature 0.2`.
        prog: the command, for its help.

    Returns:
        The recipe; `--steps` takes the place of the recipe's epochs and the other way round.
    """
    from selfseg.training.recipe import Recipe

    # Masks have no default place: who trains on them must say where they are.
    wants_masks = "masks" in inspect.signature(function).parameters
    masks = {"masks": Path("MASKS") if asks_for_help(words) else tyro.MISSING} if wants_masks else {}
    default = function(Path("IMAGES"), Path("RUN"), **masks)
    given = {word.split("=")[0] for word in words}
    if "--steps" in given and "--epochs" not in given:
        default = replace(default, steps=1, epochs=None)
    elif "--epochs" in given and "--steps" not in given:
        default = replace(default, steps=None, epochs=1.0)
    default = replace(default, images=tyro.MISSING, out=tyro.MISSING)
    settings: Any = Recipe[type(default.method)]  # type: ignore[misc]
    nested = {"masks": Annotated[Path, arg(help="folder with masks of objects, which `selfseg masks` makes.")]}
    recipe: Recipe[Any] = parse_settings(
        settings, default, _EVERYDAY, words, prog, function.__doc__, nested if wants_masks else None
    )
    return recipe


def _recipe_function(name: str, known: dict[str, Callable[..., Recipe[Any]]]) -> Callable[..., Recipe[Any]]:
    """A recipe by its name; a method's name stands for its recipe for one's own images."""
    function = known.get(f"{name}_small" if f"{name}_small" in known else name)
    if function is None:
        order = "; the recipe comes first: selfseg train RECIPE IMAGES --out RUN" if Path(name).exists() else ""
        names = ", ".join([*_methods(known), *known])
        raise ConfigError(f"there is no recipe {name!r}{order}; the recipes are {names}")
    return function


def time(words: list[str]) -> int:
    """What a recipe's step costs by phase, and an image by clusters and linear models."""
    from selfseg.training.recipe import recipes

    known = recipes()
    about = "Measure what a training step of a recipe costs, phase by phase, and what segmenting an image costs."
    own = argparse.ArgumentParser("selfseg time RECIPE IMAGES", None, about, add_help=False, allow_abbrev=False)
    own.add_argument("--measured", type=int, default=20, help="how many training steps are measured (20)")
    own.add_argument(
        "--warm-up", type=int, default=5, help="how many steps and images come before the measured ones (5)"
    )
    own.add_argument("--rows", type=int, default=256, help="how many clusters, and filters of the linear model (256)")
    own.add_argument("--looks", type=int, default=20, help="how many images are segmented (20)")
    own.add_argument("--json", type=Path, help="a JSON file to which all figures are written")
    if not words or words[0] in HELP:
        say(own.format_help())
        say("The settings of the recipe can be given, too; `selfseg train RECIPE --help` explains them. The recipes:\n")
        list_recipes([])
        return 0 if words else ConfigError.exit_code
    name, function = words[0], _recipe_function(words[0], known)
    if any(word in HELP for word in words):
        say(own.format_help() + f"\nThe settings of the recipe can be given, too, as for `selfseg train {name}`:")
    given, rest = own.parse_known_args(words[1:])
    require_usable(vars(given), "", lambda name: f"--{name.replace('_', '-')}")
    recipe = parse_recipe(function, [*rest, "--out", "unused"], f"selfseg time {name}")
    from selfseg.storage.files import write_json
    from selfseg.timing.steps import TimingConfig, time_recipe

    timing = time_recipe(recipe, TimingConfig(given.measured, given.warm_up, given.rows, given.looks))
    for table in timing.tables():
        OUT.print(table)
        OUT.print()
    if given.json is not None:
        write_json(given.json, timing.to_dict())
        say(f"written: {given.json}")
    return 0


def list_recipes(words: list[str]) -> int:
    """What can be trained, or one recipe's whole text."""
    if words and words[0] in HELP:
        say(_RECIPES)
        return 0
    from selfseg.training.recipe import recipes

    known = recipes()
    if len(words) > 1:
        raise ConfigError(f"recipes takes one name, and was given {' '.join(words)}")
    if words and words[0] not in known and f"{words[0]}_small" in known:
        words = [f"{words[0]}_small"]  # as train takes it
    if words and words[0] not in known:
        raise ConfigError(f"there is no recipe {words[0]!r}; the recipes are {', '.join(known)}")
    width = max(28, *(len(name) + 2 for name in known))
    for name, function in known.items():
        lines = [escape(line.strip()) for line in (function.__doc__ or "").strip().splitlines()]
        if words and words[0] == name:
            OUT.print(f"[bold]{name}[/]\n" + "\n".join(lines), highlight=False)
        elif not words:
            OUT.print(f"[bold]{name:{width}}[/]{lines[0]}", highlight=False, soft_wrap=True)
    return 0


def doctor(words: list[str]) -> int:
    """What this machine has, and whether training works."""
    if words and words[0] in HELP:
        say(_DOCTOR)
        return 0
    if words:
        raise ConfigError(f"doctor takes no options, and was given {' '.join(words)}")
    from selfseg.training.doctor import doctor as run_doctor

    diagnosis = run_doctor()
    OUT.print(diagnosis.table())
    return 0 if diagnosis.healthy else 1


def _methods(known: dict[str, Any]) -> list[str]:
    return [name.removesuffix("_small") for name in known if name.endswith("_small")]
