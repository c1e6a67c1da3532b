"""The three methods by which embedders and segmenters are shared: as a folder, and through the Hugging Face hub.

They are named as `huggingface_hub.ModelHubMixin` names its own, and call that library's functions. Why the mixin is not
inherited stands in docs/design.md.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from selfseg.errors import CheckpointError, ConfigError
from selfseg.sharing.card import Kind, Network, Story, checked_licence, model_card
from selfseg.sharing.files import CARD, check_folder, check_own
from selfseg.sharing.hub import Token, check_repository, download, is_repository, upload
from selfseg.storage.files import write_folder_atomically, write_text

KNOWN_FILES = (
    CARD,
    "embedder.json",
    "weights.safetensors",
    "prototypes.safetensors",
    "segmenter.json",
    "embedder/embedder.json",
    "embedder/weights.safetensors",
)
"""All that a shared model may hold, of whichever kind."""


class Shareable:
    """A model that can be written as a folder of its own, and read from one, here or on the hub.

    A class says in `_KIND` and `_FILES` what it is, and has `load`, `save` and `shared_network`.
    """

    _KIND: ClassVar[Kind]
    _FILES: ClassVar[tuple[str, ...]]

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a folder of this model."""
        raise NotImplementedError

    def shared_network(self) -> Network:
        """What a model card says of the model itself."""
        raise NotImplementedError

    def save(self, folder: str | Path) -> object:
        """Write a folder of this model."""
        raise NotImplementedError

    def write_files(self, folder: Path) -> None:
        """Fill an empty folder with the model's own files, without what is only of this machine."""
        self.save(folder)

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: Token = None,
        local_files_only: bool = False,
        cache_dir: str | Path | None = None,
    ) -> Self:
        """Load a model that somebody shared, in evaluation mode, on the CPU.

        Only its JSON and safetensors files are fetched and read, with limits on their size and on what may stand in
        them. Nothing is unpickled, no code of the repository is run, and no other weights are fetched.

        Args:
            repo_or_folder: a folder, or USER/NAME of a repository on the Hugging Face hub. What is a folder here, is
                `Path`, or begins with "." or "/" is never looked for on the hub.
            revision: a branch, tag or commit of the repository; None = its main branch. With a commit you get the same
                model for ever.
            token: of the hub, for repositories that are not public; None = the one that `hf auth login` saved, False =
                none.
            local_files_only: take what was fetched earlier, and make no request.
            cache_dir: where fetched files are kept; None = the hub's own cache (HF_HOME).

        Raises:
            CheckpointError: if there is no such folder, or it or the repository holds no such model, or a damaged one.
            Unreachable: if the hub can't be reached or does not give it, and it was not fetched before.
            ConfigError: if a revision is given for a folder.

        Example:
            >>> from selfseg import Embedder
            >>> Embedder.from_pretrained("./no/such/folder")
            Traceback (most recent call last):
            ...
            selfseg.errors.CheckpointError: there is no folder no/such/folder
        """
        place = Path(repo_or_folder).expanduser()
        local = isinstance(repo_or_folder, Path) or os.path.lexists(place) or not is_repository(str(repo_or_folder))
        if not local:
            folder = download(str(repo_or_folder), cls._FILES, cls._KIND, revision, token, local_files_only, cache_dir)
            check_folder(folder, cls._FILES, cls._KIND)
            return cls.load(folder)
        if not place.is_dir():
            more = (
                ""
                if str(repo_or_folder)[:1] in "./~" or isinstance(repo_or_folder, Path)
                else (", and this is no name of a repository on the Hugging Face hub (USER/NAME)")
            )
            what = f"{place} is no folder" if os.path.lexists(place) else f"there is no folder {place}"
            raise CheckpointError(f"{what}{more}")
        if revision is not None:
            raise ConfigError(f"{place} is a folder, which has no revision {revision!r}; leave the revision out")
        check_folder(place, cls._FILES, cls._KIND)
        return cls.load(place)

    def save_pretrained(
        self, folder: str | Path, *, license: str | None = None, story: Story | None = None, repo: str = ""
    ) -> Path:
        """Write a folder that can be shared: the model's own files, and a model card, README.md. No request is made.

        Args:
            folder: a new or empty folder, or one that this method wrote; it appears at once.
            license: of the model, as the hub calls it, such as "apache-2.0"; None = none, which the card says.
            story: what the card shall say beside what the model is made of; `selfseg.export(run, "hub")` fills it in.
            repo: USER/NAME where it shall be, for the lines of the card.

        Returns:
            The folder.

        Raises:
            ConfigError: if there is something else, or the licence can't be one.
            StorageError: if it can't be written.
        """
        return write_shared(Path(folder), self.write_files, self.shared_network(), story or Story(), license, repo)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = True,
        license: str | None = None,
        story: Story | None = None,
        token: Token = None,
        revision: str | None = None,
        create_pr: bool = False,
        message: str = "",
    ) -> str:
        """Put the model into a repository of yours on the Hugging Face hub, with a model card.

        What is sent are the files of `save_pretrained`: weights, settings, the card. No image, log, recipe or path of
        this machine is among them. A model that the repository held before stays in its history.

        Args:
            repo: USER/NAME; it is made if there is none.
            private: whether only you can see it. A repository that is public already is refused then.
            license: see `save_pretrained`.
            story: see `save_pretrained`.
            token: of the hub, which may write; None = the one that `hf auth login` or HF_TOKEN gave.
            revision: the branch; None = main.
            create_pr: propose the change instead of making it.
            message: of the commit.

        Returns:
            The address of the repository's page, or of the proposed change.

        Raises:
            ConfigError: if the repository is public and `private` is asked for, a name can't be one, or a file names
                a place of this machine.
            Unreachable: if the hub can't be reached, or does not allow it.
        """
        check_repository(repo)
        with tempfile.TemporaryDirectory(prefix="selfseg-") as made:
            folder = self.save_pretrained(Path(made) / "model", license=license, story=story, repo=repo)
            return push_folder(
                folder, repo, private, token=token, revision=revision, create_pr=create_pr, message=message
            )


