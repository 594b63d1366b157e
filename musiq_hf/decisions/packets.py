# SPDX-License-Identifier: Apache-2.0
"""Tags of XMP packets, read and set in place: no byte outside of a tag that is set moves.

Libraries for XMP read a packet into a model and write it anew; what their model lacks is lost. Here a standard parser
(expat) only tells where the values of tags stand, and new values are put there.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XML = "http://www.w3.org/XML/1998/namespace"
BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
DECLARED = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([\w.-]+)["']""")
ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*("[^"]*"|'[^']*')""")
START_TAG = re.compile(rb"""<([^\s/>]+)((?:\s+[^\s=/>]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(/?)>""")
QUOTES = {'"': "&quot;", "'": "&apos;"}
EMPTY = f"""\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{RDF}">
  <rdf:Description rdf:about=""/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()

Tag = tuple[str, str]  # namespace and name


class _Value(NamedTuple):
    """Value of a tag, and the bytes that hold it.

    Attributes:
        text: Value; None if it is no plain text.
        start: Place of the first byte.
        end: Place after the last byte.
        before: Bytes that must stand before a value that is put there.
        after: Bytes that must stand after it.
    """

    text: str | None
    start: int
    end: int
    before: bytes = b""
    after: bytes = b""


@dataclass
class _Element:
    """Element whose end was not seen yet.

    Attributes:
        tag: Name, with its namespace before it.
        match: Its start tag.
        scope: Namespaces by their prefixes.
        is_description: Whether its attributes and parts are tags of the packet.
        texts: Characters so far.
        is_plain: Whether it holds nothing but characters.
    """

    tag: Tag
    match: re.Match[bytes]
    scope: Mapping[str, str]
    is_description: bool = False
    texts: list[str] = field(default_factory=list)
    is_plain: bool = True


class _Packet:
    """Packet with the places of its tags: those of the descriptions that lie directly in rdf:RDF.

    Args:
        content: Packet in UTF-8, without a byte order mark.

    Attributes:
        values: Values of each tag; several mean that it is named several times.
        descriptions: Start tags of the descriptions, and namespaces by their prefixes there.
        root: Start tag of rdf:RDF, and the place of its end tag.

    Raises:
        ValueError: If it is damaged or no XMP.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.values: dict[Tag, list[_Value]] = {}
        self.descriptions: list[tuple[re.Match[bytes], Mapping[str, str]]] = []
        self.root: tuple[re.Match[bytes], int] | None = None
        self._open: list[_Element] = []
        self._parser = parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._add_text
        parser.CommentHandler = parser.ProcessingInstructionHandler = self._spoil
        parser.StartDoctypeDeclHandler = _refuse_document_type
        try:
            parser.Parse(content, True)
        except expat.ExpatError as error:
            raise ValueError(f"no well-formed XML ({error})") from error
        if self.root is None:
            raise ValueError("it holds no rdf:RDF, and so no XMP")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        match = START_TAG.match(self.content, self._parser.CurrentByteIndex)
        if match is None:
            raise ValueError(f"the tag {name} cannot be read")
        scope = dict(self._open[-1].scope) if self._open else {"xml": XML}
        for key, value in attributes.items():
            if key == "xmlns" or key.startswith("xmlns:"):
                scope[key[6:]] = value
        if self._open:
            self._open[-1].is_plain = False
        tag = _resolve(name, scope)
        # RDF of another packet may be a value in this one, so the depth counts.
        is_within = len(self._open) in (1, 2) and self._open[-1].tag == (RDF, "RDF")
        element = _Element(tag, match, scope, is_within and tag == (RDF, "Description"))
        if element.is_description:
            self.descriptions.append((match, scope))
            for attribute in ATTRIBUTE.finditer(match[2]):
                self._add_attribute(attribute, attributes, scope, match.start(2))
        self._open.append(element)

    def _add_attribute(
        self, match: re.Match[bytes], attributes: Mapping[str, str], scope: Mapping[str, str], start: int
    ) -> None:
        """Note a tag that is an attribute of a description; `start` is where its attributes begin."""
        name = match[1].decode()
        if ":" in name and not name.startswith("xmlns:"):
            value = _Value(attributes[name], start + match.start(2) + 1, start + match.end(2) - 1)
            self.values.setdefault(_resolve(name, scope), []).append(value)

    def _end(self, name: str) -> None:
        element, place = self._open.pop(), self._parser.CurrentByteIndex
        match = element.match
        if element.tag == (RDF, "RDF") and len(self._open) <= 1:
            self.root = match, place
        if not self._open or not self._open[-1].is_description:
            return
        is_plain = element.is_plain and all(found[1].startswith(b"xml") for found in ATTRIBUTE.finditer(match[2]))
        value = _Value("".join(element.texts) if is_plain else None, match.end(), place)
        if match[3]:
            value = _Value(value.text, match.start(3), match.end(), b">", b"</%b>" % match[1])
        self.values.setdefault(element.tag, []).append(value)

    def _add_text(self, text: str) -> None:
        if self._open:
            self._open[-1].texts.append(text)

    def _spoil(self, *_: str) -> None:
        if self._open:
            self._open[-1].is_plain = False


