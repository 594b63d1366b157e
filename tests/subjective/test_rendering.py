# SPDX-License-Identifier: Apache-2.0
"""Videos of sessions, decoded again: grey, texts and clips in the order and at the times of the plan."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from musiq_hf.pictures.video import open_video
from musiq_hf.subjective import Cell, plan_sessions, read_clips, render_sessions
from musiq_hf.subjective.rendering import REFERENCE

SIZE, RATE, SECONDS, NUM_FRAMES = (64, 48), Fraction(25, 2), 0.3, 4
VERSIONS = ("reference", "good", "bad.mkv", "still")
LEVELS = {"c0": 40, "c1": 160, "c2": 90}  # of the luma of the clips' references; versions are brighter by 20 each
CELLS = [
    Cell(clip, first, second, quality)
    for quality, (clip, first, second) in enumerate(
        [("c0", "good", "bad.mkv"), ("c1", "good", "still"), ("c2", "still", "bad.mkv"), ("c0", "still", "good")]
    )
]
GREY = 126  # luma of RGB 128


def write_clip(
    path, level, *, num_frames=NUM_FRAMES + 2, size=SIZE, rate=RATE, matrix=None, colour=128, full=False, aspect=1
):
    """Write a clip whose luma rises by 1 with each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        # FFV1 has no loss, but its files do not tell the shape of pixels.
        stream = container.add_stream("ffv1" if aspect == 1 else "libx264", rate=rate)
        stream.sample_aspect_ratio = Fraction(aspect)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full else 1
        planes = np.full((3 * size[1] // 2, size[0]), colour, dtype=np.uint8)
        for place in range(num_frames):
            planes[: size[1]] = level + place
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = place, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def level_of(clip, version):
    return LEVELS[clip] + 20 * VERSIONS.index(version)


def to_gray(luma):
    """RGB of a gray whose luma of limited range is this one."""
    return round((luma - 16) * 255 / 219)


def draw(text):
    """Luma of a message."""
    image = Image.new("L", SIZE, 128)
    font = ImageFont.load_default(size=SIZE[1] // 6)
    ImageDraw.Draw(image).text((SIZE[0] / 2, SIZE[1] / 2), text, fill=0, font=font, anchor="mm")
    return 16 + 219 / 255 * np.asarray(image, dtype=float)


@pytest.fixture
def plan():
    return plan_sessions(CELLS, clip_seconds=SECONDS, num_training=2, max_minutes=0.75)


@pytest.fixture
def folder(tmp_path):
    for clip in LEVELS:
        for version in VERSIONS[:3]:
            write_clip(tmp_path / clip / f"{version.removesuffix('.mkv')}.mkv", level_of(clip, version))
        Image.new("L", SIZE, to_gray(level_of(clip, "still"))).save(tmp_path / clip / "still.png")
        (tmp_path / clip / "good.txt").write_text("no clip")
    return tmp_path


def read_luma(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray()[: SIZE[1]].astype(int) for frame in container.decode(video=0)])


def test_sessions_show_the_plan(plan, folder, tmp_path):
    cells_done = []
    written = render_sessions(tmp_path, plan, read_clips(folder, plan), on_cell=lambda: cells_done.append(1))
    names = ["panel1_session0.mp4", "panel1_session1.mp4", "panel1_session2.mp4"]
    assert written == [tmp_path / "sessions" / name for name in names] and len(cells_done) == len(plan)
    assert sorted(path.name for path in (tmp_path / "sessions").iterdir()) == names
    for session, path in enumerate(written):
        shown = [part for part in plan if part.session == session]
        luma = read_luma(path)
        assert abs(len(luma) - (shown[-1].start + shown[-1].duration) * RATE) <= 1
        texts = {}
        for part in shown:
            for place, version in enumerate(("reference", part.a, part.b)):
                begin = part.start + place * (SECONDS + 0.5)
                first, start = round(begin * RATE), round((begin + 0.5) * RATE)
                texts[part.vote, place] = text = luma[first + 1 : start - 1]
                assert np.abs(text[:, 0, 0] - GREY).max() <= 1
                steps = np.arange(NUM_FRAMES) * (version != "still")
                expected = level_of(part.clip, version) + steps
                found = luma[start : start + NUM_FRAMES]
                assert np.abs(found - expected[:, None, None]).max() <= 2, (part, version)
                assert abs(luma[start - 1, 0, 0] - GREY) <= 1
            vote = luma[start + NUM_FRAMES + 1 : round((part.start + part.duration) * RATE) - 1]
            assert len(vote) >= 5 * RATE - 4 and np.abs(vote[:, 0, 0] - GREY).max() <= 1
            texts[part.vote, "vote"] = vote
            # The first message is empty; the others differ from each other.
            assert np.abs(texts[part.vote, 0] - GREY).max() <= 1 and all(
                texts[part.vote, place].min() < 60 for place in (1, 2, "vote")
            )
            for place, text, other in ((1, "A", "B"), (2, "B", "A"), ("vote", f"Vote {part.vote}", "Vote 99")):
                found = texts[part.vote, place][0]
                assert np.abs(found - draw(text)).mean() < 0.5 * np.abs(found - draw(other)).mean(), text
        votes = [texts[part.vote, "vote"][0] for part in shown]
        assert all(np.abs(one - other).max() > 60 for one in votes for other in votes if one is not other)
        a_texts = [texts[part.vote, 1][0] for part in shown]
        assert np.abs(a_texts[0] - a_texts[-1]).max() < 20


def test_a_video_is_tagged_and_sized_as_the_clips(plan, folder, tmp_path):
    (path, *_) = render_sessions(tmp_path, plan[:1], read_clips(folder, plan[:1]))
    with av.open(str(path)) as container:
        (stream,) = container.streams
        context = stream.codec_context
        assert (stream.average_rate, context.width, context.height, context.pix_fmt) == (RATE, *SIZE, "yuv420p")
        assert (context.name, context.colorspace, context.color_range) == ("h264", 6, 1)


def test_shape_of_pixels_and_both_numbers_of_a_matrix_are_kept(plan, tmp_path):
    for clip in LEVELS:
        for version in VERSIONS:
            matrix = 5 if version == "good" else 6
            path = tmp_path / clip / f"{version.removesuffix('.mkv')}.mkv"
            write_clip(path, 100, matrix=matrix, aspect=Fraction(16, 15))
    (path, *_) = render_sessions(tmp_path, plan[:1], read_clips(tmp_path, plan))
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 15)


def test_files_that_round_one_rate_go_together(plan, tmp_path):
    part = replace(plan[0], a="one", b="two")
    for name in ("reference.mkv", "one.avi", "two.mkv"):
        write_clip(tmp_path / part.clip / name, 100, rate=Fraction(60000, 1001), num_frames=20)
    assert read_clips(tmp_path, [part]).rate == Fraction(60000, 1001)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": Fraction(3)}, r"has 3 frames a second, too few for messages of 0\.5 s\. Repeat its frames"),
        ({"size": (16386, 2)}, r"has 16386x2 pixels, and H\.264 has at most 16384 along a side"),
    ],
)
def test_what_no_session_can_show_is_one_sentence(plan, tmp_path, change, message):
    part = plan[0]
    for version in (REFERENCE, part.a, part.b):
        write_clip(tmp_path / part.clip / f"{version.removesuffix('.mkv')}.mkv", 100, **change)
    with pytest.raises(ValueError, match=message):
        read_clips(tmp_path, [part])


