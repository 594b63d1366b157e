# SPDX-License-Identifier: Apache-2.0
"""Ratings in sidecars: all other tags remain, and a person's rating is told from ours."""

import codecs
import json
import os
import shutil
import subprocess

import pytest
from PIL import Image
from sidecar_files import RDF, SIDECARS, XMP, canonical, describe, packet

from musiq_hf.decisions.packets import EMPTY, read_tags, set_tags
from musiq_hf.decisions.sidecars import (
    OUR_RATING,
    OURS,
    PICTURE,
    PREFIXES,
    RATING,
    SCORE,
    SIGNATURE,
    find_embedded_rating,
    find_rating,
    name_sidecar,
    read_sidecar,
    write_rating,
)

NOTES = {SCORE: "63.2", SIGNATURE: "musiq-tëst|weights:1<2&3\"'", PICTURE: "0123456789abcdef"}
SET = {f"{{{namespace}}}{name}" for namespace, name in (RATING, OUR_RATING, *NOTES)}
has_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
has_exiv2 = pytest.mark.skipif(shutil.which("exiv2") is None, reason="needs exiv2")


def rate(content, stars=4):
    return set_tags(content, {RATING: str(stars), OUR_RATING: str(stars), **NOTES}, PREFIXES)


def with_rating(text, *, prefixes="xmp", attributes=""):
    return packet(describe(prefixes, f'xmp:Rating="{text}" {attributes}')).encode()


def find(content):
    return find_rating(content, "photo.jpg.xmp")


@pytest.mark.parametrize("name", SIDECARS)
def test_all_other_tags_of_twenty_programs_remain(name):
    before = SIDECARS[name]
    after = rate(before)
    assert canonical(after, ours=SET) == canonical(before, ours=SET)
    assert read_tags(after) == read_tags(before) | {RATING: "4", OUR_RATING: "4"} | NOTES | (
        {(RDF, "about"): ""} if name in ("empty", "closed") else {}
    )
    again = rate(after, 2)
    assert len(again) == len(after) and sum(old != new for old, new in zip(after, again, strict=True)) == 2


@pytest.mark.parametrize("name", SIDECARS)
def test_bytes_are_only_put_in(name):
    """All bytes but the value of the rating remain, in their order."""
    before, after = SIDECARS[name], iter(rate(SIDECARS[name]))
    for old in (b'xmp:Rating="0"', b"<xmp:Rating>0<", b"<xmp:Rating\n/>"):  # what was there and has another value now
        before = before.replace(old, old.replace(b"0", b"").replace(b"/>", b">"))
    assert all(byte in after for byte in before)  # each one behind the one before it


def test_the_canonical_form_sees_what_is_lost():
    before = SIDECARS["darktable"]
    assert canonical(before.replace(b"filmicrgb", b"filmic"), ours=SET) != canonical(before, ours=SET)
    assert canonical(before.replace(b"<rdf:li>sea</rdf:li>", b""), ours=SET) != canonical(before, ours=SET)


def test_a_prefix_that_means_something_else_is_not_declared_again():
    after = rate(SIDECARS["other prefixes"]).decode()
    assert f'xmlns:xmp2="{XMP}" xmp2:Rating="4"' in after and f'xmlns:musiq2="{OURS}"' in after
    assert 'xmp:Rating="their own"' in after


def test_a_rating_within_another_tag_is_no_rating_of_the_picture():
    assert RATING not in read_tags(SIDECARS["faces"]) and find(SIDECARS["faces"]).person is None
    assert b'xmp:Rating="5"' in rate(SIDECARS["faces"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no well-formed XML"),
        (SIDECARS["darktable"][:-60], "no well-formed XML"),
        (b"\xff\xd8\xff\xe0 a picture", "not in utf-8"),
        (b"<html/>", "no rdf:RDF"),
        (codecs.BOM_UTF16_LE + b"<", "not in utf-16-le"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "not in klingon"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]>' + SIDECARS["RawTherapee"], "a document type"),
        (f'<r:RDF xmlns:r="{RDF}"><r:Description xmp:Rating="1"/></r:RDF>'.encode(), "declared nowhere"),
    ],
    ids=range(8),
)
def test_a_damaged_sidecar_is_left_alone(tmp_path, content, reason):
    path = tmp_path / "a.xmp"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.xmp: .*{reason}.*left alone"):
        find_rating(content, str(path))
    with pytest.raises(ValueError, match=reason):
        write_rating(path, content, 3, NOTES)
    assert path.read_bytes() == content and os.listdir(tmp_path) == ["a.xmp"]


def test_ratings_that_cannot_be_replaced_are_refused():
    twice = packet(*[describe("xmp", 'xmp:Rating="3"')] * 2).encode()
    parts = packet(describe("xmp", "", "<xmp:Rating><rdf:Bag><rdf:li>3</rdf:li></rdf:Bag></xmp:Rating>")).encode()
    for content, reason in ((twice, "several times"), (parts, "in parts")):
        assert find(content).person
        with pytest.raises(ValueError, match=reason):
            rate(content)


