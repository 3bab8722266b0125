"""Plots are legible with any class names and fonts."""

import shutil
import struct
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from bert_jax.metrics import report, scores
from bert_jax.training import curves

CHINESE = ("财经", "体育", "娱乐")
COUNTS = np.array([[1200, 3, 0], [0, 0, 0], [7, 0, 41]])


def size_of(png):
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


@pytest.fixture
def figures(monkeypatch):
    """The figures before they are encoded as PNG."""
    kept = []

    def keep(figure):
        kept.append(figure)
        return encode(figure)

    encode = curves.encode
    monkeypatch.setattr(curves, "encode", keep)
    return kept


def names_of(figure):
    (axes,) = figure.axes
    return [text.get_text() for text in axes.get_yticklabels()]


def numbers_of(figure):
    (axes,) = figure.axes
    return {text.get_position(): text.get_text() for text in axes.texts}


def test_confusion_shows_names_and_counts_in_their_cells(figures):
    labels = ("negative", "$neutral$", "positive")
    report.plot_confusion(scores.Confusion(labels, COUNTS))
    assert names_of(figures[0]) == list(labels)
    # (x, y) = (predicted, true).
    assert numbers_of(figures[0]) == {
        (0, 0): "1,200",
        (1, 0): "3",
        (0, 2): "7",
        (2, 2): "41",
    }
    fractions = figures[0].axes[0].images[0].get_array()
    np.testing.assert_allclose(fractions[2], [7 / 48, 0, 41 / 48])
    np.testing.assert_array_equal(fractions[1], [0, 0, 0])


def test_without_a_font_classes_are_numbered(figures, monkeypatch):
    monkeypatch.setattr(report, "font_with", lambda characters: None)
    report.plot_confusion(scores.Confusion(CHINESE, COUNTS))
    assert names_of(figures[0]) == ["0", "1", "2"]
    assert figures[0].axes[0].get_title(loc="right") == (
        "classes by number, in the order of the table"
    )


def test_a_missing_font_is_reported_with_an_extra_that_has_one(monkeypatch, caplog):
    monkeypatch.setattr(report, "font_with", lambda characters: None)
    report.plot_confusion(scores.Confusion(CHINESE, COUNTS))
    (record,) = caplog.records
    assert "财经, 体育, 娱乐" in record.getMessage()
    assert "bert_jax[zh]" in record.getMessage()


@pytest.fixture
def fonts(monkeypatch, tmp_path):
    """Returns a function that installs only fonts of matplotlib, under other names."""
    folder = matplotlib.get_data_path() + "/fonts/ttf/"

    def install(**names):
        entries = []
        for name, file in names.items():
            path = tmp_path / f"{name}.ttf"
            shutil.copy(folder + file, path)
            entries.append(
                font_manager.FontEntry(
                    fname=str(path), name=name.replace("_", " "), style="normal"
                )
            )
        monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
        monkeypatch.setattr(report, "_add_fonts", lambda: False)
        return tmp_path

    return install


def test_a_font_that_has_the_characters_is_found(fonts):
    folder = fonts(AAA="cmr10.ttf", Greek="DejaVuSans.ttf", Other="DejaVuSerif.ttf")
    found = report.font_with("ω x")
    assert found.get_file() == str(folder / "Greek.ttf")
    assert report.font_with("体育") is None


def test_names_use_the_font_with_their_characters(fonts, figures):
    folder = fonts(AAA="cmr10.ttf", Greek="DejaVuSans.ttf")
    labels = ("ωmega", "b", "c")
    report.plot_confusion(scores.Confusion(labels, COUNTS))
    assert names_of(figures[0]) == list(labels)
    for text in figures[0].axes[0].get_xticklabels():
        assert text.get_fontproperties().get_file() == str(folder / "Greek.ttf")


