# SPDX-License-Identifier: Apache-2.0
"""Pictures decoded ahead of their scoring, in threads or in processes, in order and few at a time."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
from PIL import Image, ImageFile

from .finding import find_pictures
from .lazy import LazyPicture, name_file
from .opening import (
    MAX_MEGAPIXELS,
    Preset,
    check_megapixels,
    compute_shrunk_size,
    describe,
    open_picture,
    read_bytes,
    shrink_shorter_side,
    to_rgb_tensor,
)

CRASHED = "the process that decoded it ended at once: the file crashes its decoder, or memory ran out"
TOO_LARGE = "Shrink it first (--shorter_side), or raise the limit (--max_megapixels)."
CANNOT_START = (
    "The processes that decode cannot be started. In a script of your own, begin with "
    '`if __name__ == "__main__":`, or decode in threads.'
)


@dataclass(frozen=True)
class Decoder:
    """Function from a source to pixels, the same in a thread and in a process.

    It only decodes, and leaves out work that would use several cores.

    Attributes:
        preset: Way in which files become pixels.
        shorter_side: Length, in pixels, to which the shorter side of files and PIL images is shrunk first; None keeps
            their size.
        max_megapixels: Largest size of a picture as it is scored, in millions of pixels; it is known before decoding.
        do_convert_rgb: Whether pictures in other colour modes become RGB; if not, they raise a ValueError.
        input_data_format: Layout of arrays and tensors, see `to_rgb_tensor`; None infers it.
    """

    preset: Preset = "default"
    shorter_side: int | None = None
    max_megapixels: float = MAX_MEGAPIXELS
    do_convert_rgb: bool = True
    input_data_format: str | None = None

    def __call__(self, source: Any, name: str | None = None) -> torch.Tensor:
        """Return pixels, shape (height, width, 3): uint8, or float32 in [0, 1] where 8 bits would lose something.

        Args:
            source: Picture.
            name: Name of the picture in error messages; None takes that of its file.

        Raises:
            ValueError: If the picture cannot be used, or is too large.
            FileNotFoundError: If a path does not exist.
            TypeError: If `source` is no picture at all, or an array that is to be shrunk.
        """
        if isinstance(source, np.ndarray | torch.Tensor):
            if self.shorter_side is not None:
                raise TypeError("`shorter_side` shrinks files and PIL images, got an array. Shrink it before.")
        else:
            if isinstance(source, LazyPicture):
                source = source.open(self.preset, check_size=self._check_size)
            else:
                source = open_picture(source, self.preset, name=name, check_size=self._check_size)
            if self.shorter_side is not None:
                source = shrink_shorter_side(source, self.shorter_side)
        pixels = to_rgb_tensor(
            source, input_data_format=self.input_data_format, do_convert_rgb=self.do_convert_rgb, keep_uint8=True
        ).detach()
        # Arrays are checked here, and files with a false head.
        self._check_size((pixels.shape[1], pixels.shape[0]), name or describe(source))
        return pixels

    def _check_size(self, size: tuple[int, int], name: str) -> None:
        """Raise a ValueError if a picture of this width and height, in pixels, is too large once it is shrunk."""
        if self.shorter_side is not None:
            size = compute_shrunk_size(size, self.shorter_side)
        check_megapixels(size, name, max_megapixels=self.max_megapixels, advice=TOO_LARGE)

    def to_array(self, source: Any, name: str | None = None) -> np.ndarray:
        """Return the same pixels as an array.

        A tensor would travel between processes in shared memory, of which containers have little.
        """
        return self(source, name).numpy()


class _Waiting(NamedTuple):
    """Picture that is being decoded."""

    key: Any
    name: str  # in error messages
    source: Any
    future: Future[Any]


def list_pictures(pictures: Any) -> Iterable[Any]:
    """Return an iterable of pictures: of one picture itself, of a folder those below it, and else what was given.

    Raises:
        ValueError: If a folder holds no picture.
    """
    if isinstance(pictures, str | os.PathLike) and os.path.isdir(pictures):
        return find_pictures(pictures)
    if isinstance(pictures, np.ndarray | torch.Tensor):
        return [pictures] if pictures.ndim in (2, 3) else pictures
    is_file = isinstance(pictures, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(pictures, "seekable")
    return [pictures] if is_file or isinstance(pictures, Image.Image | LazyPicture | Mapping) else pictures


def name_picture(key: Any) -> str:
    """Return the name in error messages of a picture that has this key: the key itself, if it is a text."""
    return os.fsdecode(key) if isinstance(key, str | os.PathLike) else f"picture {key}"


def _find_path(picture: Any) -> Any:
    """Return the path of a picture, as far as it is known."""
    if isinstance(picture, str | os.PathLike):
        return picture
    return picture.get("path") if isinstance(picture, Mapping) else getattr(picture, "filename", None)


def _name_pictures(pictures: Iterable[Any]) -> Iterator[tuple[Any, str, Any]]:
    """Return key, name in error messages and source of every picture.

    Without a key it gets its path, or its number in the stream. The name is that of the file then, if it has one.
    """
    for index, picture in enumerate(pictures):
        if isinstance(picture, tuple):
            if len(picture) != 2:
                raise ValueError(f"A picture must be a source or a pair (key, source), got a tuple of {len(picture)}.")
            yield picture[0], name_file(name_picture(picture[0]), _find_path(picture[1])), picture[1]
        else:
            key = os.fspath(picture) if isinstance(picture, str | os.PathLike) else index
            yield key, name_picture(_find_path(picture) or key), picture


def _copy_pixels(source: Any) -> Any:
    """Return the source, or a copy of what its owner may fill anew while it waits here; a file is read."""
    if isinstance(source, torch.Tensor):
        return source.detach().clone()
    if isinstance(source, Mapping):
        content = source.get("bytes")
        return {**source, "bytes": bytes(content)} if isinstance(content, bytearray | memoryview) else dict(source)
    if isinstance(source, np.ndarray):
        return source.copy()
    try:
        content = read_bytes(source)
    except (OSError, ValueError):  # of a file that is closed, say; decoding meets it again, and makes it an error
        return source
    return source if content is None else content


def silence_decoders() -> None:
    """Stop Pillow's warnings and libtiff's lines on stderr, for a program whose rows say which file is damaged.

    Neither names the file. libtiff has no door in Python, so its library is looked for among Pillow's own.
    """
    warnings.filterwarnings("ignore", module=r"PIL\b")
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as many pixels are an error anyway
    package = Path(PIL.__file__).parent
    for path in (*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")):
        library = ctypes.CDLL(str(path))
        for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


class DecoderLimits(NamedTuple):
    """Settings of Pillow for a whole process, which another process that decodes takes over.

    Attributes:
        max_pixels: Largest picture that it decodes, in pixels; None sets no limit.
        load_truncated: Whether it decodes files that end early.
    """

    max_pixels: int | None
    load_truncated: bool

    @classmethod
    def read(cls) -> "DecoderLimits":
        """Read the settings of this process."""
        return cls(Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)

    def adopt(self) -> None:
        """Set them in this process, and silence its decoders."""
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self
        silence_decoders()


def _start_worker(limits: DecoderLimits) -> None:
    """Take over Pillow's settings, leave Ctrl-C to the process that started this one, and end when it ends."""
    limits.adopt()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _do_nothing() -> None:
    """Do nothing; any process that can start can do that."""


