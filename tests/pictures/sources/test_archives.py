# SPDX-License-Identifier: Apache-2.0
"""Members of tar archives, links to them, and damage."""

import io
import os
import tarfile

import numpy as np
import pytest
from picture_files import damage, keys, outcomes, pixels, png, write

from musiq_hf.pictures.sources.paths import count_sources, find_sources

HARD, SOFT = tarfile.LNKTYPE, tarfile.SYMTYPE


def write_tar(path, members):
    """An archive of (name, bytes), or (name, kind, target) for links and other kinds."""
    with tarfile.open(path, "w") as archive:
        for name, content, *target in members:
            info = tarfile.TarInfo(name)
            if target:
                info.type, info.linkname, content = content, target[0], b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_tar_members_are_read_in_place(place):
    members = [("b/1.png", png(1)), ("b/1.json", b"{}"), ("../evil.png", png(2)), ("/root.png", png(3))]
    write_tar(place / "shard.tar", members)
    with tarfile.open(place / "shard.tar", "a") as archive:
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    found = outcomes("shard.tar")
    assert list(found) == ["shard.tar::b/1.png", "shard.tar::../evil.png", "shard.tar::/root.png"]
    assert all((found[key] == pixels(seed)).all() for seed, key in enumerate(found, start=1))
    assert os.listdir(place) == ["shard.tar"] and "evil.png" not in os.listdir(place.parent)
    assert count_sources(["shard.tar"]) == 3


def test_members_that_are_left_out_are_counted(place, caplog):
    names = ("1.json", "2.json", "3", "4.avif", ".git/5.txt", "a/.6.txt", "./7.txt")
    write_tar(place / "shard.tar", [("0.png", png(0)), *((name, b"{}") for name in names)])
    assert keys("shard.tar") == ["shard.tar::0.png", "shard.tar::4.avif"]
    said = "4 files were left out (endings that pictures do not have): 2 .json, 1 .txt, 1 without ending"
    assert set(caplog.messages) == {said}


def test_hidden_members_are_left_out_as_in_folders(place, caplog):
    names = ("a/photo.png", "a/._photo.png", ".hidden/x.png", "./.y.png", "/.z.png", "../.w.png", "./b/v.png")
    members = [(name, png(0)) for name in names]
    write_tar(place / "shard.tar", [*members, (".link.png", SOFT, "a/photo.png"), ("c.png", SOFT, ".hidden/x.png")])
    for name, content in members[:3]:
        write(place / "folder" / name, content)
    assert keys("shard.tar") == ["shard.tar::a/photo.png", "shard.tar::./b/v.png", "shard.tar::c.png"]
    assert count_sources(["shard.tar"]) == 3 and not caplog.messages
    assert keys("folder") == [os.path.join("folder", "a", "photo.png")]


def test_headers_of_tar_members_are_forgotten(place, monkeypatch):
    write_tar(place / "shard.tar", [(f"{i}.png", b"") for i in range(50)])
    held, forward = [], tarfile.TarFile.next

    def watched(archive):
        held.append(len(archive.members))
        return forward(archive)

    monkeypatch.setattr(tarfile.TarFile, "next", watched)
    assert len(list(find_sources(["shard.tar"]))) == 50
    assert max(held) <= 1


# The header of the second member starts at byte 1536: one block of header and two of data.
@pytest.mark.parametrize(
    ("change", "readable", "reason"),
    [
        (lambda raw: damage(raw, 1536, b"\xff" * 512), 1, "no header and no end mark at byte 1536"),
        (lambda raw: raw[:1700], 1, "no header and no end mark at byte 1536"),
        (lambda raw: raw[:1536], 1, "no end mark at byte 1536"),
        (lambda raw: raw[:1100], 0, "unexpected end of data"),
        (lambda raw: raw[:0], 0, "empty file"),
        (lambda raw: b"no archive" * 200, 0, "invalid header"),
        (lambda raw: damage(raw, 124, b"77777777777\x00"), 0, "bad checksum"),
    ],
)
def test_a_damaged_archive_is_read_up_to_the_damage(place, change, readable, reason):
    raw = write_tar(place / "shard.tar", [(f"{i}.png", png(i)) for i in range(3)]).read_bytes()
    assert len(png(0)) in range(513, 1025)
    (place / "shard.tar").write_bytes(change(raw))
    write(place / "z.png")
    found = outcomes("shard.tar", "z.png")
    errors = {key: value for key, value in found.items() if isinstance(value, str)}
    assert len(found) - len(errors) == readable + 1 and isinstance(found["z.png"], np.ndarray)
    problem = errors.pop("shard.tar")
    assert "the archive is damaged" in problem and reason in problem
    assert all("ends within this member" in error for error in errors.values())


