"""What a URL is, and names from a server's listing, which are not trusted."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from selfseg.errors import DataError

SCHEMES = ("s3", "s3a", "gs", "gcs", "http", "https", "abfs", "abfss", "az", "sftp", "ftp", "memory")
"""What begins a URL; a closed list, because NAME:ROOT names a data set."""

_URL = re.compile(rf"\b({'|'.join(SCHEMES)}):/{{1,2}}(?=[^/])")


def as_url(place: object) -> str | None:
    """A place as a URL; None if it is none. A URL that was a Path has lost one of its slashes, and gets it back.

    Example:
        >>> as_url(Path("s3://bucket/photos/")), as_url("photos"), as_url("camvid:/data/camvid")
        ('s3://bucket/photos', None, None)
    """
    if not isinstance(place, str | Path):
        return None
    text = str(place)
    found = _URL.match(text)
    return f"{found[1]}://{text[found.end() :].rstrip('/')}" if found else None


def repaired(text: str) -> str:
    """A text in which URLs that were paths have got their second slash back."""
    return _URL.sub(lambda found: f"{found[1]}://", text)


def is_web(url: str) -> bool:
    """Whether it is `http` or `https`, where names are percent-encoded and nothing can be written."""
    return url.startswith(("http://", "https://"))


def shown(url: str) -> str:
    """A URL for messages: without what may be secret in it, a password or a signature.

    Example:
        >>> shown("https://me:secret@host/a.zip?token=1")
        'https://host/a.zip?...'
    """
    url = re.sub(r"^(\w+://)[^/@]*@", r"\1", url)
    return re.sub(r"\?.*", "?...", url, flags=re.DOTALL) if is_web(url) else url


def suffix_of(url: str) -> str:
    """The suffix of a URL's last name, in lower case.

    Example:
        >>> suffix_of("https://host/a.b/x%20y.JPG?size=2"), suffix_of("s3://bucket")
        ('.jpg', '')
    """
    path = unquote(urlsplit(url).path) if is_web(url) else url.partition("://")[2].partition("/")[2]
    return posixpath.splitext(path)[1].lower()


def inner_name(url: str, folder: str) -> str:
    """The name of a listed file below its folder, with "/", which can be put below any local folder.

    Raises:
        DataError: if it is not below the folder, or leads out of it.

    Example:
        >>> inner_name("s3://bucket/photos/a/b.jpg", "s3://bucket/photos")
        'a/b.jpg'
    """
    rest = url.removeprefix(folder.rstrip("/") + "/")
    if rest == url:
        raise DataError(f"{shown(folder)} lists {shown(url)!r}, which does not lie in it; it is not opened")
    name = unquote(rest.partition("?")[0]) if is_web(url) else rest
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise DataError(
            f"{shown(folder)} lists the name {name!r}, which leads out of it or is no file's name; rename it there"
        )
    if any(len(part.encode("utf-8", "surrogateescape")) > 240 for part in parts):
        raise DataError(f"{shown(folder)} lists the name {name!r}, which is too long for a file; rename it there")
    return name
