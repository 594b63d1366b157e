# SPDX-License-Identifier: Apache-2.0
import pytest

from musiq_hf.explain import plot_ladder
from musiq_hf.explain.figures import save_figure

CURVES = {
    "jpeg": {"bits_per_pixel": [0.5, 2.0], "psnr_y": [30.0, 40.0], "ssim_y": [0.8, 0.9], "score": [20.0, 60.0]},
    "webp": {"bits_per_pixel": [0.4], "psnr_y": [31.0], "ssim_y": [0.85], "score": [25.0]},
}


def test_a_line_for_each_codec_in_each_panel(tmp_path):
    figure = plot_ladder(CURVES, title=f"a$b$_{'long' * 50}.png")
    assert [axes.get_ylabel() for axes in figure.axes] == ["PSNR of luma, dB", "SSIM of luma", "score, MOS points"]
    for axes, name in zip(figure.axes, ("psnr_y", "ssim_y", "score"), strict=True):
        assert axes.get_xscale() == "log"
        lines = {line.get_label(): [values.tolist() for values in line.get_data()] for line in axes.lines}
        assert lines == {codec: [curve["bits_per_pixel"], curve[name]] for codec, curve in CURVES.items()}
    title = figure.get_suptitle()
    assert title.startswith(r"a\$b\$_long") and title.endswith("long.png") and "…" in title and len(title) < 70
    save_figure(tmp_path / "new/ladder.png", figure)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ladder.png"]


def test_no_curve_is_refused():
    with pytest.raises(ValueError, match="At least one curve is needed"):
        plot_ladder({}, title="nothing")
