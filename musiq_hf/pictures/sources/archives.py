# SPDX-License-Identifier: Apache-2.0
"""Pictures of tar archives, which are read in place: members, and links to members."""

import io
import os
import posixpath
import tarfile
from collections.abc import Iterator
from functools import partial

from ...common.stores import AT_ONCE, StoredFile, StoreError, is_remote
from ..finding import has_picture_suffix
from ..lazy import LazyPicture, LeftOutFile, Source, check_path, describe_error, escape_name, make_unreadable, read_url
from .tables import Columns

TAR_BLOCK = 512  # bytes
LONGEST_HEADER = 1 << 20  # bytes; long names and their like
MAX_LINKS = 40  # links that lead to links, as on Linux
Index = dict[str, list[tarfile.TarInfo]]  # members by their plain names, in the order of the archive


def read_tar(path: str, columns: Columns) -> Iterator[Source | LeftOutFile]:
    """Read the headers of the members; bytes of pictures are read when they are decoded, and hidden files left out."""
    problem, index = None, None
    try:
        file = _open_archive(path)
    except (OSError, ValueError) as error:
        yield make_unreadable(path, f"cannot be read as an archive ({describe_error(error)}).")
        return
    try:
        for member in _read_headers(file):
            if member.isdir() or _is_hidden(member.name):
                continue
            if has_picture_suffix(member.name):
                if index is None and (member.islnk() or member.issym()):
                    index = _index_members(path)
                yield _read_member(path, member, index or {})
            else:
                yield LeftOutFile(member.name)
    except Exception as error:  # damaged headers provoke errors of all kinds
        problem = describe_error(error)
    if problem is not None:
        yield make_unreadable(path, f"the archive is damaged, and what follows its last row is not read ({problem}).")


def _is_hidden(name: str) -> bool:
    """Return whether the name of a member, or of a folder on its way, begins with a dot; ".." is no such folder."""
    return any(part.startswith(".") and part != ".." for part in _name_plainly(name).split("/"))


def _read_member(path: str, member: tarfile.TarInfo, index: Index) -> Source:
    """Return the picture of a member, or of the one that it links to."""
    name = escape_name(f"{path}::{member.name}")
    try:
        found = _follow_links(member, index)
    except ValueError as error:
        return make_unreadable(name, str(error))
    if not found.isreg():
        return make_unreadable(name, "not a regular file.")
    if found.sparse is not None:
        return make_unreadable(name, "sparse members of archives cannot be read. Pack it again without.")
    return name, LazyPicture(name, partial(_read_part, path, found.offset_data, found.size, name))


def _follow_links(member: tarfile.TarInfo, index: Index) -> tarfile.TarInfo:
    """Return the member that a link leads to, or the member itself if it is no link.

    Raises:
        ValueError: If the link leaves the archive, leads to itself or to nothing.
    """
    for _ in range(MAX_LINKS):
        if member.islnk():  # it stands for the last member of this name before it
            target = _name_plainly(member.linkname)
            found = [other for other in index.get(target, ()) if other.offset < member.offset]
        elif member.issym():
            target = _resolve_symlink(member.name, member.linkname, index)
            found = index.get(target, [])
        else:
            return member
        if not found and target in index:
            raise ValueError(f"a hard link to {target}, which must stand before it in the archive. Pack it again.")
        if not found:
            raise ValueError(f"a link to {target}, which is not in the archive.")
        member = found[-1]
    raise ValueError("a link that leads to itself, or through too many links.")


def _resolve_symlink(name: str, linkname: str, index: Index) -> str:
    """Return the plain name that a symbolic link leads to, through links to folders on the way.

    Raises:
        ValueError: If it leaves the archive, or leads through too many links.
    """
    done: list[str] = []
    rest = [*_name_plainly(name).split("/")[:-1], *linkname.split("/")]
    num_links = 0
    is_outside = linkname.startswith("/")
    while rest and not is_outside:
        part = rest.pop(0)
        if part == "..":
            is_outside = not done
            done = done[:-1]
        elif part not in ("", "."):
            done.append(part)
            folder = index.get("/".join(done), [])
            if rest and folder and folder[-1].issym():
                num_links += 1
                is_outside = folder[-1].linkname.startswith("/") or num_links > MAX_LINKS
                done, rest = done[:-1], [*folder[-1].linkname.split("/"), *rest]
    if is_outside:
        raise ValueError(f"a link to {linkname}, which leads out of the archive or through too many links.")
    return "/".join(done)


def _name_plainly(name: str) -> str:
    """Return the name of a member without a slash in front, dots and double slashes."""
    return posixpath.normpath(name.lstrip("/"))


def _index_members(path: str) -> Index:
    """Read the headers of all members, up to the damage if there is any."""
    index: Index = {}
    try:
        for member in _read_headers(_open_archive(path)):
            index.setdefault(_name_plainly(member.name), []).append(member)
    except StoreError:
        raise
    except Exception:  # whoever reads the archive itself meets the same error and names it
        pass
    return index


def _read_part(path: str, offset: int, size: int, name: str) -> io.BytesIO:
    """Return the bytes of a member of an archive."""
    is_short = f"{name}: the archive ends within this member. Download it again."
    if is_remote(path):
        content = read_url(path, name, offset, offset + size)
        if content.getbuffer().nbytes < size:
            raise ValueError(is_short)
        return content
    if offset + size > os.path.getsize(path):  # compared first, because a damaged header may claim any size
        raise ValueError(is_short)
    with open(path, "rb") as file:
        file.seek(offset)
        return io.BytesIO(file.read(size))


class _HeaderFile(io.BufferedReader):
    """Archive of which headers alone are read; a header that claims to be huge is not read into memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes, or raise a TarError if no header can be so long."""
        if size is None or not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header over {LONGEST_HEADER:,} bytes")
        return super().read(size)


def _open_archive(path: str) -> _HeaderFile:
    """Open an archive; raise a ValueError or OSError if there is no such file, or something else than one."""
    if is_remote(path):
        return _HeaderFile(StoredFile(path), AT_ONCE)
    return _HeaderFile(io.FileIO(check_path(path, path)))


def _read_headers(archive_file: _HeaderFile) -> Iterator[tarfile.TarInfo]:
    """Read the headers of all members; raise a TarError if the archive has no end mark."""
    with archive_file as file, tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # the list would keep all headers in memory
            yield member
        # `next` takes any block that is no header for the end mark. The true one is a block of zeros.
        file.seek(archive.offset)
        if file.read(TAR_BLOCK) != bytes(TAR_BLOCK):
            raise tarfile.ReadError(f"no header and no end mark at byte {archive.offset}")