def _start_processes(number: int) -> ProcessPoolExecutor:
    """Ask processes to start.

    They are not forked from here: a process that holds threads of torch, or a GPU, cannot be copied safely.
    """
    method = "spawn" if sys.platform == "win32" else "forkserver"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(number, mp_context=context, initializer=_start_worker, initargs=(DecoderLimits.read(),))
    try:
        with _hold_interrupts():
            pool.submit(_do_nothing)
    except KeyboardInterrupt:  # processes that are starting still need this one
        pool.shutdown(cancel_futures=True)
        raise
    return pool


@contextmanager
def _hold_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait until processes have been started.

    The server that starts them inherits that Ctrl-C is blocked, so it never sees it.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # started later, it would let Ctrl-C through again
    came: list[Any] = []
    handler = signal.signal(
        signal.SIGINT, lambda *details: came.append(details)
    )  # the signal may reach another thread, where it is not blocked
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


class _Pool:
    """Threads or processes that decode; processes are started anew when one has died.

    Arrays and cells of data sets are copied and decoded in this process, not sent to another. A PIL image is decoded
    at once, in the thread that asks for it. Its owner may turn to the next frame, or draw on it, while others wait.
    """

    def __init__(self, decode: Callable[[Any, str], Any], num_workers: int, *, in_processes: bool):
        self.decode, self.num_workers, self.in_processes = decode, num_workers, in_processes
        self.decode_there = decode.to_array if isinstance(decode, Decoder) else decode
        self.executor: Executor = (
            _start_processes(num_workers)
            if in_processes
            else ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
        )

    def submit(self, name: str, source: Any) -> Future[Any]:
        if not (self.in_processes or isinstance(source, Image.Image)):
            return self.executor.submit(self.decode, source, name)
        if isinstance(source, str | os.PathLike | LazyPicture):
            try:
                return self.executor.submit(self.decode_there, source, name)
            except BrokenProcessPool as error:  # `take` sees it and starts new processes
                return _make_failed(error)
        future: Future[Any] = Future()
        try:
            future.set_result(self.decode(source, name))
        except Exception as error:
            return _make_failed(error)
        return future

    def take(self, waiting: deque[_Waiting]) -> tuple[Any, Future[Any]]:
        """Return the first of those that wait; start the processes anew if one has died.

        Raises:
            OSError: If processes cannot be started at all.
        """
        first = waiting.popleft()
        if not (self.in_processes and _is_lost(first.future)):
            return first.key, first.future
        self.executor.shutdown(cancel_futures=True)
        # Any picture that waits may have killed it. The first is tried alone: if that process dies too, it is the one.
        with _start_processes(1) as alone:
            if _is_lost(alone.submit(_do_nothing)):
                raise OSError(CANNOT_START)
            future = alone.submit(self.decode_there, first.source, first.name)
            if _is_lost(future):
                future = _make_failed(ValueError(f"{first.name}: {CRASHED}."))
        self.executor = _start_processes(self.num_workers)
        for index, other in enumerate(waiting):
            if _is_lost(other.future):
                waiting[index] = other._replace(future=self.submit(other.name, other.source))
        return first.key, future

    def close(self) -> None:
        self.executor.shutdown(cancel_futures=True)


