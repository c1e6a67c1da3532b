"""The command `selfseg`: each verb is one public function of the same name (masks: `mine_masks`, data: `check_data`).

A run that was stopped by a signal exits with 75; wrong options with 2, bad files with 3, an unusable run with 4, a loss
that is not a number with 5.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.markup import escape
from tyro.conf import Positional, arg

from selfseg.cli.console import ERR, OUT, parse, say
from selfseg.cli.data_sets import data
from selfseg.cli.measuring import compare, evaluate, finetune, transfer
from selfseg.errors import ConfigError, Interrupted, SelfsegError
from selfseg.version import __version__

if TYPE_CHECKING:
    from selfseg.training.recipe import Recipe

_USAGE = """[bold]selfseg[/]: a folder of unlabelled images becomes a semantic segmenter

  [bold]train[/]     RECIPE IMAGES --out RUN      learn an embedding; the same command goes on with a stopped run
  [bold]cluster[/]   RUN IMAGES -k 8 27           group the pixels of all images into k concepts
  [bold]segment[/]   RUN IMAGES --out DIR         an index PNG and a coloured overlay per image
  [bold]embed[/]     RUN IMAGES --out DIR         one vector per pixel, memory-mapped float16
  [bold]concepts[/]  RUN IMAGES --top 10          what each prototype (or with --k each cluster) finds
  [bold]evaluate[/]  RUN DATA --protocols linear  measure on a labelled folder, beside trivial baselines
  [bold]compare[/]   RUN... DATA --out DIR        several runs under one protocol, on one page
  [bold]finetune[/]  RUN DATA --labels 1 5 25     what the run is worth where labels are few, as a curve
  [bold]transfer[/]  PRESET RUN DATA --out DIR    fine-tune the backbone on a task with labels, and measure it
  [bold]data[/]      NAME:ROOT                    is a data set complete? counts, damage, classes, a contact sheet
  [bold]masks[/]     IMAGES --out MASKS           what stands out in each image, as masks of objects
  [bold]report[/]    RUN                          one page that shows what was learned
  [bold]export[/]    RUN --format timm            what was learned, in the files that other projects load
  [bold]recipes[/]                                what can be trained
  [bold]doctor[/]                                 what this machine has, and whether training works

`selfseg VERB --help` tells the options; `selfseg train RECIPE --help` every setting of a recipe."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `selfseg`; None takes the process's.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        OUT.print(_USAGE, highlight=False)
        return 0
    if words[0] in ("-V", "--version"):
        OUT.print(f"selfseg {__version__}", highlight=False)
        return 0
    try:
        verb = _VERBS.get(words[0])
        if verb is None:
            raise ConfigError(f"no verb {words[0]!r}; there are {', '.join(_VERBS)}")
        return verb(words[1:])
    except SelfsegError as error:
        ERR.print("[bold red]error:[/] ", end="")
        ERR.print(str(error), markup=False, highlight=False, soft_wrap=True)  # paths are copied from it
        return error.exit_code
    except SystemExit as stop:  # tyro's way to end after --help and wrong options
        return stop.code if isinstance(stop.code, int) else ConfigError.exit_code
    except KeyboardInterrupt:
        ERR.print("interrupted")
        return 130


def _train(words: list[str]) -> int:
    from selfseg.training.recipe import recipes

    known = recipes()
    if not words or words[0] in ("-h", "--help"):
        OUT.print("selfseg train RECIPE IMAGES --out RUN [settings]; the recipes:\n", highlight=False)
        _list_recipes([])
        return 0 if words else ConfigError.exit_code
    name, rest = words[0], words[1:]
    # A method's name stands for its recipe for one's own images.
    function = known.get(f"{name}_small" if f"{name}_small" in known else name)
    if function is None:
        raise ConfigError(f"no recipe {name!r}; there are {', '.join([*_methods(known), *known])}")
    recipe = parse_recipe(function, rest, f"selfseg train {name}")
    from selfseg.models.distributed import rank
    from selfseg.training.loop import train

    try:
        run = train(recipe)
    except Interrupted:
        # Fabric kills all processes of a run, its first one too, when it sees that one has ended with an error.
        if rank() > 0:
            return 0
        raise
    if rank() == 0:
        say(f"trained: {run}; next: selfseg cluster {run} {recipe.images} -k 8 27")
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
    masks = {"masks": tyro.MISSING} if "masks" in inspect.signature(function).parameters else {}
    default = function(Path("IMAGES"), Path("RUN"), **masks)
    given = {word.split("=")[0] for word in words}
    if "--steps" in given and "--epochs" not in given:
        default = replace(default, steps=1, epochs=None)
    elif "--epochs" in given and "--steps" not in given:
        default = replace(default, steps=None, epochs=1.0)
    default = replace(default, images=tyro.MISSING, out=tyro.MISSING)
    settings: Any = Recipe[type(default.method)]  # type: ignore[misc]
    recipe: Recipe[Any] = tyro.cli(settings, default=default, args=list(words), prog=prog, description=function.__doc__)
    return recipe


def _cluster(
    run: Positional[Path],
    images: Positional[Path],
    k: Annotated[tuple[int, ...], arg(aliases=["-k"])] = (27,),
    seed: int = 0,
    points: int = 200_000,
    position: float = 0.0,
    device: str = "auto",
    max_bad: float = 0.05,
) -> int:
    """Group the pixels of a collection into k clusters; several k from one pass over the images.

    Args:
        run: the trained run.
        images: folder of images, or NAME:ROOT.
        k: numbers of clusters.
        seed: of the sampled pixels and k-means.
        points: pixels that k-means sees.
        position: how much a pixel's place in its image has a say; e.g. 1 for a camera that stands.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
    """
    from selfseg.collection.inference import cluster

    paths = cluster(run, images, k, seed=seed, points=points, position=position, device=device, max_bad=max_bad)
    for path in paths:
        say(f"written: {path}")
    return 0


