"""
Figures as SVG: the growth curves (what a step and a run cost, relative to a short run and an empty file), and what the
loads of `stalls` hold.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 360, 60, 50, 40, 150
COLOURS = ("#1f6feb", "#d1242f")


def plot(path: Path, curves: Mapping[str, Mapping[int, float]], about: str) -> None:
    """
    Draw *curves* (by name: cost by count) to *path*, each divided by its first value; counts on a logarithmic scale.
    """
    shown = {name: _relative(curve) for name, curve in curves.items() if curve}
    counts = [at for curve in shown.values() for at, _ in curve]
    low, high = math.log10(min(counts)), math.log10(max(counts))
    most = max(2.0, *(value for curve in shown.values() for _, value in curve)) * 1.1

    def x(at: float) -> float:
        return LEFT + (math.log10(at) - low) / max(high - low, 1e-9) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20">Cost, relative to the first point. {about}</text>',
    ]
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        at = 10**exponent
        parts += [
            f'<line x1="{x(at):.1f}" y1="{TOP}" x2="{x(at):.1f}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>',
            f'<text x="{x(at):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{at:,}</text>',
        ]
    for value in range(math.floor(most) + 1):
        parts += [
            f'<line x1="{LEFT}" y1="{y(value):.1f}" x2="{WIDTH - RIGHT}" y2="{y(value):.1f}" stroke="#ddd"/>',
            f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>',
        ]
    for number, (name, curve) in enumerate(shown.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in curve)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(at):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>' for at, value in curve]
        last_at, last = curve[-1]
        parts.append(f'<text x="{x(last_at) + 8:.1f}" y="{y(last) + 4:.1f}" fill="{colour}">{name}</text>')
    parts.append("</svg>\n")
    path.write_text("\n".join(parts), encoding="utf-8")


#: Of `bars`: pixels of a row, and of the columns; and where each column has its line.
ROW, NAMES, COLUMN = 22, 190, 240
LAG_MS, GROWTH = 50.0, 1.2


def bars(path: Path, rows: Sequence[tuple[str, float, float]]) -> None:
    """
    Draw *rows* (load, longest iteration of the loop in ms, growth of the cost of one unit) to *path*, a bar for each.
    """
    height = TOP + ROW * len(rows) + 10
    columns = [
        ("longest iteration of the event loop, ms of CPU", LAG_MS, [lag for _, lag, _ in rows], "{:.0f}"),
        ("one unit, against one among a tenth as many", GROWTH, [growth for *_, growth in rows], "{:.2f}"),
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {NAMES + 2 * COLUMN + 40} {height}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{NAMES + 2 * COLUMN + 40}" height="{height}" fill="white"/>',
    ]
    for row, (name, *_) in enumerate(rows):
        parts.append(f'<text x="{NAMES - 10}" y="{TOP + ROW * row + 15}" text-anchor="end">{name}</text>')
    for number, (title, line, values, form) in enumerate(columns):
        left = NAMES + number * (COLUMN + 20)
        scale = (COLUMN - 50) / max(1.5 * line, *values, 1e-9)
        at = left + line * scale
        parts.append(f'<text x="{left}" y="20">{title}</text>')
        for row, value in enumerate(values):
            top, colour = TOP + ROW * row, COLOURS[value > line]
            parts += [
                f'<rect x="{left}" y="{top + 4}" width="{value * scale:.1f}" height="{ROW - 8}" fill="{colour}"/>',
                f'<text x="{left + value * scale + 4:.1f}" y="{top + 15}">{form.format(value)}</text>',
            ]
        parts += [
            f'<line x1="{at:.1f}" y1="{TOP - 4}" x2="{at:.1f}" y2="{height - 8}" stroke="#555" stroke-dasharray="3"/>',
            f'<text x="{at:.1f}" y="{TOP - 6}" text-anchor="middle">{line:g}</text>',
        ]
    parts.append("</svg>\n")
    path.write_text("\n".join(parts), encoding="utf-8")


def _relative(curve: Mapping[int, float]) -> Sequence[tuple[int, float]]:
    points = sorted(curve.items())
    return [(at, value / points[0][1]) for at, value in points]


def curve_of(figures: Mapping[str, float], prefix: str) -> dict[int, float]:
    """
    The points of a curve among *figures*: those called *prefix* and a count.
    """
    return {int(name.removeprefix(prefix)): value for name, value in figures.items() if name.startswith(prefix)}
