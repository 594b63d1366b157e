# SPDX-License-Identifier: Apache-2.0
"""Store in memory that fails on demand, as `flaky://`, for tests."""

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from musiq_hf.common import stores


class FlakyFileSystem(MemoryFileSystem):
    """Store in the memory of this process. Any request may fail before it is answered.

    Attributes:
        failures: Errors of the next requests, each raised once. None lets a request pass.
        of_paths: Errors of all requests for one path, by the path; that of "*" is raised for all.
        requests: Names and paths of all requests.
    """

    protocol = "flaky"
    store, pseudo_dirs = {}, [""]
    failures, of_paths, requests, waits = [], {}, [], []

    @classmethod
    def _strip_protocol(cls, path):
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = str(path).removeprefix("flaky://").strip("/")
        return f"/{path}" if path else ""

    def _begin(self, name, path):
        self.requests.append((name, path))
        error = self.failures.pop(0) if self.failures else self.of_paths.get("*", self.of_paths.get(str(path)))
        if error is not None:
            raise error

    def info(self, path, **options):
        self._begin("info", path)
        return super().info(path, **options)

    def find(self, path, *words, **options):
        self._begin("find", path)
        return super().find(path, *words, **options)

    def cat_file(self, path, start=None, end=None, **options):
        self._begin("cat_file", path)
        return super().cat_file(path, start, end, **options)

    def pipe_file(self, path, value, mode="overwrite", **options):
        self._begin("pipe_file", path)
        return super().pipe_file(path, value, mode=mode, **options)

    def put_file(self, lpath, rpath, *words, **options):
        self._begin("put_file", rpath)
        return super().put_file(lpath, rpath, *words, **options)

    def ls(self, path, *words, **options):
        self._begin("ls", path)
        return super().ls(path, *words, **options)

    def rm(self, path, *words, **options):
        self._begin("rm", path)
        for one in [path] if isinstance(path, str) else path:
            self.rm_file(one)


def make_store(monkeypatch):
    """Return an empty store, which is waited for in no time; its attribute `waits` has the seconds."""
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    fresh = {"store": {}, "pseudo_dirs": [""], "failures": [], "of_paths": {}, "requests": [], "waits": []}
    for name, value in fresh.items():
        monkeypatch.setattr(FlakyFileSystem, name, value)
    FlakyFileSystem.clear_instance_cache()  # `+=` of an earlier test has given the instances lists of their own
    monkeypatch.setattr(stores, "sleep", FlakyFileSystem.waits.append)
    return FlakyFileSystem()