def test_messages_of_narrow_clips_are_whole(plan, tmp_path):
    part = replace(plan[0], vote="S4")
    for version in (REFERENCE, part.a, part.b):
        write_clip(tmp_path / part.clip / f"{version.removesuffix('.mkv')}.mkv", 100, size=(64, 200))
    (path,) = render_sessions(tmp_path, [part], read_clips(tmp_path, [part]))
    with av.open(str(path)) as container:
        *_, last = (frame.to_ndarray()[:200] for frame in container.decode(video=0))
    columns = np.abs(last.astype(int) - GREY).max(axis=0) > 30
    assert 16 < columns.sum() and not columns[[0, 1, -2, -1]].any()


def test_what_is_there_stays(plan, folder, tmp_path):
    clips = read_clips(folder, plan)
    first = render_sessions(tmp_path, plan, clips)[0]
    first.write_text("kept")
    (tmp_path / "sessions" / "panel1_session2.mp4").unlink()
    (tmp_path / "sessions" / ".panel1_session2.mp4.123.tmp").write_text("of a run that was killed")
    assert render_sessions(tmp_path, plan, clips) == [tmp_path / "sessions" / "panel1_session2.mp4"]
    assert first.read_text() == "kept" and len(list((tmp_path / "sessions").iterdir())) == 3