def _make_failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _is_lost(future: Future[Any]) -> bool:
    """Wait for a result, and say whether it will never come."""
    return future.cancelled() or isinstance(future.exception(), BrokenProcessPool)


def decode_ahead(
    pictures: Iterable[Any],
    decode: Callable[[Any, str], Any],
    *,
    num_workers: int,
    in_processes: bool,
    on_close: Callable[[], None] = lambda: None,
) -> Generator[tuple[Any, Future[Any]]]:
    """Decode pictures in order, and hold at most two per worker; an error of `pictures` itself is raised at the end.

    Args:
        pictures: Sources, or pairs (key, source).
        decode: Function from a source and its name to its pixels, or to what else is made of it. Processes need one
            that can be sent to them.
        num_workers: Number of threads or processes.
        in_processes: Whether processes decode instead of threads.
        on_close: Function that is called before the end waits for those that are still at work.

    Yields:
        Key, and future of the pixels, a tensor or an array. The future of a process is done, that of a thread need not
        be.
    """
    pool = _Pool(decode, num_workers, in_processes=in_processes)
    waiting = deque[_Waiting]()
    named, has_more, failure = _name_pictures(pictures), True, None
    try:
        while True:
            try:
                while has_more and len(waiting) < 2 * num_workers:
                    key, name, source = next(named)
                    source = _copy_pixels(source)
                    waiting.append(_Waiting(key, name, source, pool.submit(name, source)))
            except StopIteration:
                has_more = False
            except Exception as error:
                failure, has_more = error, False
            if not waiting:
                break
            yield pool.take(waiting)
    finally:
        on_close()
        pool.close()
    if failure is not None:
        raise failure
