# SPDX-License-Identifier: Apache-2.0
"""Objects of remote stores: addresses that are refused, errors, and what is asked again."""

import pickle

import pytest

from musiq_hf.common.stores import (
    StoreError,
    ask,
    check_url,
    hide_password,
    is_of_one_object,
    is_remote,
    open_binary,
    read_object,
)


class ClientError(Exception):
    """Error as botocore makes it, of which s3fs makes an OSError."""

    def __init__(self, code):
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


def caused_by(error, code):
    error.__cause__ = ClientError(code)
    return error


@pytest.mark.parametrize(
    "path", ["s3://b/x.png", "gs://b", "memory://", "abfs://c@a.dfs.core.windows.net/x", "s3x://b"]
)
def test_urls_are_remote(path):
    assert is_remote(path)


@pytest.mark.parametrize(
    "path",
    ["http://a/b.png", "https://a/b.png", "hf://datasets/a/b", "a.png", "s3:/b", "c://x", "a b://x"],
)
def test_other_paths_keep_their_meaning(path):
    assert not is_remote(path)


@pytest.mark.parametrize(
    "url, words",
    [
        ("s4://b/x", "s4://b/x: fsspec knows no s4://"),
        ("file:///x.png", "is named by its plain path. Drop file://"),
        ("zip://a.png::s3://b/x.zip", "lead through another file"),
        ("s3://me:secret@b/x.png", r"^s3://b/x.png: the address holds a user name and a password"),
    ],
)
def test_addresses_that_cannot_be_read_are_one_sentence(url, words):
    with pytest.raises(ValueError, match=words) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named_with_its_pip_line(monkeypatch):
    import fsspec

    def fail(protocol):
        try:
            raise ModuleNotFoundError("No module named 's3fs'", name="s3fs")
        except ModuleNotFoundError as error:
            raise ImportError("Install s3fs to access S3") from error

    monkeypatch.setattr(fsspec, "get_filesystem_class", fail)
    with pytest.raises(ImportError, match="s3://b: s3fs is needed for s3://. Install it with: pip install s3fs$"):
        check_url("s3://b")


def test_a_store_is_asked_three_times(store, caplog):
    store.pipe_file("/a", b"content")
    store.failures += [OSError("gone"), RuntimeError("reset")]
    assert read_object("flaky://a") == b"content" and store.waits == [5, 30]
    assert "flaky://a: the store gives no answer (OSError: gone). Trying again in 5 seconds." in caplog.messages
    store.failures += [OSError("gone")] * 3
    with pytest.raises(StoreError, match=r"flaky://a: .* tried 3 times \(OSError: gone\). The same command contin"):
        read_object("flaky://a")
    assert store.waits == [5, 30] * 2 and not store.failures


def test_a_store_that_takes_minutes_to_fail_is_not_asked_again(store, monkeypatch):
    now = iter([0, 121])
    monkeypatch.setattr("musiq_hf.common.stores.monotonic", lambda: next(now))
    store.failures += [OSError("no bytes in time")]
    with pytest.raises(StoreError, match=r"no answer, tried 1 time \(OSError: no bytes in time\). The same command"):
        read_object("flaky://a")
    assert not store.waits


def test_before_any_work_it_is_asked_once(store):
    store.failures += [OSError("gone")]
    with pytest.raises(StoreError, match=r"no answer \(OSError: gone\). Check the address, and the credentials"):
        ask("flaky://a", lambda store, path: store.info(path), once=True)
    assert not store.waits


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("x"),
        PermissionError("x"),
        caused_by(PermissionError("x"), "AccessDenied"),
        IsADirectoryError("x"),
        ValueError("odd name"),
        OSError(36, "File name too long"),
        caused_by(OSError(22, "x"), "InvalidRange"),
    ],
)
def test_errors_of_one_object_are_not_asked_again(store, error):
    store.failures += [error]
    with pytest.raises(type(error)) as caught:
        read_object("flaky://a")
    assert caught.value is error and not store.waits


def test_a_refusal_without_a_reason_is_asked_for_it(store):
    store.failures += [PermissionError("Forbidden"), caused_by(PermissionError("x"), "ExpiredToken")] * 3
    with pytest.raises(StoreError, match="tried 3 times"):  # the credentials have ended, and no object is forbidden
        read_object("flaky://a")
    store.failures += [PermissionError("Forbidden"), caused_by(PermissionError("x"), "AccessDenied")]
    with pytest.raises(PermissionError):
        read_object("flaky://a")
    assert not store.failures


@pytest.mark.parametrize(
    "error",
    [
        OSError("x"),
        TimeoutError("x"),
        ConnectionError("x"),
        caused_by(PermissionError("x"), "ExpiredToken"),
        ClientError("SlowDown"),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
        KeyError("x"),
    ],
)
def test_all_other_errors_are_failures_of_the_store(error):
    assert not is_of_one_object(error)


def test_passwords_and_signatures_are_in_no_message(store):
    assert hide_password("a s3://me:secret@b/c d") == "a s3://b/c d"
    store.of_paths["*"] = OSError(
        "no way to http://me:secret@host:80/a?X-Sig=secret, nor\nto 'https://b/c?sig=secret'"
    )
    with pytest.raises(StoreError) as caught:
        read_object("flaky://a")
    assert "secret" not in str(caught.value) and "no way to http://host:80/a nor to 'https://b/c'" in str(caught.value)


def test_the_error_travels():
    copy = pickle.loads(pickle.dumps(StoreError("words")))
    assert type(copy) is StoreError and str(copy) == "words"


def test_a_stored_file_is_read_at_any_place(store):
    content = bytes(range(256)) * 40
    store.pipe_file("/a", content)
    with open_binary("flaky://a") as file:
        assert file.read(3) == content[:3] and file.seek(-5, 2) == len(content) - 5
        assert file.read() == content[-5:] and file.read(1) == b"" and file.seek(10_000) == 10_000
        assert file.read(10) == content[10_000:10_010] and file.seek(7) == 7 and file.read() == content[7:]
    assert read_object("flaky://a", 5, 9) == content[5:9] and read_object("flaky://a", 5, 5) == b""
    with pytest.raises(FileNotFoundError):
        open_binary("flaky://b")
