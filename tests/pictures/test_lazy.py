# SPDX-License-Identifier: Apache-2.0
"""Pictures that are read where they are decoded."""

import os
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from musiq_hf.pictures.lazy import LazyPicture
from musiq_hf.pictures.sources.paths import find_sources


@pytest.mark.parametrize("error", [struct.error("short"), IndexError("x"), MemoryError(), RecursionError("deep")])
def test_whatever_a_decoder_raises_is_one_sentence(error):
    def fail(*arguments):
        raise error

    with pytest.raises(ValueError, match=rf"^a.png: cannot be read or decoded \({type(error).__name__}"):
        LazyPicture("a.png", fail).open()


def test_a_lazy_picture_travels_undecoded_and_is_read_where_it_is_opened(tmp_path):
    Image.new("RGB", (7, 5), "red").save(tmp_path / "a.png")
    ((key, lazy),) = find_sources([str(tmp_path)])
    sent = pickle.dumps(lazy)
    assert len(sent) < 1000
    copy = pickle.loads(sent)
    assert copy.name == key and np.array_equal(copy.open(), lazy.open()) and copy.open().size == (7, 5)
    os.remove(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png: no such file"):
        copy.open()
