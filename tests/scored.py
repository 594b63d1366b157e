# SPDX-License-Identifier: Apache-2.0
"""Small files of scored pictures, for tests."""

import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def draw(folder: Path, names) -> None:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10 + index, 8), (20 * index, 0, 0)).save(folder / name)


def write_colours(folder: Path, count: int) -> Path:
    """Write pictures of one colour each, which crops and flips leave as they are, brighter with the score 0..count."""
    lines, step = ["image,mos,split"], 120 // count
    for index in range(count):
        Image.new("RGB", (50 + index, 44), (2 * step * index, step * index, 99)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{index},{'train' if index % 5 else 'validation'}")
    return Path(write(folder / "scores.csv", "\n".join(lines) + "\n"))


def words_of_training(table: Path, output: Path, **changes: Any) -> list[str]:
    """Return the words of a short `musiq finetune` on a table; changes replace or add some."""
    values = {"data": table, "output_dir": output, "epochs": 1, "batch_size": 8} | changes
    return [word for name, value in values.items() for word in (f"--{name}", *str(value).split())]


def names_of(rows) -> list[str]:
    return [Path(cell["path"]).name for cell in rows["image"]]


def table(**columns):
    import datasets

    return datasets.Dataset.from_dict(columns)


KONIQ = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n" + "".join(
    f"{index}.jpg,0.0,0.25,0.25,0.5,0.0,100,{60 + index},0.5,{name}\n"
    for index, name in enumerate(["training", "test", "validation", "training"])
)


PARTS = ("patch_1", "patch_2", "patch_3", "image")


BOXES = [(2, 1, 6, 5), (0, 0, 4, 4), (5, 2, 10, 8), (0, 0, 10, 8)]  # left, top, right, bottom


def paq2piq_table(names, *, shift=(0, 0), is_valid=None) -> str:
    sides = ("left", "top", "right", "bottom")
    header = [f"{name}_{part}" for part in PARTS for name in ("mos", *sides)]
    lines = []
    for name in names:
        cells = [name]
        for index, box in enumerate(BOXES):
            cells += [50.0 + index, *(edge + shift[side % 2] for side, edge in enumerate(box))]
        lines.append(cells + ([] if is_valid is None else [name in is_valid]))
    header = ["name_image", *header, *([] if is_valid is None else ["is_valid"])]
    return "\n".join(",".join(map(str, line)) for line in [header, *lines]) + "\n"


def reference_of(name: str) -> str:
    return name[:3].upper()


def write_csv(folder: Path, text: str) -> str:
    (folder / "scores.csv").write_text(text)
    return str(folder / "scores.csv")


NAMES = [f"{index}.png" for index in range(4)]


def write_parquet(folder: Path, name: str, *, pictures: bool = True, **columns) -> str:
    import datasets

    rows = datasets.Dataset.from_dict(columns)
    if pictures:  # in the file, not as paths
        cells = [{"bytes": (folder / "photos" / file).read_bytes(), "path": file} for file in columns["image"]]
        features = datasets.Features({**rows.features, "image": datasets.Image()})
        rows = datasets.Dataset.from_dict({**columns, "image": cells}, features=features)
    (folder / "tables").mkdir(exist_ok=True)
    rows.to_parquet(str(folder / "tables" / name))
    return str(folder / "tables" / name)


def write_shard(folder: Path, name: str, labels: list[dict[str, str]]) -> str:
    """One sample per entry: a picture and files of the named extensions."""
    with tarfile.open(folder / name, "w") as tar:
        for index, files in enumerate(labels):
            contents = {"png": (folder / "photos" / f"{index % 4}.png").read_bytes()}
            contents |= {extension: text.encode() for extension, text in files.items()}
            for extension, content in contents.items():
                entry = tarfile.TarInfo(f"{index:03d}.{extension}")
                entry.size = len(content)
                tar.addfile(entry, BytesIO(content))
    return str(folder / name)
