"""Requests to the Hugging Face hub, made only where a person asks by name; what goes wrong is an error of ours.

`huggingface_hub` is imported when the first request is made.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfseg.errors import ConfigError, SelfsegError, StorageError, Unreachable
from selfseg.sharing.files import check_listing
from selfseg.telling import tell, tell_after
from selfseg.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Token = str | bool | None
"""A token of the hub; None = the one that `hf auth login` or HF_TOKEN gave, if any; False = none."""

_PART = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def is_repository(name: str) -> bool:
    """Whether a text can be the name of a repository, USER/NAME.

    Example:
        >>> is_repository("user/my-embedder"), is_repository("./user/a"), is_repository("user"), is_repository("a/b/c")
        (True, False, False, False)
    """
    return _NAME.fullmatch(name) is not None and "--" not in name and ".." not in name


def check_repository(name: str) -> None:
    """Raise ConfigError if a text can't be the name of a repository."""
    if not is_repository(name):
        raise ConfigError(
            f"{name!r} is no name of a repository on the Hugging Face hub; it is USER/NAME with letters, digits, - _ "
            "and ., such as me/street-scenes"
        )


def page_of(repo: str) -> str:
    """The address of a repository's page."""
    import huggingface_hub.constants

    return f"{huggingface_hub.constants.ENDPOINT}/{repo}"


def download(
    repo: str,
    files: Collection[str],
    what: str,
    revision: str | None = None,
    token: Token = None,
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
) -> Path:
    """Fetch the named files of a repository, and no others.

    The listing is looked at first, so that nothing is fetched from a repository that can't be a model, or that has an
    absurd size. Where the hub can't be reached, what was fetched before is used.

    Args:
        repo: USER/NAME.
        files: names with "/".
        what: "embedder" or "segmenter", for messages.
        revision: a branch, tag or commit; None = the main branch.
        token: see `Token`.
        local_files_only: whether no request is made.
        cache_dir: where fetched files are kept; None = the hub's own cache, see HF_HOME.

    Returns:
        The folder in the cache.

    Raises:
        Unreachable: if the hub can't be reached or doesn't give the files, and there is no copy in the cache.
        CheckpointError: if the repository holds no such model.
        ConfigError: if the name can't be a repository's.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    check_repository(repo)
    api, reason = _api(token), ""
    if not local_files_only:
        with _errors(repo, revision), tell_after(f"still asking the Hugging Face hub for {repo}"):
            try:
                info = api.model_info(repo, revision=revision, files_metadata=True)
            except Exception as error:
                if not _is_away(error):
                    raise
                reason, local_files_only = _reason(error), True
            else:
                sizes = {each.rfilename: each.size for each in info.siblings or ()}
                check_listing(sizes, files, f"the repository {repo}", what)
    with _errors(repo, revision):
        try:
            found = hub.snapshot_download(
                repo,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                allow_patterns=list(files),  # each is a whole name
                library_name="selfseg",
                library_version=__version__,
            )
        except LocalEntryNotFoundError as error:
            why = f"the hub can't be reached ({reason})" if reason else "no request was allowed"
            raise Unreachable(
                f"{repo} is not among the copies that were fetched from the Hugging Face hub earlier, and {why}. "
                "Connect and call again, or fetch it elsewhere and give the folder: "
                f"hf download {repo} --local-dir FOLDER"
            ) from error
    return Path(found)


def upload(
    folder: Path,
    repo: str,
    files: Collection[str],
    known: Collection[str],
    private: bool = True,
    token: Token = None,
    revision: str | None = None,
    create_pr: bool = False,
    message: str = "",
) -> str:
    """Put files into a repository in one commit; the repository is made if there is none.

    Args:
        folder: where the files lie.
        repo: USER/NAME.
        files: names with "/"; nothing else is sent.
        known: names that an earlier model may have left there; those that are not sent are removed.
        private: whether the repository shall be closed to others. One that is public already is refused then.
        token: see `Token`.
        revision: the branch; None = main.
        create_pr: whether to propose the change instead of making it.
        message: of the commit.

    Returns:
        The address of the repository's page, or of the proposed change.

    Raises:
        ConfigError: if the repository is public and `private` is asked for, or the name can't be one.
        Unreachable: if the hub can't be reached, or doesn't allow it.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    check_repository(repo)
    api = _api(token)
    with _errors(repo, revision, writes=True):
        there: set[str] = set()
        try:
            info = api.model_info(repo)
        except RepositoryNotFoundError:
            api.create_repo(repo, private=private, exist_ok=True)
        else:
            if private and info.private is False:
                raise ConfigError(
                    f"{page_of(repo)} is public, so everybody could take the model; say that this is wanted "
                    "(--public, in Python private=False), or give another name"
                )
            if not private and info.private:
                tell(f"{page_of(repo)} is private and stays so; its settings can open it to everybody")
            if revision is not None:
                try:
                    info = api.model_info(repo, revision=revision)
                except RevisionNotFoundError:
                    api.create_branch(repo, branch=revision)
            there = {each.rfilename for each in info.siblings or ()}
        left = sorted((set(known) & there) - set(files))
        operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in sorted(files)]
        operations += [CommitOperationDelete(name) for name in left]
        commit = api.create_commit(
            repo,
            operations,
            commit_message=message or f"Model written by selfseg {__version__}",
            revision=revision,
            create_pr=create_pr,
        )
    return str(commit.pr_url) if create_pr and commit.pr_url else page_of(repo)


def _api(token: Token) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="selfseg", library_version=__version__)


def _status(error: BaseException) -> int | None:
    """The hub's answer, if it gave one."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def _is_away(error: BaseException) -> bool:
    """Whether the hub can't be reached, or says that it is out of order: what was fetched before is used then."""
    if (status := _status(error)) is not None:
        return status >= 500
    return isinstance(error, _client_errors()) and not isinstance(error, SelfsegError | ValueError)


def _client_errors() -> tuple[type[Exception], ...]:
    """What the library and its HTTP client raise, which is requests, httpx or httpx2, by its version."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, ValueError, *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)))


def _reason(error: BaseException) -> str:
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set"
    if (status := _status(error)) is not None:
        return f"it answers with {status}"
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def _errors(repo: str, revision: str | None, writes: bool = False) -> Iterator[None]:
    """Turn errors of `huggingface_hub` into sentences; its own texts have several lines and addresses of requests."""
    from huggingface_hub import errors

    try:
        yield
    except SelfsegError:
        raise
    except errors.GatedRepoError as error:
        raise Unreachable(f"{repo} is open only to those whom its owner let in; ask on {page_of(repo)}") from error
    except errors.RepositoryNotFoundError as error:
        if writes:
            raise Unreachable(f"the hub does not let you write to {repo}; check the name, and {_LOG_IN}") from error
        raise Unreachable(
            f"there is no folder {repo} here, and no repository {repo} on the Hugging Face hub that you may see; check "
            f"the name, or if it is private, {_LOG_IN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise Unreachable(f"{repo} has no branch, tag or commit {revision!r}; {page_of(repo)} lists them") from error
    except _client_errors() as error:
        status = _status(error)
        if status in (401, 403):
            act = "write to" if writes else "read"
            raise Unreachable(f"the hub does not let you {act} {repo} ({status}); {_LOG_IN}") from error
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(
                f"can't keep what is fetched of {repo}: {error}; HF_HOME says where it is kept"
            ) from error
        where = "send it to" if writes else "fetch it from"
        raise Unreachable(f"can't {where} {page_of(repo)}: {_reason(error)}; call again later") from error