def test_an_interruption_leaves_no_half_video(plan, folder, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_sessions(tmp_path, plan, read_clips(folder, plan), on_cell=interrupt)
    assert not list((tmp_path / "sessions").iterdir())


def test_pictures_alone_make_a_session_too(plan, tmp_path):
    for clip in LEVELS:
        (tmp_path / clip).mkdir()
        for version in VERSIONS:
            picture = Image.new("RGB", SIZE, (200, 30, 30) if version == "reference" else (30, 30, 200))
            picture.save(tmp_path / clip / f"{version.removesuffix('.mkv')}.png")
    plan = [part for part in plan if part.clip == "c1"][:1]
    clips = read_clips(tmp_path, plan)
    (path,) = render_sessions(tmp_path, plan, clips)
    with av.open(str(path)) as container:
        colours = [frame.to_ndarray(format="rgb24").mean(axis=(0, 1)) for frame in container.decode(video=0)]
    start = round(25 * plan[0].start)
    assert colours[start + 14] == pytest.approx([200, 30, 30], abs=3)
    assert colours[start + 34] == pytest.approx([30, 30, 200], abs=3)


def test_frames_become_limited_range_and_halved_chroma(tmp_path):
    write_clip(tmp_path / "full.mkv", 200, full=True, num_frames=1)
    with open_video(tmp_path / "full.mkv") as video:
        planes = next(video.frames()).to_yuv420p()
    assert planes.shape == (72, 64) and set(planes[:48].ravel()) == {round(16 + 219 * 200 / 255)}
    assert set(planes[48:].ravel()) == {128}


def break_clip(folder, change):
    target = folder / "c1" / "good.mkv"
    if change == "missing":
        target.unlink()
    elif change == "two":
        Image.new("L", SIZE).save(folder / "c1" / "good.png")
    elif change == "damaged":
        target.write_bytes(b"x" * 1000)
    else:
        write_clip(target, 100, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"1 of 10 clips are missing, the first is .*c1/good\.\*\. Put videos or pictures there"),
        ("two", r"c1/good could be good\.mkv or good\.png\. Remove all but one, or name the version with its ending"),
        ("damaged", r"c1/good\.mkv cannot be opened as a video"),
        ({"num_frames": 3}, r"good\.mkv has 3 frames, 0\.24 s, and a cell shows 0\.3 s\. Take longer clips"),
        ({"size": (64, 50)}, r"alike: .*c0/reference\.mkv has 64x48 pixels, 12\.5 frames .* has 64x50 pixels, 12\.5"),
        (
            {"rate": Fraction(25), "num_frames": 8},
            r"12\.5 frames a second.*good\.mkv has 64x48 pixels, 25 frames a second",
        ),
        ({"rate": Fraction(3), "num_frames": 3}, r"12\.5 frames a second.*3 frames a second"),
        ({"aspect": Fraction(16, 15)}, r"64x48 pixels, 12.*good\.mkv has 64x48 pixels of the shape 16/15, 12"),
        ({"matrix": 1}, r"colours of BT\.601, and .*good\.mkv .* colours of BT\.709\. Convert one"),
    ],
)
def test_clips_that_do_not_fit_are_one_sentence(plan, folder, change, message):
    break_clip(folder, change)
    with pytest.raises(ValueError, match=message):
        read_clips(folder, plan)


def test_odd_sides_are_one_sentence(plan, tmp_path):
    for clip in LEVELS:
        (tmp_path / clip).mkdir()
        for version in VERSIONS:
            Image.new("L", (65, 48)).save(tmp_path / clip / f"{version.removesuffix('.mkv')}.png")
    plan = [part for part in plan if "bad.mkv" not in (part.a, part.b)]
    with pytest.raises(ValueError, match="has 65x48 pixels, and H.264 needs even sides. Crop the clips"):
        read_clips(tmp_path, plan)
