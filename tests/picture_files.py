# SPDX-License-Identifier: Apache-2.0
"""Small files of pictures, and what `find_sources` makes of them, for tests."""

import io

import numpy as np
from PIL import Image

from musiq_hf.pictures.sources.paths import count_sources, find_sources


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def png(seed):
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return file.getvalue()


def write(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(0) if content is None else content)
    return path


def keys(*paths, **kwargs):
    found = [key for key, _ in find_sources(paths, **kwargs)]
    assert count_sources(paths, **kwargs) == len(found)
    assert [key for key, _ in find_sources(paths, **kwargs)] == found
    return found


def outcomes(*paths, **kwargs):
    """Key, and pixels or error, of every picture."""
    results = {}
    for key, picture in find_sources(paths, **kwargs):
        assert key not in results
        try:
            results[key] = np.array(picture.open())
        except ValueError as error:
            results[key] = str(error)
    return results


def damage(content, start, data):
    return content[:start] + data + content[start + len(data) :]