def write_shared(
    folder: Path, fill: Callable[[Path], None], network: Network, story: Story, license: str | None, repo: str
) -> Path:
    """Write a model and its card as a folder that appears at once.

    Args:
        folder: a new or empty folder, or one that was written so.
        fill: writes the model's files into an empty folder, with any of `KNOWN_FILES`.
        network: what the model is.
        story: how it came about.
        license: see `Shareable.save_pretrained`.
        repo: USER/NAME, or "".

    Returns, Raises:
        As `Shareable.save_pretrained`.
    """
    licence = checked_licence(license)
    if repo:
        check_repository(repo)
    _check_place(folder)

    def write(temporary: Path) -> None:
        fill(temporary)
        write_text(temporary / CARD, model_card(network, story, folder.name, licence, repo))

    write_folder_atomically(folder, write)
    return folder


def _check_place(folder: Path) -> None:
    """Raise ConfigError for anything else than a shared model; a run's own embedder is none, as it has no card."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder")
    if folder.is_dir():
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
        if there and (CARD not in there or not there <= set(KNOWN_FILES)):
            raise ConfigError(f"{folder} holds something else than a shared model; give a new folder")


def push_folder(
    folder: Path,
    repo: str,
    private: bool = True,
    secrets: tuple[Path | str, ...] = (),
    *,
    token: Token = None,
    revision: str | None = None,
    create_pr: bool = False,
    message: str = "",
) -> str:
    """Put a folder that `save_pretrained` wrote into a repository; it is looked through first.

    Args:
        folder: that was written.
        repo: USER/NAME.
        private: see `Shareable.push_to_hub`, as the others.
        secrets: places that no text in it may name, beside the home folder and the current one.
        token: of the hub.
        revision: the branch.
        create_pr: whether to propose the change.
        message: of the commit.

    Returns, Raises:
        As `Shareable.push_to_hub`.
    """
    check_own(folder, KNOWN_FILES, secrets)
    files = [name for name in KNOWN_FILES if (folder / name).is_file()]
    return upload(folder, repo, files, KNOWN_FILES, private, token, revision, create_pr, message)
