from pathlib import Path

import pytest

from selfseg.errors import DataError
from selfseg.storage.remote.urls import as_url, inner_name, repaired, shown


def test_what_is_a_url() -> None:
    assert as_url(Path("s3://bucket/a/b")) == "s3://bucket/a/b"  # a Path has lost a slash
    assert as_url("https://host/a.zip?token=1") == "https://host/a.zip?token=1"
    for local in (
        "photos",
        "/data/s3",
        "camvid:/data/camvid",
        "camvid:s3://b/camvid",
        "shards:s3://b/{0..1}.tar",
        None,
    ):
        assert as_url(local) is None


def test_messages_hold_no_secrets_and_whole_urls() -> None:
    assert shown("https://host/a?X-Amz-Signature=1") == "https://host/a?..."
    assert shown("sftp://me:word@host/a") == "sftp://host/a"
    assert repaired("no run at s3:/b/x; camvid:/data stays") == "no run at s3://b/x; camvid:/data stays"


@pytest.mark.parametrize(
    "url",
    [
        "s3://b/photos/../../etc/passwd",
        "s3://b/photos//a.jpg",
        "s3://b/photos/a/./b.jpg",
        "s3://b/photos/a\\..\\b.jpg",
        "s3://b/photos/" + "x" * 300,
        "s3://b/other/a.jpg",
        "s3://b/photos2/a.jpg",
    ],
)
def test_names_that_lead_out_are_refused(url: str) -> None:
    with pytest.raises(DataError):
        inner_name(url, "s3://b/photos")


def test_names_are_unquoted_only_over_http() -> None:
    assert inner_name("https://h/p/a%20b.jpg", "https://h/p") == "a b.jpg"
    assert inner_name("s3://b/p/a%20b.jpg", "s3://b/p") == "a%20b.jpg"
    with pytest.raises(DataError, match="leads out"):
        inner_name("https://h/p/%2e%2e/x.jpg", "https://h/p")
    with pytest.raises(DataError, match="leads out"):
        inner_name("https://h/p/..%2f..%2fx.jpg", "https://h/p")
