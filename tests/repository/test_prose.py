# SPDX-License-Identifier: Apache-2.0
"""The prose of docstrings. Each rule is one test, which lists all places where it is broken, by file.

To see them: `pytest tests/repository/test_prose.py`.
"""

import ast
import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from places import ROOT

MAX_WORDS = 25

# Imperatives that open the docstring of a function. Add one if it is missing; a noun does not belong here.
VERBS = set(
    """
    Accept Accumulate Adapt Add Align Allocate Allow Analyse Annotate Answer Append Apply Approximate Ask Assemble
    Assert Assign Attach Attend Average Batch Begin Bin Bind Blend Block Blur Bound Bring Build Cache Calculate
    Calibrate Call Cast Change Check Choose Classify Clear Climb Clip Close Collate Collect Combine Compare Compile
    Complete Compose Compress Compute Condense Configure Confirm Connect Continue Convert Convolve Copy Correct
    Count Cover Create Crop Crossfade Cut Deal Decide Declare Decode Decompose Decorate Define Degrade Delete
    Derive Describe Detach Detect Determine Disable Discard Distort Divide Do Double Download Draw Drop Embed Emit
    Enable Encode End Enlarge Enter Estimate Evaluate Exclude Execute Expand Explain Export Expose Extract Fail
    Feed Fetch Fill Filter Find Fine-tune Finish Fit Fix Flatten Flip Fold Follow Forget Format Freeze Gather
    Generate Get Give Go Group Guess Halve Hand Hash Hide Hold Identify Ignore Import Include Index Infer
    Initialise Insert Inspect Install Interleave Interpolate Interpret Invert Iterate Join Keep Label Launch Leave
    Let Limit Link List Load Locate Lock Log Look Lower Make Map Mark Mask Match Measure Merge Mirror Mix Move
    Multiply Name Normalise Normalize Note Notice Number Observe Offer Omit Open Order Outline Overlay Overwrite
    Pack Pad Paint Parse Part Pass Patch Pause Perform Permute Pick Place Plan Plot Point Pool Posterise Pre-train
    Predict Prefix Prepare Preserve Print Process Produce Project Protect Publish Pull Push Put Quantise Query
    Quote Raise Rank Reach Read Rebuild Receive Recognise Record Reduce Refer Refuse Register Reject Release
    Remember Remove Rename Render Reorder Repeat Replace Report Represent Request Require Resample Rescale Reset
    Reshape Resize Resolve Restore Resume Retry Return Reveal Reverse Rewrite Rotate Round Run Sample Save Say
    Scale Scan Score Screen Search Select Send Separate Serve Set Share Sharpen Shift Shorten Show Shrink Shuffle
    Sign Simulate Skip Slice Smooth Solve Sort Split Spot Spread Stack Start Stop Store Stream Stretch Strip
    Subtract Sum Summarise Summarize Synthesise Take Tell Test Tile Time Tokenise Track Train Transform Translate
    Transpose Trim Truncate Try Turn Unfreeze Unpack Update Upload Use Validate Verify View Visit Vote Wait Walk
    Warm Warn Watch Weigh Weight Whiten Wrap Write Yield Zero
    """.split()
)
# Those of them that are nouns too: "Score pictures" is a command, "Score of a picture" is not.
NOUNS_TOO = set(
    """
    Answer Average Batch Bin Block Blur Bound Call Cast Change Check Collate Copy Count Crop Cut Download Draw End
    Estimate Export Filter Fit Fold Format Group Hash Index Label Limit Link List Load Lock Log Look Map Mark Mask
    Match Measure Mirror Mix Move Name Note Number Offer Order Outline Overlay Pad Paint Part Pass Patch Pause Pick
    Place Plan Plot Point Pool Process Project Query Quote Rank Record Release Report Request Return Round Run
    Sample Scale Score Screen Search Set Share Shift Sign Slice Sort Split Spot Spread Stack Start Stop Store
    Stream Stretch Sum Test Tile Time Track Train Transform Update Upload Use View Visit Vote Walk Watch Weight
    Wrap Yield Zero
    """.split()
)
AFTER_A_NOUN = {
    "of",
    "that",
    "which",
    "whose",
    "per",
    "and",
    "or",
    "in",
    "on",
    "at",
    "by",
    "for",
    "from",
    "to",
    "with",
}
AFTER_A_NOUN |= {"without", "within", "between", "as", "is", "are"}
AFTER_A_NOUN |= {"distribution", "distributions", "range", "ranges", "norm"}  # "Score ranges": two nouns
# Words that open neither a command nor the name of a thing.
FRAGMENTS = {"What", "Whether", "Where", "Which", "Who", "How", "When", "Why", "Likewise", "Also", "See", "Ditto"}
FRAGMENTS |= {"As", "Of", "In", "For", "With", "From"}
PREPOSITIONS = {"Without", "On", "At", "To", "By", "If", "Until", "Outside", "Inside", "Within", "Between", "Through"}
DATA_TYPES = re.compile(r"u?int\d+|b?float\d+|bool|sRGB|dtype")

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Examples?|References|Notes?):")
ENTRY = re.compile(r"(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): (.*)", re.DOTALL)
COMMAND = re.compile(r"(python|accelerate|torchrun|musiq|pip|>>>|\$) ")
ABBREVIATIONS = "".join(rf"(?<!\b{word}\.)" for word in ("e.g", "i.e", "al", "eq", "Eq", "Fig", "Sec", "vs"))
SENTENCE_END = re.compile(rf"(?<=[.!?]){ABBREVIATIONS}\s+(?=[A-Z`\"'(])")