def _segment(
    run: Positional[Path],
    images: Positional[Path],
    out: Path,
    k: Annotated[int | None, arg(aliases=["-k"])] = None,
    device: str = "auto",
    max_bad: float = 0.05,
) -> int:
    """Segment every image: an index PNG and a coloured overlay, at the image's own size.

    Args:
        run: the trained and clustered run.
        images: folder of images, or NAME:ROOT.
        out: folder for the results.
        k: which clustering; the largest if not given.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
    """
    from selfseg.collection.inference import segment

    say(f"written: {segment(run, images, out, k=k, device=device, max_bad=max_bad)}")
    return 0


def _embed(
    run: Positional[Path], images: Positional[Path], out: Path, device: str = "auto", max_bad: float = 0.05
) -> int:
    """Write one vector per pixel of every image: memory-mapped float16 with geometry.

    Args:
        run: the trained run.
        images: folder of images, or NAME:ROOT.
        out: folder for the results.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
    """
    from selfseg.collection.inference import embed

    say(f"written: {embed(run, images, out, device=device, max_bad=max_bad)}")
    return 0


def _concepts(
    run: Positional[Path],
    images: Positional[Path],
    top: int = 10,
    k: Annotated[int | None, arg(aliases=["-k"])] = None,
    resolution: int | None = None,
    crop: int | None = None,
    min_share: float = 0.01,
    device: str = "auto",
    max_bad: float = 0.05,
) -> int:
    """Show what each concept finds: its best segments over a collection, with counts, as RUN/concepts.html.

    Args:
        run: the trained run.
        images: folder of images, or NAME:ROOT.
        top: segments shown of each concept.
        k: the run's clusters with this k instead of its prototypes.
        resolution: short side in px that images are resized to; the run's own if not given.
        crop: side in px of the centre square that is looked at; the whole image if not given.
        min_share: segments below this share of their image are ranked last.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
    """
    from selfseg.collection.concepts import concepts

    page = concepts(
        run,
        images,
        top=top,
        k=k,
        resolution=resolution,
        crop=crop,
        min_share=min_share,
        device=device,
        max_bad=max_bad,
    )
    say(f"written: {page}")
    return 0


def _report(run: Positional[Path], images: Path | None = None, count: int = 12, device: str = "auto") -> int:
    """Write RUN/report.html, one page that shows what was learned.

    Args:
        run: the run.
        images: folder of images to show; the run's own if not given.
        count: how many of them.
        device: auto, cpu or cuda.
    """
    from selfseg.collection.report import report

    say(f"written: {report(run, images=images, count=count, device=device)}")
    return 0


def _masks(words: list[str]) -> int:
    from selfseg.cli.masks import masks

    say(f"written: {tyro.cli(masks, prog='selfseg masks', args=words)}")
    return 0


def _export(
    run: Positional[Path],
    format: Literal["timm", "torchvision", "detectron2", "mmseg", "safetensors", "onnx"],
    out: Path | None = None,
) -> int:
    """Write what a run has learned in the files that other projects load, each checked by loading it.

    Args:
        run: the trained run.
        format: timm, torchvision, detectron2, mmseg: the backbone; safetensors, onnx: the whole embedder.
        out: the file (for safetensors the folder); in RUN/export if not given.
    """
    from selfseg.exporting.export import card_of, export

    path = export(run, format, out)
    say(f"written: {path}; how to load it: {card_of(path)}")
    return 0


def _list_recipes(words: list[str]) -> int:
    from selfseg.training.recipe import recipes

    if words and words[0] not in recipes():
        raise ConfigError(f"no recipe {words[0]!r}; there are {', '.join(recipes())}")
    for name, function in recipes().items():
        lines = [escape(line.strip()) for line in (function.__doc__ or "").strip().splitlines()]
        if words and words[0] == name:
            OUT.print(f"[bold]{name}[/]\n" + "\n".join(lines), highlight=False)
        elif not words:
            OUT.print(f"[bold]{name:26}[/]{lines[0]}", highlight=False, soft_wrap=True)
    return 0


def _doctor(words: list[str]) -> int:
    if words:
        raise ConfigError(f"doctor takes no options, not {' '.join(words)}")
    from selfseg.training.doctor import doctor

    diagnosis = doctor()
    OUT.print(diagnosis.table())
    return 0 if diagnosis.healthy else 1


def _methods(known: dict[str, Any]) -> list[str]:
    return [name.removesuffix("_small") for name in known if name.endswith("_small")]


_VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "cluster": lambda words: parse("cluster", _cluster, words),
    "segment": lambda words: parse("segment", _segment, words),
    "embed": lambda words: parse("embed", _embed, words),
    "concepts": lambda words: parse("concepts", _concepts, words),
    "evaluate": lambda words: parse("evaluate", evaluate, words),
    "compare": lambda words: parse("compare", compare, words),
    "finetune": finetune,
    "transfer": transfer,
    "data": data,
    "masks": _masks,
    "report": lambda words: parse("report", _report, words),
    "export": lambda words: parse("export", _export, words),
    "recipes": _list_recipes,
    "doctor": _doctor,
}
