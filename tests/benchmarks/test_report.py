# SPDX-License-Identifier: Apache-2.0
"""What becomes of benchmark results: files, verdicts, the page; and the unattended run on a GPU, on a CPU."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import check, gpu, gpu_correctness, report
from benchmarks.results import add_section, find_row, read_all, read_results
from musiq_hf import TINY_CHECKPOINT

# -- results


def test_sections_are_merged_and_written_whole(tmp_path):
    path = tmp_path / "deep" / "bench.json"
    add_section(path, "a", {"rows": [{"x": 1}, {"x": 2, "error": "no"}]})
    add_section(path, "b", {"rows": []})
    add_section(path, "a", {"rows": [{"x": 1, "y": 3}, {"x": 2, "error": "no"}]})
    results = read_results(path)
    assert set(results["sections"]) == {"a", "b"}
    assert find_row(results, "a", x=1) == {"x": 1, "y": 3}
    assert find_row(results, "a", x=2) is None and find_row(results, "c") is None
    assert [file.name for file in path.parent.iterdir()] == ["bench.json"]


def test_what_holds_no_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match="There are no results in .*python -m benchmarks.cpu"):
        read_results(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="has no `sections`"):
        read_all([tmp_path / "other.json"])


# -- benchmarks.gpu


@pytest.fixture
def gpu_settings(tiny_config, monkeypatch):
    monkeypatch.setattr(gpu_correctness, "DEFAULT_CHECKPOINT", TINY_CHECKPOINT)  # the faster one
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size")
    names += ("hash_grid_size", "longer_side_lengths", "patch_encoder_width", "patch_encoder_groups")
    tiny = {name: getattr(tiny_config(), name) for name in names}
    return gpu.GpuSettings(
        device="cpu", budget=1.0, repeats=1, num_pictures=3, largest=64, max_tokens=100, product_side=32,
        training_size=(32, 24), batch_size=2, config=tiny,
    )  # fmt: skip


def test_token_batches_hold_everything_once_and_stay_within_the_budget():
    lengths = [5, 90, 7, 120, 30, 6, 31]
    batches = gpu.token_batches(lengths, 100)
    assert sorted(index for group in batches for index in group) == list(range(7))
    padded = [max(lengths[index] for index in group) * len(group) for group in batches]
    assert all(size <= 100 or len(group) == 1 for size, group in zip(padded, batches, strict=True))
    assert len(batches) < len(lengths)


@pytest.mark.parametrize("part", ["agreement", "rates", "mixed", "training", "end to end"])
def test_the_parts_of_the_gpu_benchmark_run_on_a_cpu(gpu_settings, part):
    section = gpu.run_part(part, gpu_settings)
    assert "error" not in section and section["machine"]["torch"] == torch.__version__
    assert json.loads(json.dumps(section)) == section
    if part in ("mixed", "training"):
        assert all(row["share"] > 0 for row in section["rows"])


def test_what_goes_wrong_in_a_part_is_recorded(gpu_settings, monkeypatch):
    def fails(settings):
        raise KeyError("broken")

    monkeypatch.setitem(gpu.PARTS, "rates", (fails, 1.0))
    assert gpu.run_part("rates", gpu_settings)["error"] == "KeyError: 'broken'"


def test_parts_share_the_time_and_are_written_one_by_one(tmp_path):
    given = {}

    def run(name, seconds):
        given[name] = seconds
        return {"error": "lost"} if name == "mixed" else {"rows": []}

    path = tmp_path / "gpu.json"
    assert gpu.run_parts(["rates", "mixed", "training"], run, output=path, seconds=60.0) == 1
    assert given["rates"] == gpu.PARTS["rates"][1] and given["mixed"] <= 60
    assert set(read_results(path)["sections"]) == {"gpu rates", "gpu mixed", "gpu training"}
    assert gpu.run_parts(["end to end"], run, output=path, seconds=1.0) == 1
    assert read_results(path)["sections"]["gpu end to end"] == {"error": "no time was left"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_without_cuda_the_gpu_benchmark_says_so(tmp_path, capsys):
    assert gpu.main(["--output", str(tmp_path / "gpu.json")]) == 2
    assert "a CUDA device is needed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# -- verdicts and the page


def write_results(path: Path, *, speed: float = 2.5) -> Path:
    timing = {"median": 0.5, "deviation": 0.0, "seconds": [0.5]}
    size = {"width": 1024, "height": 768, "tokens": 918, "operations": 77e9, "deviation_from_plain": 2e-6}
    size["timings"] = {name: timing for name in report.COLORS}
    size |= {"ratios": {"float32": speed, "bfloat16": 8.5}, "rates": {"bfloat16": 3e11, "float32": 1.4e11}}
    size["shares"] = {"bfloat16": 0.41, "float32": 0.93}
    large = {"width": 4000, "height": 3000, "tokens": 11900, "seconds": 20.0}
    machine = {"processor": "A processor", "threads": 2, "torch": "2.13", "date": "2026-01-01"}
    memory = [
        {"who": "ours", "dtype": "float32", "peak_bytes": 7e8, **large},
        {"who": "ours", "dtype": "bfloat16", "error": "killed", "width": 4000, "height": 3000},
        {"who": "pyiqa", "dtype": "float32", "peak_bytes": 8e9, **large},
    ]
    growth = [{**row, "width": width} for row in memory if "error" not in row for width in (4000, 2000)]
    sections = {"sizes": [size], "memory": memory, "growth": growth}
    for name, rows in sections.items():
        add_section(path, name, {"rows": rows, "machine": machine, "products": {"float32": {"torch.mm 8": 1e9}}})
    return path


def verdicts(results):
    return {target.name: target.verdict(results) for target in check.TARGETS}


def test_verdicts(tmp_path):
    found = verdicts(read_results(write_results(tmp_path / "bench.json")))
    assert found["float32, 1024x768: times as fast as pyiqa in float32"] == "met"
    assert found["float32, 512x384: times as fast as pyiqa in float32"] == "not measured"
    assert found["float32: deviation from the plain path, in points"] == "met"
    assert found["float32, 4000x3000: peak memory as a part of pyiqa's"] == "met"
    assert found["bfloat16, 4000x3000: peak memory as a part of pyiqa's"] == "not measured"  # it holds an error
    assert len(found) == len(check.TARGETS)


def test_the_exit_code_tells_of_a_missed_target(tmp_path, capsys):
    path = write_results(tmp_path / "bench.json")
    assert check.main([str(path)]) == 0
    write_results(path, speed=2.3)
    assert check.main([str(path)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("missed")]
    assert [line.strip() for line in lines] == [
        "missed  float32, 1024x768: times as fast as pyiqa in float32: 2.30 (>= 2.40)"
    ]
    assert check.main([str(tmp_path / "none.json")]) == 2


def test_nothing_measured_and_quick_runs_are_no_verdict(tmp_path, capsys):
    path = tmp_path / "bench.json"
    add_section(path, "sizes", {"rows": []})
    assert check.main([str(path)]) == 2
    assert "No target was measured. Run `make bench` first." in capsys.readouterr().err
    write_results(path)
    add_section(path, "mixed", {"rows": [], "settings": {"quick": True}})
    assert check.main([str(path)]) == 2
    assert "mixed: measured with --quick" in capsys.readouterr().err


def test_the_goals_that_are_upper_bounds(tmp_path):
    path = write_results(tmp_path / "bench.json")
    row = {"dtype": "float32", "share_of_model_alone": 0.95, "preprocessing_share": 0.05}
    add_section(path, "folder", {"rows": [row]})
    add_section(path, "huge bfloat16", {"rows": [{"width": 12000, "peak_bytes": 3.5e9}]})
    found = verdicts(read_results(path))
    assert found["float32, folder of JPEG files: part of the speed of the model alone"] == "met"
    assert found["float32, folder of JPEG files: preprocessing, part of the model's time"] == "missed"
    assert found["12000x9000: peak memory, GB"] == "met"


def test_the_page_holds_tables_and_keeps_what_was_written_by_hand(tmp_path):
    pytest.importorskip("matplotlib")
    results, page = read_results(write_results(tmp_path / "bench.json")), tmp_path / "docs" / "performance.md"
    report.write_report(results, page)
    text = page.read_text()
    assert "| 1024x768 | 918 | 77 | 0.500 | 0.500 | 0.500 | 2.5x | 8.5x | 140 (93%) | 300 (41%) |" in text
    assert "| 4000x3000 | ours, bfloat16 |  |  |  | killed |" in text
    assert "A processor, 2 threads, PyTorch 2.13, 2026-01-01." in text
    assert "## GPU" not in text and "(performance.png)" in text
    with Image.open(page.with_suffix(".png")) as image:
        assert image.width > image.height
    page.write_text(text.replace(report.BEGIN, f"{report.BEGIN}\nBecause of the caches."))
    report.write_report(results, page)
    assert f"{report.BEGIN}\nBecause of the caches.\n{report.END}" in page.read_text()
    assert sorted(file.name for file in page.parent.iterdir()) == ["performance.md", "performance.png"]


def test_the_page_names_the_gpu_and_what_failed_there(tmp_path):
    results = read_results(write_results(tmp_path / "bench.json"))
    machine = {"gpu": "A GPU", "torch": "2.13", "date": "2026-01-01"}
    results["sections"]["gpu mixed"] = {
        "rows": [{"dtype": "bfloat16", "share": 0.5, "timings": {}}, {"dtype": "float32", "share": 0.25}],
        "machine": machine,
    }
    results["sections"]["gpu against pyiqa"] = {"error": "ImportError: pyiqa is needed", "machine": machine}
    text = report.render(results)
    assert "A GPU, PyTorch 2.13, 2026-01-01." in text
    assert "| dtype | share |" in text and "| bfloat16 | 0.5 |" in text
    assert "Not measured: ImportError: pyiqa is needed." in text
    assert verdicts(results)["GPU, bfloat16, packed batches: share of a matrix product's rate"] == "met"


def test_the_points_of_the_plot_are_sorted(tmp_path):
    lines = report.growth_lines(read_results(write_results(tmp_path / "bench.json")))
    assert set(lines) == {"ours float32", "pyiqa float32"}
    assert [point[0] for point in lines["ours float32"]] == [6.0, 12.0]
