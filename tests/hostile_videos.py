# SPDX-License-Identifier: Apache-2.0
"""About a hundred files that people have and programs trip over, and what is to become of each."""

import subprocess
from pathlib import Path

import numpy as np
from clips import write_clip
from PIL import Image

from musiq_hf.assessment.vmaf import find_ffmpeg

WIDTH, HEIGHT, NUM_FRAMES = 48, 32, 6
CONTAINERS = {".mkv": "ffv1", ".mp4": "libx264", ".mov": "libx264", ".avi": "ffv1", ".webm": "libvpx-vp9"}
DAMAGED = "cut short|damaged|no frame|no video|cannot be opened"


def make_frames(num_frames=NUM_FRAMES, size=(HEIGHT, WIDTH), dtype=np.uint8):
    """Make frames of noise that moves."""
    noise = np.random.default_rng(1).integers(40, 200, (size[0], size[1] + num_frames))
    frames = np.stack([noise[:, start : start + size[1]] for start in range(num_frames)])
    return frames.astype(np.uint8) if dtype == np.uint8 else (frames * 4).astype(np.uint16)


def run_ffmpeg(*words):
    """Run ffmpeg, which makes what PyAV does not make easily."""
    subprocess.run([find_ffmpeg(), "-y", "-loglevel", "error", *map(str, words)], check=True)


def make_damaged(folder):
    """Yield whole files of each container, and what is left of them when they are cut or changed."""
    for suffix, codec in CONTAINERS.items():
        whole = write_clip(folder / f"whole{suffix}", make_frames(), codec=codec)
        content = whole.read_bytes()
        yield whole, None
        for part in (0.02, 0.3, 0.6, 0.9, 0.98):
            cut = folder / f"cut_{part}{suffix}"
            cut.write_bytes(content[: int(part * len(content))])
            yield cut, None if suffix == ".mp4" and part == 0.98 else DAMAGED  # its frames are whole
        zeros = folder / f"zeros{suffix}"
        start = len(content) // 2
        zeros.write_bytes(content[:start] + bytes(200) + content[start + 200 :])
        yield zeros, "any"
        swapped = folder / f"swapped{suffix}"
        swapped.write_bytes(content[start:] + content[:start])
        yield swapped, DAMAGED
        tail = folder / f"tail{suffix}"
        tail.write_bytes(content + b"more" * 100)
        yield tail, "any"


def make_named_wrong(folder):
    """Yield files whose endings are those of other files."""
    for suffix in (*CONTAINERS, ".m4v", ".y4m"):
        for kind, content in {"empty": b"", "text": b"a letter\n" * 30, "noise": bytes(range(256)) * 9}.items():
            path = folder / f"{kind}{suffix}"
            path.write_bytes(content)
            yield path, DAMAGED
    for kind in ("PNG", "JPEG", "GIF", "WEBP"):
        path = folder / f"{kind}.mp4"
        Image.fromarray(make_frames()[0]).save(path, kind)
        yield path, "is a picture"
    whole = write_clip(folder / "clip.mkv", make_frames())
    for name, expected in {"mkv.mp4": None, "mkv.avi": None, "clip.jpg": "video", "clip.png": "video"}.items():
        path = folder / name
        path.write_bytes(whole.read_bytes())
        yield path, expected
    playlist = folder / "playlist.mp4"
    playlist.write_text(f"#EXTM3U\n#EXTINF:1,\n{whole}\n")
    yield playlist, DAMAGED
    concat = folder / "concat.mkv"
    concat.write_text(f"ffconcat version 1.0\nfile {whole}\n")
    yield concat, DAMAGED
    (folder / "folder.mp4").mkdir()
    write_clip(folder / "folder.mp4" / "inside.mkv", make_frames())
    yield folder / "folder.mp4" / "inside.mkv", None
    (folder / "nowhere.mp4").symlink_to(folder / "gone.mp4")
    yield folder / "nowhere.mp4", "no such file|No such file"


def make_odd(folder):
    """Yield files of kinds that are rare but whole."""
    yield write_clip(folder / "one_frame.mkv", make_frames(1)), None
    yield write_clip(folder / "one_frame.mp4", make_frames(1), codec="libx264"), None
    for width, height in ((47, 32), (48, 31), (47, 31), (3, 3), (2, 2), (1, 1), (500, 3)):
        small = min(width, height) < 3
        frames, codec = make_frames(size=(height, width)), "ffv1" if width > 9 and height > 9 else "rawvideo"
        clip = write_clip(folder / f"size{width}x{height}.mkv", frames, codec=codec)
        yield clip, "needs 3 pixels" if small else None
    yield write_clip(folder / "ten.mkv", make_frames(dtype=np.uint16)), None
    yield write_clip(folder / "gray.mkv", make_frames(), pixels="gray"), None
    yield write_clip(folder / "full444.mkv", make_frames(), pixels="yuv444p", full_range=True), None
    yield write_clip(folder / "rgb.mkv", make_frames(), pixels="bgr0"), "which has no plane of luma"
    irregular = [0, 40, 80, 200, 240, 280]
    for suffix, codec in ((".mkv", "ffv1"), (".mp4", "libx264"), (".webm", "libvpx-vp9")):
        clip = write_clip(folder / f"variable{suffix}", make_frames(), codec=codec, times=irregular)
        yield clip, "has a variable frame rate"
    still = write_clip(folder / "still.y4m", make_frames(), codec="wrapped_avframe")
    yield still, None
    yield write_clip(folder / "motion.avi", make_frames(), codec="mjpeg", pixels="yuvj420p"), None
    yield write_clip(folder / "motion.mov", make_frames(), codec="mjpeg", pixels="yuvj420p"), None


