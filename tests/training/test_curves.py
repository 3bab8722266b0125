import struct

from matplotlib.figure import Figure

from bert_jax.training import curves

LINES = [
    {"step": 10, "train/loss": 5.0, "train/mlm_accuracy": 0.1, "train/mfu": 0.4},
    {"step": 10, "eval/mlm_accuracy": 0.2, "eval/unigram_accuracy": 0.05},
    {"step": 20, "train/loss": None, "train/mlm_accuracy": 0.3},
    {"step": 20, "eval/mlm_accuracy": 0.35, "eval/unigram_accuracy": 0.05},
]


def drawn(belongs):
    """The lines of one panel: label -> (xs, ys, dashed)."""
    axes = Figure().subplots()
    series = curves._series(LINES)
    curves._draw(axes, {n: p for n, p in series.items() if belongs(n)}, {})
    return {
        line.get_label(): (
            list(line.get_xdata()),
            list(line.get_ydata()),
            line.is_dashed(),
        )
        for line in axes.lines
    }


def test_png_of_a_legible_size():
    width, height = struct.unpack(">II", curves.png(LINES)[16:24])
    assert (width, height) == (1440, 1020)


def test_the_legend_hides_no_line():
    figure = curves.blank(6, 4)
    axes = figure.subplots()
    curves._draw(axes, {"train/loss": [(1, 2.0)], "train/mlm_loss": [(1, 1.0)]}, {})
    figure.draw_without_rendering()
    legend = axes.get_legend()
    assert legend.get_window_extent().y1 < axes.get_window_extent().y0


def test_nulls_are_left_out():
    assert drawn(lambda name: name.endswith("loss")) == {
        "train/loss": ([10], [5.0], False)
    }


def test_accuracies_and_the_baseline():
    assert drawn(lambda name: name.endswith("accuracy")) == {
        "train/mlm_accuracy": ([10, 20], [0.1, 0.3], False),
        "eval/mlm_accuracy": ([10, 20], [0.2, 0.35], False),
        "eval/unigram_accuracy 0.05": ([0, 1], [0.05, 0.05], True),
    }


def test_every_series_has_its_panel():
    names = (
        ("train/loss", "eval/mlm_loss"),
        ("eval/accuracy", "eval/f1", "eval/entity_f1", "eval/spearman"),
        ("train/learning_rate",),
        ("train/tokens_per_second",),
    )
    for panel, wanted in zip(curves._PANELS, names, strict=True):
        every = [name for one in names for name in (*one, "eval/macro_f1")]
        assert tuple(n for n in every if panel[1](n)) == wanted


def test_training_and_evaluation_of_a_metric_share_a_color():
    axes = Figure().subplots()
    series = curves._series(LINES)
    curves._draw(axes, {n: p for n, p in series.items() if "mlm_accuracy" in n}, {})
    assert len({line.get_color() for line in axes.lines}) == 1


def test_a_color_has_the_same_meaning_in_both_panels():
    colors = curves._colors(
        {
            f"{split}/{name}": [(1, 0.5)]
            for split in ("train", "eval")
            for name in ("loss", "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
        }
    )
    assert sorted(colors) == ["", "mlm", "nsp"]
    assert len(set(colors.values())) == 3
    axes = Figure().subplots()
    curves._draw(axes, {"train/nsp_accuracy": [(1, 0.5), (2, 0.6)]}, colors)
    assert axes.lines[0].get_color() == colors["nsp"]


def test_short_runs_are_points_joined_by_lines_and_long_ones_lines():
    axes = Figure().subplots()
    for count in (2, curves._FEW, curves._FEW + 1):
        curves._draw(axes, {"train/loss": [(x, 1.0) for x in range(count)]}, {})
    assert [line.get_marker() for line in axes.lines] == [".", ".", ""]
    assert {line.get_linestyle() for line in axes.lines} == {"-"}


def test_nothing_recorded_is_said():
    axes = Figure().subplots()
    curves._draw(axes, {}, {})
    assert [text.get_text() for text in axes.texts] == ["not recorded"]


def test_empty_panels_and_zero_values_draw():
    assert curves.png([{"step": 1, "train/loss": 0.0}]).startswith(b"\x89PNG")