def _refuse_document_type(*_: object) -> None:
    raise ValueError("it has a document type, which XMP does not know, and which could name other files")


def _resolve(name: str, scope: Mapping[str, str]) -> Tag:
    """Return the namespace and the name of a name with a prefix."""
    prefix, colon, local = name.rpartition(":")
    if colon and prefix not in scope:
        raise ValueError(f"the prefix of {name} is declared nowhere")
    return scope.get(prefix, ""), local


def _decode(content: bytes) -> tuple[bytes, bytes, str]:
    """Return a packet in UTF-8, its byte order mark, and the name of its encoding."""
    mark, encoding = next(((mark, name) for mark, name in BOMS if content.startswith(mark)), (b"", ""))
    if not mark:
        declared = DECLARED.match(content)
        encoding = declared[1].decode() if declared else "utf-8"
    try:
        text = content[len(mark) :].decode(encoding)
        is_same = text.encode(encoding) == content[len(mark) :]
    except (UnicodeError, LookupError) as error:
        raise ValueError(f"it is not in {encoding}, as it should be ({error})") from error
    if not is_same:
        raise ValueError(f"it is not in plain {encoding}")
    return text.encode(), mark, encoding


def read_tags(content: bytes) -> dict[Tag, str | None]:
    """Read the tags of a packet; the value of one that is no plain text is None.

    Args:
        content: File or packet, in UTF-8, UTF-16 with a byte order mark, or an encoding that it declares.

    Raises:
        ValueError: If it is damaged, or no XMP.
    """
    values = _Packet(_decode(content)[0]).values
    return {tag: found[0].text if len({value.text for value in found}) == 1 else None for tag, found in values.items()}


def set_tags(content: bytes, tags: Mapping[Tag, str], prefixes: Mapping[str, str]) -> bytes:
    """Set plain tags of a packet, and leave all other bytes as they are.

    Args:
        content: File or packet; `EMPTY` begins a new one.
        tags: New values by their tags.
        prefixes: Prefix of each namespace, where the packet has none.

    Returns:
        The packet in its own encoding.

    Raises:
        ValueError: If it is damaged, or a tag that is to be set stands there several times or is no plain text.
    """
    packet, mark, encoding = _decode(content)
    for tag, value in tags.items():
        packet = _set_tag(packet, tag, value, prefixes[tag[0]])
    new = mark + packet.decode().encode(encoding, "xmlcharrefreplace")
    if any(read_tags(new).get(tag) != value for tag, value in tags.items()):
        raise ValueError("it cannot hold these values")
    return new


def _set_tag(content: bytes, tag: Tag, text: str, prefix: str) -> bytes:
    """Set one tag of a packet in UTF-8."""
    packet, new = _Packet(content), escape(text, QUOTES).encode()
    found = packet.values.get(tag, [])
    if len(found) > 1 or any(value.text is None for value in found):
        raise ValueError(f"{tag[1]} stands there {'several times' if len(found) > 1 else 'in parts'}")
    if found:
        (value,) = found
        return content[: value.start] + value.before + new + value.after + content[value.end :]
    if not packet.descriptions:
        return _set_tag(_add_description(packet), tag, text, prefix)
    match, scope = packet.descriptions[0]
    declared = next((name for name, namespace in scope.items() if name and namespace == tag[0]), None)
    # A prefix may stand for something else there, and redeclared it would change what lies within.
    name = declared or next(name for name in _list_prefixes(prefix) if name not in scope)
    first = re.match(rb"\s*", match[2])
    gap = first[0] if first and first[0] else b" "
    declaration = b"" if declared else b'%bxmlns:%b="%b"' % (gap, name.encode(), tag[0].encode())
    place = match.start(2)
    return b'%b%b%b%b:%b="%b"%b' % (
        *(content[:place], declaration, gap, name.encode(), tag[1].encode(), new, content[place:]),
    )


def _list_prefixes(prefix: str) -> Iterator[str]:
    yield prefix
    for number in range(2, 1_000_000):
        yield f"{prefix}{number}"


def _add_description(packet: _Packet) -> bytes:
    """Add an empty description to a packet that has none."""
    description = b'<rdf:Description xmlns:rdf="%b" rdf:about=""/>' % RDF.encode()
    content = packet.content
    if packet.root is None:
        raise ValueError("it holds no rdf:RDF, and so no XMP")
    match, end = packet.root
    if match[3]:
        return content[: match.start(3)] + b">%b</%b>" % (description, match[1]) + content[match.end() :]
    return content[:end] + description + content[end:]
