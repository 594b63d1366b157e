# SPDX-License-Identifier: Apache-2.0
"""Twenty sidecars as different programs lay them out, all made up: their forms are those of XMP, their values ours."""

import xml.etree.ElementTree as ElementTree

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMP = "http://ns.adobe.com/xap/1.0/"
BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
END = '<?xpacket end="w"?>'
NAMESPACES = {
    "xmp": XMP,
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "stRef": "http://ns.adobe.com/xap/1.0/sType/ResourceRef#",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "darktable": "http://darktable.sf.net/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "MicrosoftPhoto": "http://ns.microsoft.com/photo/1.0/",
    "acdsee": "http://ns.acdsee.com/iptc/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "photomechanic": "http://ns.camerabits.com/photomechanic/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "odd": "http://example.org/a program that nobody knows/",
}


def declare(prefixes):
    return " ".join(f'xmlns:{prefix}="{NAMESPACES[prefix]}"' for prefix in prefixes.split())


def packet(*descriptions, tool="XMP Core 6.0.0", begin="", end=""):
    body = "\n".join(f"  {description}" for description in descriptions)
    return (
        f'{begin}<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="{tool}">\n <rdf:RDF xmlns:rdf="{RDF}">\n{body}\n'
        f" </rdf:RDF>\n</x:xmpmeta>\n{end}"
    )


def describe(prefixes, attributes="", parts=""):
    start = f'<rdf:Description rdf:about="" {declare(prefixes)} {attributes}'
    return f"{start}>{parts}</rdf:Description>" if parts else f"{start}/>"


def bag(name, *items, kind="Bag"):
    return f"<{name}><rdf:{kind}>{''.join(f'<rdf:li>{item}</rdf:li>' for item in items)}</rdf:{kind}></{name}>"


def language(name, **texts):
    items = "".join(f'<rdf:li xml:lang="{code.replace("_", "-")}">{text}</rdf:li>' for code, text in texts.items())
    return f"<{name}><rdf:Alt>{items}</rdf:Alt></{name}>"


HISTORY = "".join(
    f'<rdf:li darktable:num="{number}" darktable:operation="{name}" darktable:enabled="1" darktable:modversion="3" '
    f'darktable:params="gz02eJxjYGDAkAYAAA{number:04x}8A" darktable:multi_name="" darktable:multi_priority="0" '
    f'darktable:blendop_version="11" darktable:blendop_params="gz12eJxjYGBgkGAAgRNODESDBnsIHll8ANNSGQM="/>'
    for number, name in enumerate(("rawprepare", "demosaic", "exposure", "filmicrgb", "gamma"))
)
EVENTS = (
    '<xmpMM:History><rdf:Seq><rdf:li stEvt:action="derived" stEvt:parameters="saved to new location"/>'
    '<rdf:li rdf:parseType="Resource"><stEvt:action>saved</stEvt:action><stEvt:changed>/metadata</stEvt:changed>'
    "</rdf:li></rdf:Seq></xmpMM:History>"
)
CURVE = bag("crs:ToneCurvePV2012", "0, 0", "64, 58", "255, 255", kind="Seq")
REGIONS = (
    '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="6000" stDim:h="4000" '
    'stDim:unit="pixel"/><mwg-rs:RegionList><rdf:Bag><rdf:li><rdf:Description mwg-rs:Name="Ada &amp; Bo" '
    'mwg-rs:Type="Face" xmp:Rating="5"><mwg-rs:Area stArea:x=".5" stArea:y=".4" stArea:w=".1" stArea:h=".2" '
    'stArea:unit="normalized"/></rdf:Description></rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>'
)
QUALIFIED = (
    '<odd:maker rdf:parseType="Resource"><rdf:value>Ada</rdf:value><odd:role>camera</odd:role></odd:maker>'
    '<odd:empty/><odd:link rdf:resource="http://example.org/?a=1&amp;b=2"/>'
    "<odd:deep><rdf:Seq><rdf:li><rdf:Bag><rdf:li>a</rdf:li><rdf:li> b  </rdf:li></rdf:Bag></rdf:li></rdf:Seq>"
    "</odd:deep>"
)