class Docstring(NamedTuple):
    """A docstring and its owner; `kind` is "module", "class", "function" or "property"."""

    path: Path
    line: int
    name: str
    kind: str
    text: str


class Part(NamedTuple):
    """A paragraph of a docstring (section ""), an entry of a section (`name` is the argument), an item of a list."""

    section: str
    name: str
    text: str


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        ast.unparse(decorator).split(".")[-1] in ("property", "cached_property") for decorator in node.decorator_list
    )


def docstrings(path: Path) -> Iterator[Docstring]:
    """Those of a module, its classes, functions and methods; not of magic methods, nor of nested functions."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.Module):
            kind, name, line = "module", "module", 1
        elif isinstance(node, ast.ClassDef):
            kind, name, line = "class", node.name, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            kind, name, line = "property" if is_property(node) else "function", node.name, node.lineno
        else:
            continue
        text = ast.get_docstring(node)
        if text and not re.fullmatch(r"__\w+__", name):
            yield Docstring(path, line, name, kind, text)
        if kind in ("module", "class"):
            waiting += node.body


def parts(text: str) -> Iterator[Part]:
    """Paragraphs and entries, without line breaks; what is indented for another reason is code and left out."""
    section = ""
    for paragraph in re.split(r"\n\s*\n|\n(?=\w+:\n)", inspect.cleandoc(text)):
        head, _, rest = paragraph.partition("\n")
        if SECTION.fullmatch(head.strip()) and not head.startswith(" "):
            section, paragraph = head.strip().removesuffix(":"), rest
        elif not head.startswith(" "):
            section = ""
        if section in ("Example", "Examples", "References") or not paragraph.strip():
            continue
        if not section:
            if not paragraph.startswith(" ") and not COMMAND.match(paragraph):
                yield from (Part("", "", " ".join(item.split())) for item in re.split(r"\n(?=- )", paragraph))
            continue
        for entry in re.split(r"\n(?= {4}\S)", paragraph) if section not in ("Returns", "Yields") else [paragraph]:
            match = ENTRY.fullmatch(entry.strip()) if section in ("Args", "Attributes", "Raises") else None
            name, content = match.groups() if match else ("", entry)
            yield from (Part(section, name, " ".join(item.split())) for item in re.split(r"\n\s*(?=- )", content))


def sentences(text: str) -> list[str]:
    return SENTENCE_END.split(text)


def num_words(sentence: str) -> int:
    """Words between spaces; code in backticks is one, and a sign is none."""
    return sum(bool(re.search(r"\w", word)) for word in re.sub(r"`[^`]+`", "code", sentence).split())


def opening(text: str) -> tuple[str, str, bool]:
    """First word, second word, and whether a comma or the like stands between them."""
    words = [*text.split(), "", ""]
    first = words[0].rstrip(",;:.")
    return first, words[1].rstrip(",;:."), first != words[0]


def is_command(text: str) -> bool:
    first, second, _ = opening(text)
    return first in VERBS and not (first in NOUNS_TOO and second in ("of", "per", "whose"))


def is_thing(text: str) -> bool:
    first, second, has_comma = opening(text)
    if first in FRAGMENTS | PREPOSITIONS:
        return False
    stems = {first, first.removesuffix("s"), first.removesuffix("es")} & VERBS
    if stems:  # "Find", "Finds"; "Scores pictures"
        return bool(stems & NOUNS_TOO) and (has_comma or not second or second in AFTER_A_NOUN)
    return True


def stands_alone(part: Part) -> bool:
    first = opening(part.text)[0]
    # Of an argument that is true or false, "Whether to ..." says what it decides.
    if first in FRAGMENTS - {"Whether"}:
        return False
    is_small = re.fullmatch(r"[a-z]+", first) and not DATA_TYPES.fullmatch(first)
    return not is_small and part.text.endswith((".", "!", "?", ":", ")", "`", '"'))


@cache
def every() -> list[Docstring]:
    """Those of the package, the converters and the examples; parsed when a test asks for them: it takes seconds."""
    files = [
        path for folder in ("musiq_hf", "conversion", "examples") for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    return [item for path in files for item in sorted(docstrings(path), key=lambda docstring: docstring.line)]


def of_package() -> list[Docstring]:
    return [docstring for docstring in every() if docstring.path.is_relative_to(ROOT / "musiq_hf")]


def check(broken: list[tuple[Docstring, str]]) -> None:
    """Fail with all places where a rule is broken, by file, and their number by folder."""
    if not broken:
        return
    by_file = defaultdict(list)
    for docstring, text in broken:
        by_file[docstring.path.relative_to(ROOT).as_posix()].append(f"  {docstring.line} {docstring.name}: {text}")
    folders = Counter(name.rpartition("/")[0] for name, lines in by_file.items() for _ in lines)
    counts = ", ".join(f"{folder} {count}" for folder, count in sorted(folders.items()))
    listed = [line for name, lines in by_file.items() for line in (name, *lines)]
    pytest.fail("\n".join((f"{len(broken)} places: {counts}", *listed)), pytrace=False)


def test_functions_open_with_an_imperative():
    functions = [docstring for docstring in every() if docstring.kind == "function"]
    check([(item, item.text.splitlines()[0]) for item in functions if not is_command(item.text)])


def test_classes_modules_and_properties_open_with_a_noun():
    things = [docstring for docstring in every() if docstring.kind != "function"]
    check([(item, item.text.splitlines()[0]) for item in things if not is_thing(item.text)])


def test_every_line_of_a_section_stands_alone():
    """Of `Args`, `Attributes`, `Returns`, `Yields` and `Raises`: "Seed of the noise.", not "Of the noise."."""
    check(
        [
            (item, f"{part.section}: {part.name or '...'}: {part.text}")
            for item in every()
            for part in parts(item.text)
            if part.section and not stands_alone(part)
        ]
    )


def test_sentences_are_short():
    check(
        [
            (item, f"{num_words(sentence)} words: {sentence}")
            for item in of_package()
            for part in parts(item.text)
            for sentence in sentences(part.text)
            if num_words(sentence) > MAX_WORDS
        ]
    )


def test_sentences_are_whole():
    """No telegraph style: no scraps of one or two words, no rest of the sentence before, no chain by semicolons."""
    broken = []
    for item in of_package():
        for part in parts(item.text):
            first, *others = sentences(part.text)
            scraps = [
                text for text in others if num_words(text) < 3 or opening(text)[0] in ("Of", "Likewise", "Ditto")
            ]
            chains = [text for text in (first, *others) if re.sub(r"`[^`]*`", "", text).count(";") > 1]
            broken += [(item, text) for text in (*scraps, *chains)]
    check(broken)


def test_the_rules_tell_good_from_bad():
    commands = ("Return the rows.", "Score, then rank.", "Split named rows.", "Check that a key is there.")
    assert all(map(is_command, commands))
    assert not any(
        map(is_command, ("Rows of a table.", "Returns the rows.", "What it is.", "Score of it.", "return."))
    )
    things = ("Table of rows.", "The rows.", "Scores of a table.", "Patch, not yet embedded.", "`musiq score`: rows.")
    assert all(map(is_thing, things))
    assert not any(map(is_thing, ("Finds rows.", "Scores pictures.", "Score pictures.", "How it is.", "From here.")))
    text = """First line.

    A body. With two.

    Args:
        a: Of it,
            wrapped.
        b: Seed of `x y`.

    Returns:
        As `f`.
    """
    found = list(parts(text))
    assert [part.section for part in found] == ["", "", "Args", "Args", "Returns"]
    assert [part.name for part in found] == ["", "", "a", "b", ""]
    assert [stands_alone(part) for part in found[2:]] == [False, True, False]
    assert sentences(found[1].text) == ["A body.", "With two."] and num_words("= one, `two words` - three.") == 3
    assert len(of_package()) > 300
