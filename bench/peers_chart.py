"""Draws the figures of bench/run peers: JSON on standard input, one PNG file. Needs matplotlib (the reference environment)."""

import json
import sys

PANELS = (("w1", "512 texts of 32 tokens, one core"), ("w2", "256 texts of 128 tokens, one core"),
          ("w4", "case-study mix, one core"), ("w3", "one query at a time, one core"))
OURS, OTHERS = "#1b6ca8", "#b8bcc2"


def rows(figures, part):
    """(engine, value, cosine) of one panel, the best first."""
    unit = "p50_us" if part == "w3" else "texts_per_s"
    found = []
    for key, value in figures.items():
        if key.startswith(part + "_") and key.endswith("_" + unit) and not key.startswith((part + "_two", part + "_avx2")):
            engine = key[len(part) + 1:-len(unit) - 1]
            found.append((engine.replace("_", " "), value, figures.get(f"{part}_{engine}_cosine_min")))
    return sorted(found, key=lambda row: row[1], reverse=part != "w3")


def main():
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figures = json.load(sys.stdin)
    panels = [(part, title, rows(figures, part)) for part, title in PANELS]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return 1
    figure, axes = pyplot.subplots(len(panels), 1, squeeze=False,
                                   figsize=(9, sum(0.9 + 0.33 * len(panel[2]) for panel in panels)),
                                   height_ratios=[2 + len(panel[2]) for panel in panels])
    for axis, (part, title, found) in zip(axes[:, 0], panels):
        names = [name for name, _, _ in found]
        values = [value / 1000 if part == "w3" else value for _, value, _ in found]
        bars = axis.barh(names, values, color=[OURS if name.startswith("sutra") else OTHERS for name in names])
        for bar, value, (_, _, cosine) in zip(bars, values, found):
            label = f" {value:.2f} ms" if part == "w3" else f" {value:.0f}"
            axis.text(value, bar.get_y() + bar.get_height() / 2, label + (f"   cosine {cosine:.5f}" if cosine else ""),
                      va="center", fontsize=8)
        axis.set_title(title + (", p50 (less is better)" if part == "w3" else ", texts/s"), loc="left", fontsize=10)
        axis.set_xlim(0, 1.25 * max(values))
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.suptitle(f"{figures['machine_cpu']}, commit {figures['machine_commit']}", fontsize=9, x=0.01, ha="left")
    figure.tight_layout()
    figure.savefig(sys.argv[1], dpi=150)
    return 0


if __name__ == "__main__":
    sys.exit(main())