def test_the_font_of_last_resort_has_only_boxes(fonts):
    last = "LastResortHE-Regular.ttf"
    if not Path(matplotlib.get_data_path(), "fonts", "ttf", last).exists():
        pytest.skip("this matplotlib does not bring the font")
    fonts(Last_Resort_High_Efficiency=last)
    assert report.font_with("体育") is None
    folder = fonts(Honest=last)  # it does claim to have every character
    assert report.font_with("体育").get_file() == str(folder / "Honest.ttf")


def test_a_font_installed_after_the_list_was_created_is_added(fonts, monkeypatch):
    add = report._add_fonts.__wrapped__
    folder = fonts(AAA="cmr10.ttf")
    other = folder / "new" / "Sound.ttf"
    other.parent.mkdir()
    shutil.copy(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), other)
    (other.parent / "Broken.ttf").write_bytes(b"not a font")
    monkeypatch.setattr(
        font_manager, "findSystemFonts", lambda: list(map(str, other.parent.iterdir()))
    )
    monkeypatch.setattr(report, "_add_fonts", add)
    assert report.font_with("ω").get_file() == str(other)


def test_a_font_of_a_package_is_found_without_importing_it(
    fonts, monkeypatch, tmp_path
):
    add = report._add_fonts.__wrapped__
    fonts(AAA="cmr10.ttf")
    package = tmp_path / "site" / "zhplot"
    (package / "fonts").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    font = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    shutil.copy(font, package / "fonts" / "Package.ttf")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    monkeypatch.setattr(report, "_add_fonts", add)
    found = report.font_with("ω")
    assert found.get_file() == str(package / "fonts" / "Package.ttf")


def test_missing_and_broken_fonts_are_skipped(fonts):
    folder = fonts(Broken="cmr10.ttf", Gone="cmr10.ttf", Sound="DejaVuSans.ttf")
    (folder / "Broken.ttf").write_bytes(b"not a font")
    (folder / "Gone.ttf").unlink()
    assert report.font_with("abc").get_file() == str(folder / "Sound.ttf")


@pytest.mark.parametrize("labels", [CHINESE, ("", "$", "_"), ("$\\x$", "^", "\\")])
def test_any_names_are_plotted_without_a_warning(labels):
    png = report.plot_confusion(scores.Confusion(labels, COUNTS))
    assert png.startswith(b"\x89PNG")


def test_long_and_multi_line_names_become_one_short_line(figures):
    labels = ("a\nb", "x" * 400, "c")
    report.plot_confusion(scores.Confusion(labels, COUNTS))
    assert names_of(figures[0]) == ["a\\nb", "x" * 23 + "…", "c"]


@pytest.mark.parametrize("count", [1, 2, 30, 31, 130])
def test_figure_sizes_are_bounded(count, figures):
    labels = tuple(f"class {n}" for n in range(count))
    counts = np.eye(count, dtype=int)
    width, height = size_of(report.plot_confusion(scores.Confusion(labels, counts)))
    assert 500 <= height <= 1920 and height < width <= 2016
    assert len(numbers_of(figures[0])) == (count if count <= 30 else 0)


def test_the_reliability_diagram_shows_the_bins(figures):
    sure = np.array([0.99, 0.97, 0.95, 0.5])
    confidences = scores.Confidences(sure, np.array([True, True, False, True]))
    assert size_of(report.plot_reliability(confidences)) == (780, 900)
    upper, lower = figures[0].axes
    assert upper.get_title(loc="right") == "ECE 0.3525"
    heights = [bar.get_height() for bar in lower.patches]
    assert heights == [0] * 7 + [1] + [0] * 6 + [3]
    accuracy = [bar.get_height() for bar in upper.patches[:2]]
    assert accuracy == pytest.approx([1.0, 2 / 3])


def test_the_gap_of_an_underconfident_bin_is_below_its_accuracy():
    axes = Figure().subplots()
    sure = scores.Confidences(np.array([0.5]), np.array([True]))
    report._plot_accuracies(axes, scores.calibration(sure))
    gap = axes.patches[1]
    assert (gap.get_y(), gap.get_height()) == (1.0, -0.5)
