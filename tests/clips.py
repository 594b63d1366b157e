# SPDX-License-Identifier: Apache-2.0
"""Clips that tests write, by PyAV."""

from fractions import Fraction

import av
import numpy as np


def write_clip(path, frames, *, rate=24, full_range=False, codec="ffv1", pixels=None, times=None):
    """Write gray frames, shape (num_frames, height, width), as a clip, and return its path.

    Args:
        path: File, whose ending names the container.
        frames: uint8 for 8 bits, uint16 for 10.
        rate: Frames a second.
        full_range: Whether luma is tagged as 0 to 255.
        codec: Name of the encoder.
        pixels: Pixel format; None takes yuv420p of the bits of the frames.
        times: Time stamp of each frame, in thousandths of a second; None spaces them equally.
    """
    deep = frames.dtype == np.uint16
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = pixels or ("yuv420p10le" if deep else "yuv420p")
        stream.color_range = 2 if full_range else 1
        for number, luma in enumerate(frames):
            frame = av.VideoFrame(stream.width, stream.height, stream.pix_fmt)
            frame.color_range = stream.color_range
            for index, plane in enumerate(frame.planes):
                content = np.full((plane.height, plane.line_size // (1 + deep)), 512 if deep else 128, luma.dtype)
                if index == 0:
                    content[:, : luma.shape[1]] = luma
                plane.update(content.tobytes())
            frame.pts = number if times is None else times[number]
            if times is not None:
                frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