def make_tagged(folder):
    """Yield files that ffmpeg makes: sound, tags of light and of lines, turns, changes of size."""
    tone, flat = ("-f", "lavfi", "-i", "sine=d=0.3"), ("-f", "lavfi", "-i", f"testsrc=s={WIDTH}x{HEIGHT}:d=0.3:r=20")
    for suffix in (".mp4", ".mkv", ".mov", ".avi", ".webm"):
        run_ffmpeg(*tone, folder / f"sound{suffix}")
        yield folder / f"sound{suffix}", "no video stream"
    run_ffmpeg(*flat, *tone, "-pix_fmt", "yuv420p", folder / "both.mp4")
    yield folder / "both.mp4", None
    cover = folder / "cover.png"
    Image.fromarray(make_frames()[0]).save(cover)
    run_ffmpeg(
        *tone,
        "-i",
        cover,
        "-map",
        "0",
        "-map",
        "1",
        "-c:v",
        "copy",
        "-disposition:v:0",
        "attached_pic",
        folder / "cover.mp4",
    )
    yield folder / "cover.mp4", "no video stream"
    for transfer in ("smpte2084", "arib-std-b67"):
        words = ("-vf", f"setparams=color_trc={transfer}", "-pix_fmt", "yuv420p10le", "-c:v", "libx264")
        run_ffmpeg(*flat, *words, folder / f"{transfer}.mp4")
        yield folder / f"{transfer}.mp4", "high dynamic range"
    run_ffmpeg(*flat, "-pix_fmt", "yuv420p", "-flags", "+ildct+ilme", "-x264opts", "tff=1", folder / "fields.mp4")
    yield folder / "fields.mp4", "is interlaced"
    for turn in (90, 180):
        run_ffmpeg("-display_rotation", turn, "-i", folder / "both.mp4", "-c", "copy", folder / f"turned{turn}.mp4")
        yield folder / f"turned{turn}.mp4", None
    run_ffmpeg("-display_hflip", "-i", folder / "both.mp4", "-c", "copy", folder / "mirrored.mp4")
    yield folder / "mirrored.mp4", "mirrored or at an angle"
    for name, words in {"closed": "keyint=12", "open": "keyint=12:open-gop=1:b-adapt=0"}.items():
        whole, trimmed = folder / f"{name}_groups.mp4", folder / f"{name}_groups_trimmed.mp4"
        coding = ("-pix_fmt", "yuv420p", "-c:v", "libx264", "-x264-params", words)
        run_ffmpeg("-f", "lavfi", "-i", f"testsrc=s={WIDTH}x{HEIGHT}:d=2:r=24000/1001", *coding, whole)
        run_ffmpeg("-ss", 1.1, "-i", whole, "-c", "copy", trimmed)  # it starts between two frames
        yield trimmed, None
    run_ffmpeg(*flat, "-pix_fmt", "yuva420p", "-c:v", "libvpx-vp9", folder / "alpha.webm")
    yield folder / "alpha.webm", None
    run_ffmpeg(*flat, "-c:v", "libx264", "-pix_fmt", "yuv422p10le", "-g", "2", folder / "deep422.mov")
    yield folder / "deep422.mov", None
    for name, size in (("first.ts", "48x32"), ("second.ts", "64x48")):
        run_ffmpeg("-f", "lavfi", "-i", f"testsrc=s={size}:d=0.3:r=20", "-pix_fmt", "yuv420p", "-bf", 0, folder / name)
    joined = (folder / "first.ts").read_bytes() + (folder / "second.ts").read_bytes()
    (folder / "joined.mp4").write_bytes(joined)
    yield folder / "joined.mp4", "any"


def make_hostile_files(folder):
    """Make the files.

    Returns:
        Path of each file with a pattern of its error; None for one that is measured, "any" for one that may be either.
    """
    made = {}
    for make in (make_damaged, make_named_wrong, make_odd, make_tagged):
        place = Path(folder, make.__name__.removeprefix("make_"))
        place.mkdir()
        made |= dict(make(place))
    return made
