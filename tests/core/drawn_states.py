"""
Draws the tables of states into `durable/README.md`: `python -m tests.core.drawn_states`.

A step has a diagram in Mermaid, which code hosts show as a drawing and everybody can read as text, and a table for what
a drawing has no room for. A run has the table alone: of its thirty arrows nearly all end in the same few states.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from durable._core.run.step_states import STEP_TRANSITIONS as OF_STEPS
from durable._core.run.step_states import Choice, Transition
from durable._core.statuses import RUN_TRANSITIONS as OF_RUNS
from durable._core.statuses import WAITS

PAGE = Path(__file__).parents[2] / "durable" / "README.md"
#: What stands between these two lines of the page is drawn, by the name in them.
BEGIN, END = "<!-- drawn from the code: {name} -->", "<!-- end of what is drawn -->"


def states_of_a_step() -> str:
    """
    Every entry of the table of steps.
    """
    edges, rows = [("[*]", "due", "")], []
    for state, causes in OF_STEPS.items():
        for cause, taken in causes.items():
            name = str(cause) if isinstance(cause, Choice) else cause.__name__
            edges.append((state, "[*]" if taken.to == "ended" else taken.to, name))
            what = name if isinstance(cause, Choice) else f"`{name}`"
            rows.append((state, what, taken.to, "; ".join(_done(taken))))
    return "\n".join([*drawing(edges), "", *table(("in", "what happens", "leads to", "and"), rows)])


def _done(taken: Transition) -> Iterator[str]:
    if taken.recorded is not None:
        yield f"record `{taken.recorded.__name__}`"
    if taken.failures:
        yield "count a failed attempt"
    if taken.crashes is None:
        yield "set the count of crashes back"
    elif taken.crashes:
        yield "count a crash"
    if taken.attempts:
        yield "count an attempt"
    yield from taken.effects


def states_of_a_run() -> str:
    """
    Every entry of the table of runs.
    """
    rows = []
    for before, row in OF_RUNS.items():
        by_causes: dict[tuple[str, ...], list[str]] = {}
        for after, causes in row.items():
            by_causes.setdefault(causes, []).append(after)
        rows += [(before, ", ".join(after), "; ".join(causes)) for causes, after in by_causes.items()]
    return "\n".join(table(("from", "to", "because"), rows))


def waits_of_a_run() -> str:
    """
    What a run can wait for.
    """
    return "\n".join(table(("wait", "ends when"), WAITS.items()))


DRAWN = {each.__name__.replace("_", " "): each for each in (states_of_a_step, states_of_a_run, waits_of_a_run)}


def drawing(edges: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """
    A Mermaid diagram: one arrow from a state to another, with all that leads there.
    """
    arrows: dict[tuple[str, str], list[str]] = {}
    for before, after, why in edges:
        arrows.setdefault((before, after), []).append(why)
    yield from ("```mermaid", "stateDiagram-v2")
    for (before, after), whys in arrows.items():
        label = " / ".join(filter(None, whys))
        yield f"    {before} --> {after}" + (f" : {label}" if label else "")
    yield "```"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """
    A Markdown table.
    """
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def redrawn(page: str) -> str:
    """
    *page* with everything that is drawn in it drawn anew.
    """
    for name, draw in DRAWN.items():
        begin = BEGIN.format(name=name)
        pattern = re.escape(begin) + r"\n.*?" + re.escape(END)
        page = re.sub(pattern, lambda _, begin=begin, draw=draw: f"{begin}\n\n{draw()}\n\n{END}", page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