def test_links_lead_to_members_of_the_archive(place):
    links = [
        ("hard.png", HARD, "a/1.png", 1),
        ("./dots.png", HARD, "./a//1.png", 1),
        ("slash.png", HARD, "/a/1.png", 1),
        ("a/soft.png", SOFT, "1.png", 1),
        ("b/up.png", SOFT, "../a/./1.png", 1),
        ("later.png", SOFT, "z.png", 2),
        ("chain.png", SOFT, "later.png", 2),
        ("harder.png", HARD, "chain.png", 2),
        ("through.png", SOFT, "folder/1.png", 1),
        ("a/back.png", SOFT, "../folder/../z.png", 2),
        ("named.png", SOFT, "plain", 3),
    ]
    others = [("folder", SOFT, "a"), ("notes.txt", HARD, "a/1.png")]
    members = [("a/1.png", png(1)), *(link[:3] for link in links), *others, ("z.png", png(2)), ("plain", png(3))]
    write_tar(place / "t.tar", members)
    found = outcomes("t.tar")
    assert list(found) == [f"t.tar::{name}" for name in ["a/1.png", *(link[0] for link in links), "z.png"]]
    assert all(np.array_equal(found[f"t.tar::{name}"], pixels(seed)) for name, _, _, seed in links)
    assert len(keys("t.tar")) == 13


def test_a_hard_link_stands_for_the_member_before_it(place):
    members = [("a.png", png(1)), ("b.png", HARD, "a.png"), ("c.png", SOFT, "a.png"), ("a.png", png(2))]
    write_tar(place / "t.tar", members)
    pictures = [np.array(picture.open()) for _, picture in find_sources(["t.tar"])]
    assert all(np.array_equal(one, pixels(seed)) for one, seed in zip(pictures, (1, 1, 2, 2), strict=True))


def test_links_out_of_the_archive_and_loops_are_rows(place):
    write(place / "out.png")
    links = [
        ("absolute.png", SOFT, str(place / "out.png"), "leads out of the archive"),
        ("up.png", SOFT, "../out.png", "leads out of the archive"),
        ("folder.png", SOFT, "outside/out.png", "leads out of the archive"),
        ("hard.png", HARD, "out.png", "a link to out.png, which is not in the archive"),
        ("higher.png", HARD, "../out.png", "which is not in the archive"),
        ("soft.png", SOFT, "gone.png", "a link to gone.png, which is not in the archive"),
        ("self.png", SOFT, "self.png", "leads to itself"),
        ("one.png", SOFT, "two.png", "leads to itself"),
        ("two.png", SOFT, "one.png", "leads to itself"),
        ("round.png", SOFT, "loop/x.png", "through too many links"),
        ("early.png", HARD, "z.png", "a hard link to z.png, which must stand before it in the archive. Pack it again"),
        ("pipe.png", tarfile.FIFOTYPE, "", "not a regular file"),
        ("device.png", tarfile.CHRTYPE, "", "not a regular file"),
        ("directory.png", SOFT, "below", "not a regular file"),
    ]
    others = [("outside", SOFT, ".."), ("loop", SOFT, "loop"), ("below", tarfile.DIRTYPE, ""), ("z.png", png(1))]
    write_tar(place / "t.tar", [*(link[:3] for link in links), *others])
    found = outcomes("t.tar")
    assert list(found) == [f"t.tar::{name}" for name in [*(link[0] for link in links), "z.png"]]
    assert all(reason in found[f"t.tar::{name}"] for name, _, _, reason in links)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE], ids=["name", "pax"])
def test_a_header_that_claims_to_be_huge_is_not_read(place, kind):
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 1 << 33
    content = write_tar(place / "t.tar", [("a.png", png(1))]).read_bytes().rstrip(b"\0")
    content += bytes(-len(content) % 512)
    with open(place / "t.tar", "wb") as file:
        file.write(content + info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(1 << 34)  # a sparse file, which holds no more than its head on the disk
    found = outcomes("t.tar")
    assert list(found) == ["t.tar::a.png", "t.tar"] and "a header over 1,048,576 bytes" in found["t.tar"]
