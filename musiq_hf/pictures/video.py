# SPDX-License-Identifier: Apache-2.0
"""Frames of a video file, one after the other: luma as coded, and RGB.

Files are decoded by PyAV. Refused are, by name, videos that a sequence of frames at equal distances does not hold:
high dynamic range, interlaced frames, a variable frame rate. So are files that are damaged or cut short.
"""

import os
import re
import struct
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from ..common.extras import require
from .opening import find_suffix

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm", ".y4m")
# Names of FFmpeg for what these files hold. Others, such as playlists, could open further files and addresses.
CONTAINERS = "mov,matroska,webm,avi,yuv4mpegpipe"
MAX_MEGAPIXELS = 64  # of a frame; a damaged header can ask for any size
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # numbers of ITU-T H.273
LIMITED_RANGE, FULL_RANGE = 1, 2  # FFmpeg's AVCOL_RANGE_MPEG and AVCOL_RANGE_JPEG
STEP_TOLERANCE = 0.1  # part of the time between two frames by which another time may differ
KEPT = 8  # packets of key frames that are kept for each one that is decoded
PIXEL_FORMAT = re.compile(r"yuv[aj]?(?:410|411|420|422|440|444)p(?:\d+le)?|gray(?:\d+le)?|nv12")


def has_video_suffix(name: str) -> bool:
    """Return whether a file name ends as those of videos do, in any case."""
    return find_suffix(name) in VIDEO_SUFFIXES


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """Frame of a video, upright.

    Attributes:
        luma: Luma as coded, shape (height, width), uint8 for 8 bits and uint16 for more.
    """

    luma: np.ndarray
    _frame: Any = field(repr=False)
    _num_turns: int = field(repr=False)

    def to_rgb(self) -> np.ndarray:
        """Convert the frame to RGB of 8 bits, shape (height, width, 3); what is transparent is as if it were not."""
        return np.rot90(_add_chroma(self._frame).to_ndarray(format="rgb24"), self._num_turns)

    @property
    def matrix(self) -> int:
        """Number of the matrix of colours after ITU-T H.273; 2 if the file does not tell it."""
        return int(self._frame.colorspace)

    def to_yuv420p(self) -> np.ndarray:
        """Convert the frame to 8 bits of limited range with halved chroma; its sides must be even.

        Returns:
            Luma, and below it the two planes of chroma, each as half as many lines; shape (1.5 height, width).
        """
        frame = _add_chroma(self._frame).reformat(format="yuv420p", dst_color_range=LIMITED_RANGE)
        planes, half = frame.to_ndarray(), (frame.height // 2, frame.width // 2)
        luma, chroma = planes[: frame.height], planes[frame.height :].reshape(2, *half)
        turned = [np.rot90(plane, self._num_turns) for plane in (luma, *chroma)]
        return np.concatenate([plane.ravel() for plane in turned]).reshape(-1, turned[0].shape[1])


@dataclass(frozen=True, eq=False)
class Video:
    """Video file that is open.

    Attributes:
        name: Path of the file.
        index: Number of the stream in the file, from 0.
        width: Columns in pixels, as shown: files of telephones are often turned.
        height: Rows in pixels.
        bit_depth: Bits of a sample, 8 to 16.
        full_range: Whether luma is tagged as 0 to 2^bits - 1; else it is 16 to 235, times 2^(bits - 8).
        frame_rate: Frames a second; None if the file does not tell.
        pixel_aspect: Width of a pixel to its height, as shown; 1 if the file does not tell.
    """

    name: str
    index: int
    width: int
    height: int
    bit_depth: int
    full_range: bool
    frame_rate: float | None
    pixel_aspect: Fraction
    _frames: Iterator[VideoFrame] = field(repr=False)

    @property
    def luma_range(self) -> tuple[int, int]:
        """Luma of black and of white."""
        if self.full_range:
            return 0, 2**self.bit_depth - 1
        return 16 << self.bit_depth - 8, 235 << self.bit_depth - 8

    def frames(self) -> Iterator[VideoFrame]:
        """Return the frames that have not been read so far; they are read once, and not kept.

        Raises:
            ValueError: If a frame differs from the first in size or kind, comes at another distance, or cannot be
                decoded. If the file is cut short, after its last frame.
        """
        return self._frames


class _Clock:
    """Times of the frames of a file, which must have equal distances.

    Args:
        name: Name of the file in messages.
        stream: Video stream of PyAV.
        end: Time at which the file says that the stream ends, in ticks; None if it does not.
    """

    def __init__(self, name: str, stream: Any, end: Fraction | None) -> None:
        self.name, self.num_declared, self.end = name, stream.frames, end
        self.num_packets = self.num_frames = 0
        self.time_base = stream.time_base
        self.step: Fraction | None = None  # ticks between frames
        self.last: int | None = None
        rate = stream.average_rate
        self.usual_step = 1 / (rate * self.time_base) if rate and self.time_base else None

    def advance(self, time: int | None) -> None:
        """Count one more frame, and raise a ValueError if it comes at another distance than the first two."""
        self.num_frames += 1
        if time is not None and self.last is not None:
            step = Fraction(time - self.last)
            self.step = self.step or step
            # Stamps of few ticks are rounded, such as 41 and 42 milliseconds.
            tolerance = max(STEP_TOLERANCE * self.step, 1 if self.step >= 2 else 0)
            if self.step <= 0 or abs(step - self.step) > tolerance:
                raise ValueError(
                    f"{self.name} has a variable frame rate: frames {self.num_frames - 1} and {self.num_frames} are "
                    f"{float(step * self.time_base):.4g} s apart, the first two "
                    f"{float(self.step * self.time_base):.4g} s. Convert it to a constant rate first."
                )
        self.last = time

    def check_end(self) -> None:
        """Raise a ValueError if the file says that there are more frames."""
        step = self.step or self.usual_step
        # A trimmed file holds packets that are not shown, and its end lies between two frames.
        if step is None or self.last is None or self.end is None or 0 < self.num_declared <= self.num_packets:
            return
        num_missing = round((self.end - self.last) / step) - 1
        if num_missing > 0:
            raise ValueError(
                f"{self.name} is cut short: {self.num_frames} of {self.num_frames + num_missing} declared frames are "
                "there. Copy or encode it again."
            )


def _find_end(container: Any, stream: Any) -> Fraction | None:
    """Return the time at which a stream ends by its file, in ticks of the stream; None if the file does not say."""
    if stream.duration is not None:
        return Fraction((stream.start_time or 0) + stream.duration)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = (Fraction(part) for part in tag.groups())
        return (3600 * hours + 60 * minutes + seconds) / stream.time_base
    if container.duration and len(container.streams) == 1:
        return Fraction(container.duration, 1_000_000) / stream.time_base
    return None


def _refuse_picture(name: str) -> None:
    """Raise a ValueError if a file is a picture by its content, which FFmpeg would show as a video of one frame."""
    kind = None
    with suppress(Exception), Image.open(name) as picture:  # whatever cannot be opened is none
        kind = picture.format
    if kind not in (None, "MPEG"):
        raise ValueError(f"{name} is a picture ({kind}) with the name of a video. Rename it.")


def _open_container(av: Any, name: str) -> Any:
    with open(name, "rb"):  # errors of the system come as for other files
        pass
    _refuse_picture(name)
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{name}", options=options, metadata_errors="replace")
    except (av.FFmpegError, MemoryError) as error:
        raise ValueError(
            f"{name} cannot be opened as a video ({_explain(error)}): it is damaged, cut short, or something else. "
            "Give an AVI, MKV, MOV, MP4, WebM or Y4M file."
        ) from error


def _explain(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _find_stream(av: Any, container: Any, name: str) -> Any:
    """Return the first video stream that is no cover picture."""
    cover = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover:
            break
    else:
        raise ValueError(f"{name} has no video stream. Give a file with pictures that move.")
    if stream.codec_context is None:
        raise ValueError(f"{name} has a video stream of an unknown codec. Encode it again, such as with H.264.")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise ValueError(f"{name} has frames of {width}x{height}, and {MAX_MEGAPIXELS} megapixels are allowed.")
    stream.codec_context.options = {"err_detect": "explode"}  # no frames that are guessed
    return stream


def _decode_packet(av: Any, packet: Any) -> list[Any]:
    """Decode a packet; what is cut off from a trimmed file may refer to frames that are not there."""
    try:
        frames: list[Any] = packet.decode()
    except av.FFmpegError:
        if not packet.is_discard:
            raise
        return []
    return frames


def _decode(av: Any, container: Any, stream: Any, clock: _Clock) -> Generator[Any]:
    """Decode the frames of a stream, and count its packets."""
    is_damaged, reason = False, "a part is damaged"
    try:
        for packet in container.demux(stream):
            clock.num_packets += packet.size > 0
            is_damaged = is_damaged or packet.is_corrupt
            for frame in [] if is_damaged else _decode_packet(av, packet):
                is_damaged = is_damaged or frame.is_corrupt
                yield frame
            if is_damaged:
                break
    except (av.FFmpegError, MemoryError) as error:
        is_damaged, reason = True, _explain(error)
    if is_damaged:
        raise ValueError(
            f"{clock.name} cannot be decoded to its end ({reason}): it is damaged or cut short. Copy it again."
        )


def _count_turns(frame: Any, name: str) -> int:
    """Return how many quarters of a turn, counterclockwise, make a frame upright."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0
    a, b, _, c, d = struct.unpack("5i", bytes(matrix)[:20])
    if a * d - b * c <= 0 or frame.rotation % 90:
        raise ValueError(f"{name} is to be shown mirrored or at an angle. Encode it as it is to be shown.")
    return round(frame.rotation / 90) % 4


def _check_kind(frame: Any, name: str) -> None:
    """Raise a ValueError if a frame is of a kind that is not measured."""
    if frame.color_trc in HDR_TRANSFERS:
        raise ValueError(
            f"{name} has high dynamic range ({HDR_TRANSFERS[frame.color_trc]}), and only SDR is measured. Convert it."
        )
    if frame.interlaced_frame:
        raise ValueError(f"{name} is interlaced. Deinterlace it first.")
    if not PIXEL_FORMAT.fullmatch(frame.format.name):
        raise ValueError(
            f"{name} has pixels of the format {frame.format.name}, which has no plane of luma. Encode it as yuv420p "
            "or yuv444p."
        )


def _read_luma(frame: Any) -> np.ndarray:
    """Return the plane of luma, whose lines are padded in memory."""
    plane, is_byte = frame.planes[0], frame.format.components[0].bits == 8
    size = 1 if is_byte else 2
    pixels = np.frombuffer(plane, np.uint8 if is_byte else np.dtype("<u2"))
    return pixels.reshape(-1, plane.line_size // size)[: frame.height, : frame.width]


def _add_chroma(frame: Any) -> Any:
    """Return a frame of luma alone with neutral chroma; FFmpeg takes gray for full range, whatever the file says."""
    if not frame.format.name.startswith("gray"):
        return frame
    coloured = frame.reformat(format=frame.format.name.replace("gray", "yuv444p"), dst_color_range=FULL_RANGE)
    coloured.color_range = frame.color_range
    return coloured


def _describe_kind(frame: Any) -> tuple[Any, ...]:
    """Return what all frames of a video have in common."""
    return frame.width, frame.height, frame.format.name, frame.color_range, frame.rotation


def _read_frames(frames: Iterator[Any], num_turns: int, clock: _Clock) -> Generator[VideoFrame]:
    """Yield frames that are checked, and check the end."""
    kind: tuple[Any, ...] | None = None
    for frame in frames:
        clock.advance(frame.pts)
        kind = _check_frame(frame, kind, name=clock.name, place=f"frame {clock.num_frames}")
        yield VideoFrame(np.rot90(_read_luma(frame), num_turns), frame, num_turns)
    clock.check_end()


def _check_frame(frame: Any, kind: tuple[Any, ...] | None, *, name: str, place: str) -> tuple[Any, ...]:
    """Raise a ValueError if a frame is of a kind that is not measured, or of another one than those before it.

    Args:
        frame: Frame of PyAV.
        kind: Kind of all frames before it; None for the first.
        name: Name of the file in messages.
        place: Words for the frame in messages.

    Returns:
        Kind of the frame, which is also that of all before it.
    """
    _check_kind(frame, name)
    found = _describe_kind(frame)
    if kind not in (None, found):
        words = (f"{width}x{height} {pixels}" for width, height, pixels, *_ in (kind, found))
        raise ValueError(f"{name} changes at {place}, from {' to '.join(words)}. Cut it there.")
    return found


@contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[Video]:
    """Open a video file, and close it at the end of the block.

    Args:
        path: File of one of the `VIDEO_SUFFIXES`; others are opened by their content too.

    Yields:
        Video, whose `frames` are decoded one after the other.

    Raises:
        ValueError: If the file is no video, has no video stream or no frame, or is of a kind that is refused.
        OSError: If the file is missing or cannot be read.
        ImportError: If PyAV is missing.
    """
    av = require("av", extra="video")
    name = os.fspath(path)
    with ExitStack() as stack:
        container = stack.enter_context(_open_container(av, name))
        stream = _find_stream(av, container, name)
        clock = _Clock(name, stream, _find_end(container, stream))
        decoded = stack.enter_context(closing(_decode(av, container, stream, clock)))
        first = next(decoded, None)
        if first is None:
            raise ValueError(f"{name} has no frame that can be decoded. Copy or encode it again.")
        _check_kind(first, name)
        size, num_turns = (first.width, first.height), _count_turns(first, name)
        width, height = size[::-1] if num_turns % 2 else size
        frames = stack.enter_context(closing(_read_frames(chain([first], decoded), num_turns, clock)))
        rate, aspect = stream.average_rate, stream.sample_aspect_ratio or Fraction(1)
        yield Video(
            name=name,
            index=stream.index,
            width=width,
            height=height,
            bit_depth=first.format.components[0].bits,
            full_range=first.color_range == FULL_RANGE or first.format.name.startswith("yuvj"),
            frame_rate=float(rate) if rate else None,
            pixel_aspect=1 / aspect if num_turns % 2 else aspect,
            _frames=frames,
        )


def _take_key_packets(av: Any, container: Any, stream: Any, name: str, most: int) -> list[Any]:
    """Return at most so many packets of key frames, at equal distances, the first included; the file is read once.

    Of the packets that came so far, those at multiples of a step are kept. It doubles whenever they are `KEPT` times
    as many, so distances differ by a quarter at most.
    """
    kept, step, number = [], 1, 0
    try:
        for packet in container.demux(stream):
            if packet.is_keyframe and packet.size and not packet.is_discard:
                if number % step == 0:
                    kept.append(packet)
                number += 1
            if len(kept) > KEPT * most:
                kept, step = kept[::2], 2 * step
    except (av.FFmpegError, MemoryError) as error:
        raise ValueError(f"{name} cannot be read to its end ({_explain(error)}): copy it again.") from error
    count = min(most, len(kept))
    return [kept[place * len(kept) // count] for place in range(count)]


def read_key_frames(path: str | os.PathLike[str], most: int) -> Generator[np.ndarray]:
    """Read key frames of a video file, which are those that were coded without the help of others.

    Frames between them, the times of all and the end of the file are not checked.

    Args:
        path: File, as `open_video` takes it.
        most: Largest number of frames; of more key frames some at equal distances are read.

    Yields:
        RGB of 8 bits, upright, shape (height, width, 3). The first key frame of the file comes first.

    Raises:
        ValueError: If the file is no video, has no key frame, is of a kind that is refused, or a frame cannot be
            decoded.
        OSError: If the file is missing or cannot be read.
        ImportError: If PyAV is missing.
    """
    av = require("av", extra="video")
    name = os.fspath(path)
    kind: tuple[Any, ...] | None = None
    with _open_container(av, name) as container:
        stream = _find_stream(av, container, name)
        for packet in _take_key_packets(av, container, stream, name, most):
            frame = _decode_alone(av, packet, name)
            kind = _check_frame(frame, kind, name=name, place=f"{float((packet.pts or 0) * packet.time_base):.3f} s")
            yield VideoFrame(_read_luma(frame), frame, _count_turns(frame, name)).to_rgb()
    if kind is None:
        raise ValueError(f"{name} has no key frame that can be decoded. Copy or encode it again.")


def _decode_alone(av: Any, packet: Any, name: str) -> Any:
    """Decode the frame of one packet."""
    decoder = packet.stream.codec_context
    try:
        frames = [*packet.decode(), *decoder.decode(None)]
    except (av.FFmpegError, MemoryError) as error:
        reason = _explain(error)
        raise ValueError(f"{name} has a key frame that cannot be decoded ({reason}). Copy it again.") from error
    finally:
        decoder.flush_buffers()
    if packet.is_corrupt or not frames or frames[0].is_corrupt:
        raise ValueError(f"{name} has a damaged key frame. Copy it again.")
    return frames[0]