def test_ratings_of_people_are_told_from_ours():
    assert find(None) == (None, None)
    for text in ("0", "", " 0 ", "0.0"):
        assert find(with_rating(text)).person is None
    for text, rating in (("3", "3"), ("4.0", "4"), ("-1", "-1"), ("good", "good")):
        assert find(with_rating(text)).person == rating
    windows = with_rating("0", prefixes="xmp MicrosoftPhoto", attributes='MicrosoftPhoto:Rating="75"')
    assert find(windows).person == "75"


def test_a_rating_is_ours_until_it_is_changed_or_taken_away():
    ours = rate(EMPTY)
    assert find(ours).person is None and find(ours).ours[SCORE] == "63.2"
    changed = ours.replace(b'xmp:Rating="4"', b'xmp:Rating="2"')
    assert find(changed) == ("2", None)
    for taken in (b'xmp:Rating="0"', b""):
        assert find(ours.replace(b'xmp:Rating="4"', taken)) == ("0", None)
    # Another program may write the same number in its own way.
    same = ours.replace(b'xmp:Rating="4"', b'xmp:Rating="4.0"')
    assert find(same).person is None


def test_files_are_replaced_whole_and_links_stay(tmp_path):
    real, link = tmp_path / "real.xmp", tmp_path / "a.jpg.xmp"
    real.write_bytes(SIDECARS["darktable"])
    real.chmod(0o640)
    link.symlink_to(real)
    write_rating(link, read_sidecar(link), 5, NOTES)
    assert link.is_symlink() and find(real.read_bytes()).ours[OUR_RATING] == "5"
    assert real.stat().st_mode & 0o777 == 0o640 and len(os.listdir(tmp_path)) == 2
    with pytest.raises(ValueError, match="another program has changed it"):
        write_rating(link, SIDECARS["darktable"], 1, NOTES)
    assert find(real.read_bytes()).ours[OUR_RATING] == "5" and len(os.listdir(tmp_path)) == 2


def test_what_is_no_sidecar_is_refused(tmp_path):
    assert read_sidecar(tmp_path / "a.xmp") is None
    (tmp_path / "b.xmp").mkdir()
    with pytest.raises(ValueError, match="no regular file"):
        read_sidecar(tmp_path / "b.xmp")
    with open(tmp_path / "c.xmp", "wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(ValueError, match="at most 67,108,864 bytes"):
        read_sidecar(tmp_path / "c.xmp")


def test_names(tmp_path):
    photo = tmp_path / "a.b.jpg"
    assert name_sidecar(photo).name == "a.b.jpg.xmp" and name_sidecar(photo, "photo.xmp").name == "a.b.xmp"
    (tmp_path / "a.b.XMP").touch()
    assert name_sidecar(photo, "photo.xmp").name == "a.b.XMP"


def test_ratings_within_pictures(tmp_path):
    image, exif = Image.new("RGB", (8, 8)), Image.Exif()
    exif[0x4746] = 3
    image.save(tmp_path / "exif.jpg", exif=exif)
    image.save(tmp_path / "xmp.jpg", xmp=with_rating("-1"))
    image.save(tmp_path / "camera.jpg", xmp=with_rating("0"))
    (tmp_path / "bad.jpg").write_bytes(b"none")
    found = {name: find_embedded_rating(tmp_path / name) for name in ("exif.jpg", "xmp.jpg", "camera.jpg", "bad.jpg")}
    assert found == {"exif.jpg": "3", "xmp.jpg": "-1", "camera.jpg": None, "bad.jpg": None}


@has_exiftool
def test_exiftool_reads_the_stars(tmp_path):
    for number, content in enumerate((EMPTY, *SIDECARS.values())):
        (tmp_path / f"{number:02}.xmp").write_bytes(rate(content))
    words = ["exiftool", "-json", "-XMP-xmp:Rating", "-XMP-musiq:Score", str(tmp_path)]
    read = json.loads(subprocess.run(words, capture_output=True, check=False).stdout)
    assert len(read) == 21
    # It takes no other prefixes than the usual ones, no comment before the packet, and no plain UTF-16.
    refused = [1 + list(SIDECARS).index(name) for name in ("other prefixes", "comments", "structures")]
    for number, row in enumerate(sorted(read, key=lambda row: row["SourceFile"])):
        if number not in refused:
            assert (row["Rating"], row["Score"]) == (4, 63.2)


@has_exiv2
def test_exiv2_reads_the_stars(tmp_path):
    for name in (None, "darktable", "digiKam", "Lightroom", "exiftool", "RawTherapee"):
        path = tmp_path / "a.xmp"
        path.write_bytes(rate(EMPTY if name is None else SIDECARS[name]))
        printed = subprocess.run(["exiv2", "-K", "Xmp.xmp.Rating", "-Pv", str(path)], capture_output=True, check=True)
        assert printed.stdout.split() == [b"4"]


def test_the_twenty_are_different_programs():
    assert len(set(SIDECARS.values())) == 20