TEXTS = {
    "darktable": '<?xml version="1.0" encoding="UTF-8"?>\n'
    + packet(
        describe(
            "xmp xmpMM darktable dc",
            'xmp:Rating="0" xmpMM:DerivedFrom="photo.jpg" darktable:xmp_version="5" darktable:raw_params="0" '
            'darktable:auto_presets_applied="1" darktable:history_end="5" darktable:iop_order_version="4"',
            f"<darktable:history><rdf:Seq>{HISTORY}</rdf:Seq></darktable:history>"
            + bag("darktable:colorlabels", "2", kind="Seq")
            + bag("dc:subject", "sea", "darktable|format|jpg"),
        ),
        tool="XMP Core 4.4.0-Exiv2",
    ),
    "darktable masks": packet(
        describe(
            "xmp darktable",
            'xmp:Rating="0" darktable:xmp_version="5"',
            "<darktable:masks_history><rdf:Seq>"
            + '<rdf:li darktable:mask_num="0" darktable:mask_points="gz03eJxjYGBg"/>' * 40
            + "</rdf:Seq></darktable:masks_history>",
        )
    ),
    "digiKam": BEGIN
    + packet(
        describe(
            "xmp dc digiKam MicrosoftPhoto acdsee lr",
            'xmp:CreatorTool="digiKam-7.9.0" digiKam:PickLabel="0" digiKam:ColorLabel="0" MicrosoftPhoto:Rating="0" '
            'acdsee:rating="0"',
            bag("digiKam:TagsList", "Places/Sea", "People/Ada", kind="Seq")
            + bag("lr:hierarchicalSubject", "Places|Sea")
            + language("digiKam:CaptionsAuthorNames", x_default="")
            + language("dc:description", x_default="Sea", de_DE="Das Meer", ja="海"),
        )
    )
    + END,
    "Lightroom": packet(
        describe(
            "xmp xmpMM stEvt crs dc photoshop",
            'xmp:ModifyDate="2024-05-01T10:00:00+02:00" xmp:MetadataDate="2024-05-02T10:00:00+02:00" '
            'photoshop:SidecarForExtension="NEF" crs:Version="16.0" crs:Exposure2012="+0.35"',
            EVENTS + CURVE + language("dc:title", x_default="A title"),
        ),
        tool="Adobe XMP Core 7.0-c000 1.000000, 0000/00/00-00:00:00        ",
    ),
    "Camera Raw": packet(
        describe("crs", 'crs:RawFileName="a.cr3"', CURVE),
        describe("xmp", "", "<xmp:Rating>0</xmp:Rating><xmp:Label/>"),
        describe("xmpMM stRef", "", '<xmpMM:DerivedFrom stRef:documentID="1" stRef:originalDocumentID="2"/>'),
    ),
    "Capture One": '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n'
    + packet(
        describe("xmp photoshop lr", "", "<xmp:Rating>0</xmp:Rating>" + bag("lr:hierarchicalSubject", "a|b")),
        tool="XMP Core 5.5.0",
    ).replace("\n", "\r\n"),
    "exiftool": BEGIN
    + (
        f"<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='Image::ExifTool 12.57'>\n<rdf:RDF xmlns:rdf='{RDF}'>\n\n"
        f" <rdf:Description rdf:about=''\n  xmlns:dc='{NAMESPACES['dc']}'>\n  <dc:title>\n   <rdf:Alt>\n"
        "    <rdf:li xml:lang='x-default'>It's &lt;here&gt;</rdf:li>\n   </rdf:Alt>\n  </dc:title>\n"
        f" </rdf:Description>\n\n <rdf:Description rdf:about=''\n  xmlns:xmp='{XMP}'>\n  <xmp:Rating>0</xmp:Rating>\n"
        " </rdf:Description>\n</rdf:RDF>\n</x:xmpmeta>\n"
    )
    + "<?xpacket end='w'?>",
    "Photo Mechanic": BEGIN
    + packet(
        describe(
            "photomechanic xmp photoshop Iptc4xmpCore",
            'photomechanic:ColorClass="3" photomechanic:Tagged="False" photomechanic:Prefs="0:3:0:001234" '
            'photoshop:City="Köln"',
            '<Iptc4xmpCore:CreatorContactInfo rdf:parseType="Resource"><Iptc4xmpCore:CiEmailWork>a@example.org'
            "</Iptc4xmpCore:CiEmailWork></Iptc4xmpCore:CreatorContactInfo>",
        )
    )
    + END,
    "RawTherapee": packet(describe("xmp", 'xmp:Rating="0"'), tool="XMP Core 4.4.0-Exiv2"),
    "faces": packet(describe("xmp mwg-rs stDim stArea", "", REGIONS)),
    "old Photoshop": (
        f'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xapmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description about="" xmlns:xap="{XMP}" xap:CreatorTool="Photoshop 7"/>'
        "</rdf:RDF></x:xapmeta><?xpacket end='r'?>"
    ),
    "no wrapper": f'<rdf:RDF xmlns:rdf="{RDF}">{describe("dc", "", bag("dc:subject", "a", "b"))}</rdf:RDF>\n',
    "other prefixes": (
        f'<m:xmpmeta xmlns:m="adobe:ns:meta/"><r:RDF xmlns:r="{RDF}"><r:Description r:about="" '
        f'xmlns:xmp="{NAMESPACES["odd"]}" xmlns:musiq="{NAMESPACES["exif"]}" xmp:Rating="their own" '
        f'musiq:ISO="100"><q:Label xmlns:q="{XMP}">red</q:Label></r:Description></r:RDF></m:xmpmeta>'
    ),
    "comments": packet(
        "<!-- before -->",
        describe("xmp odd", 'odd:note="a &gt; b &#x9; &quot;c&quot;"', "<!-- within --><odd:x>1<!-- in --></odd:x>"),
        "<?keep this?>",
        begin="<!-- first -->",
        end="<!-- last -->",
    ),
    "structures": packet(describe("dc odd", "", QUALIFIED)),
    "cdata": packet(describe("odd", "", "<odd:code><![CDATA[<a href='x'>&amp;</a>]]></odd:code>")),
    "empty": packet(),
    "closed": f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"/></x:xmpmeta>',
    "padding": BEGIN + packet(describe("xmp", 'xmp:Label="Grün"')) + (" " * 99 + "\n") * 20 + END,
    "element": packet(describe("xmp", "", f"<xmp:Rating\n/>{bag('xmp:Identifier', 'a')}")),
}
ENCODINGS = {"structures": "utf-16", "padding": "utf-8-sig", "comments": "utf-8-sig"}
SIDECARS = {name: text.encode(ENCODINGS.get(name, "utf-8")) for name, text in TEXTS.items()}


def canonical(content, *, ours=()):
    """A packet in canonical form without ratings and our tags, to compare all others; comments stay."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True, insert_pis=True))
    root = ElementTree.fromstring(content, parser)
    rdf = root if root.tag == f"{{{RDF}}}RDF" else root.find(f"{{{RDF}}}RDF")
    for description in rdf.findall(f"{{{RDF}}}Description"):
        for name in [name for name in description.attrib if name in ours]:
            del description.attrib[name]
        for part in [part for part in description if part.tag in ours]:
            description.remove(part)
        if set(description.attrib) <= {f"{{{RDF}}}about"} and not len(description):
            rdf.remove(description)  # made to hold ours alone
    return [ElementTree.canonicalize(ElementTree.tostring(root), with_comments=True, strip_text=True)]
