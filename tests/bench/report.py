"""
From measured figures to the table of what is promised: each row's target, measure and ratio.

Nothing here fails: a missed target is shown as missed.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

#: Per workload, the figures of each pass, in order.
Passes = Mapping[str, Sequence[Mapping[str, Any]]]


class Row(NamedTuple):
    """
    One promise and what was found. *found* is None where its workload did not run.
    """

    measure: str
    target: str
    found: float | None
    shown: str
    met: bool
    details: str

    @property
    def verdict(self) -> str:
        if self.found is None:
            return "-"
        return "met" if self.met else "MISSED"


def medians(passes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    The median of each figure over the passes.
    """
    names = passes[0] if passes else {}
    return {name: median(figures[name] for figures in passes) for name in names}


def rows(passes: Passes) -> list[Row]:
    """
    The table's rows. Ratios are taken within a pass, where both sides had the same machine; then their median.
    """
    found = {name: medians(figures) for name, figures in passes.items()}
    table = [
        _ratio(
            "W1 event rows/s against raw sqlite3, groups of 100",
            0.4,
            passes,
            ("W1", "event_rows_per_s"),
            ("raw", "grouped_rows_per_s"),
            lambda w1, raw: (
                f"{_n(w1['steps_per_s'])} steps/s ({_n(w1['event_rows'])} event rows in "
                f"{w1['seconds']:.2f} s = {_n(w1['event_rows_per_s'])} rows/s) : {_n(raw['grouped_rows_per_s'])} rows/s"
            ),
        ),
        _ratio(
            "W2 sequential steps/s against raw sqlite3, one commit a row",
            0.65,
            passes,
            ("W2", "steps_per_s"),
            ("raw", "single_rows_per_s"),
            lambda w2, raw: (
                f"{_n(w2['steps_per_s'])} steps/s ({w2['ms_per_step']:.3f} ms a step) : "
                f"{_n(raw['single_rows_per_s'])} rows/s; start to result p50 {w2['start_to_result_p50_ms']:.2f} ms, "
                f"p99 {w2['start_to_result_p99_ms']:.2f} ms"
            ),
        ),
        _ratio(
            'the same with commits="inline"',
            0.65,
            passes,
            ("W2", "inline_steps_per_s"),
            ("raw", "single_rows_per_s"),
            lambda w2, raw: (
                f"{_n(w2['inline_steps_per_s'])} steps/s : {_n(raw['single_rows_per_s'])} rows/s; start to result "
                f"p50 {w2['inline_start_to_result_p50_ms']:.2f} ms, p99 {w2['inline_start_to_result_p99_ms']:.2f} ms"
            ),
        ),
        _ratio(
            "W3 jobs/s against W1 steps/s",
            0.5,
            passes,
            ("W3", "jobs_per_s"),
            ("W1", "steps_per_s"),
            lambda w3, w1: f"{_n(w3['jobs_per_s'])} jobs/s : {_n(w1['steps_per_s'])} steps/s",
        ),
        _figure(
            "items emitted by one run, a second",
            10_000,
            found.get("emitting"),
            "items_per_s",
            lambda it: f"of {_n(it['items'])}; with a reader {_n(it['followed_per_s'])}",
            least=True,
        ),
        _figure(
            "an item against a step of W1, CPU",
            0.1,
            found.get("emitting"),
            "share",
            lambda it: f"{it['us_per_item']:.1f} us : {it['us_per_step']:.1f} us",
        ),
        _figure(
            "transact from handlers against transactions of workflows, rate",
            0.9,
            found.get("transacting"),
            "share",
            lambda it: f"{_n(it['transact_per_s'])} a second : {_n(it['plain_per_s'])}",
            least=True,
        ),
        _figure(
            "ask to answer, p50 in ms",
            4.0,
            found.get("asking"),
            "p50_ms",
            lambda it: f"of {_n(it['times'])}, freed in between; from a Client {it['client_p50_ms']:.2f} ms",
        ),
        _figure(
            "a watcher on each of 1,000 runs, CPU more than without",
            0.2,
            found.get("watching"),
            "share",
            lambda it: f"{it['watchers']:,} watchers, {it['infos']:,.0f} infos",
        ),
        _figure(
            "an idle engine with 1,000 watchers, share of a core",
            0.005,
            found.get("watching"),
            "idle_share",
            lambda it: f"{it['watchers']:,} watchers of runs that wait",
        ),
        _figure(
            "a job among 10,000 against one among 500, all at once",
            1.3,
            found.get("fan"),
            "gather_growth",
            lambda it: f"gather: {it['gather_many_us']:.0f} us : {it['gather_few_us']:.0f} us a job",
        ),
        _figure(
            "the same, ten at a time",
            1.3,
            found.get("fan"),
            "window_growth",
            lambda it: f"for_each: {it['window_many_us']:.0f} us : {it['window_few_us']:.0f} us a job",
        ),
        _figure(
            "the end of a member of 10,000 against one of 10",
            1.3,
            found.get("waking"),
            "growth",
            lambda it: (
                f"{it['many_us']:.1f} us : {it['few_us']:.1f} us; the last, which wakes the parent, "
                f"{it['many_last_us']:.1f} us : {it['few_last_us']:.1f} us"
            ),
        ),
        _figure(
            "megabytes of 100,000 queued jobs",
            50,
            found.get("queued"),
            "rss_mb",
            lambda it: f"{_n(it['depth'])} in the queue; trimmed {it['rss_trimmed_mb']:.1f} MB",
        ),
        _figure(
            "W4 resident bytes a waiting run",
            100,
            found.get("W4"),
            "rss_bytes_per_run",
            lambda w4: (
                f"of {_n(w4['runs'])}: RSS grew {w4['rss_bytes_per_run']:.0f} each (trimmed "
                f"{w4['rss_trimmed_bytes_per_run']:.0f}, of it anonymous {w4['anonymous_trimmed_bytes_per_run']:.0f}; "
                f"peak {w4['peak_bytes_per_run']:.0f}); {_n(w4['starts_per_s'])} starts/s, "
                f"{_n(w4['waiting_per_s'])} waiting/s; idle CPU {w4['idle_cpu_cores'] * 100:.2f} %; "
                f"{w4['disk_bytes_per_run']:.0f} bytes on disk"
            ),
        ),
        _figure(
            "W5 seconds until work is accepted after kill -9",
            2.0,
            found.get("W5"),
            "accepted_s",
            lambda w5: (
                f"{_n(w5['loaded_when_accepting'])} runs loaded by then, {_n(w5['loaded_in_all'])} in all; "
                f"{_n(w5['still_waiting'])} still waiting; active ones done after {w5['finished_s']:.2f} s"
            ),
        ),
        _figure(
            "W6 last 500 steps against the first 500",
            1.15,
            found.get("W6"),
            "growth",
            lambda w6: f"{w6['last_ms_per_step']:.3f} ms : {w6['first_ms_per_step']:.3f} ms a step",
        ),
        _figure("W6 bytes a step on disk", 300, found.get("W6"), "bytes_per_step", lambda _: ""),
        _figure(
            "replay of a history in memory, events/s",
            300_000,
            found.get("replay"),
            "replayed_per_s",
            lambda it: f"of {_n(it['events'])}",
            least=True,
        ),
        _figure(
            "the same, with reading, checking and decoding, events/s",
            100_000,
            found.get("replay"),
            "events_per_s",
            lambda it: (
                f"us an event: SQL {it['sql_us_per_event']:.2f}, check and decode "
                f"{it['decode_us_per_event']:.2f}, replay {it['replay_us_per_event']:.2f}; "
                f"signal to result {it['signal_to_result_s']:.2f} s"
            ),
            least=True,
        ),
        _figure(
            "durable list on a large file, whole process, ms",
            100,
            found.get("look"),
            "list_ms",
            lambda it: (
                f"of {_n(it['runs'])} runs, {_n(it['events'])} events; --status failed {it['list_failed_ms']:.0f}, "
                f"stats {it['stats_ms']:.0f}, show {it['show_ms']:.0f}"
            ),
        ),
        _figure(
            "durable.replay with line, frame and arguments, events/s",
            100_000,
            found.get("debug"),
            "replay_events_per_s",
            lambda it: f"of {_n(it['events'])}",
            least=True,
        ),
        _figure(
            "one command back at the end of a long run, ms",
            100,
            found.get("debug"),
            "back_ms",
            lambda it: f"from stop {_n(it['stops'] - 1)}",
        ),
        _figure(
            "check of many open runs, s",
            20,
            found.get("debug"),
            "check_s",
            lambda it: f"of {_n(it['checked'])}, their reading apart",
        ),
        _figure(
            "loop lag under W1, p99 ms",
            5.0,
            found.get("lag"),
            "lag_p99_ms",
            lambda it: (
                f"p50 {it['lag_p50_ms']:.2f}, max {it['lag_max_ms']:.2f} of {_n(it['ticks'])} ticks; "
                f"idle loop p50 {it['idle_p50_ms']:.2f}, p99 {it['idle_p99_ms']:.2f}"
            ),
        ),
        _figure(
            "loop lag under W1, the longest, ms",
            25.0,
            found.get("lag"),
            "lag_max_ms",
            lambda _: "",
        ),
        _figure(
            "W1 beside a thread that computes, times slower",
            30,
            found.get("beside"),
            "slower",
            lambda it: f"{_n(it['beside_steps_per_s'])} steps/s : {_n(it['alone_steps_per_s'])} steps/s",
        ),
        _figure(
            "a late step of a long run against step 100",
            1.2,
            found.get("growing"),
            "step_growth",
            lambda it: _curve(it, "us_at_step_") + " us at that step",
        ),
        _figure(
            "a late signal to a long run against signal 10",
            1.3,
            found.get("growing"),
            "signal_growth",
            lambda it: (
                f"keep_resident=1: {_curve(it, 'us_at_signal_')} us at that signal; continue_as after each hundred: "
                f"{_curve(it, 'us_at_chained_')}"
            ),
        ),
        _figure(
            "a run in a full file against one among 1,000",
            1.3,
            found.get("growing"),
            "run_growth",
            lambda it: (
                f"{_curve(it, 'us_among_')} us among so many; start_many of {_n(it['start_many'])} "
                f"took {it['start_many_s']:.2f} s"
            ),
        ),
        _figure(
            "times faster by all cores, for jobs in processes",
            1.8,
            found.get("multicore"),
            "speedup",
            lambda it: f"{it['alone_s']:.2f} s : {it['together_s']:.2f} s on {it['cores']:.0f} cores",
            least=True,
        ),
        _figure(
            "import durable, ms",
            250,
            found.get("import"),
            "import_ms",
            lambda it: f"{_n(it['modules'])} modules, {_n(it['threads_after_import'])} thread",
        ),
        _figure(
            "exit after a crash in user code, s",
            1.0,
            found.get("crash"),
            "exit_s",
            lambda it: f"through `async with` {it['managed_exit_s']:.2f}, never closed {it['abandoned_exit_s']:.2f}",
        ),
    ]
    return [row for row in table if row.found is not None]


def _curve(figures: Mapping[str, float], prefix: str) -> str:
    points = sorted((int(name.removeprefix(prefix)), us) for name, us in figures.items() if name.startswith(prefix))
    return ", ".join(f"{_n(at)}: {us:.0f}" for at, us in points)


def _n(value: float) -> str:
    return f"{value:,.0f}"


def _ratio(
    measure: str,
    target: float,
    passes: Passes,
    above: tuple[str, str],
    below: tuple[str, str],
    details: Callable[[dict[str, Any], dict[str, Any]], str],
) -> Row:
    over, under = passes.get(above[0], ()), passes.get(below[0], ())
    if not over or not under:
        return Row(measure, f">= {target:g}", None, "", met=False, details="")
    paired = [one[above[1]] / other[below[1]] for one, other in zip(over, under, strict=False)]
    found = median(paired)
    each = f" [{', '.join(f'{ratio:.2f}' for ratio in paired)}]" if len(paired) > 1 else ""
    shown = details(medians(over), medians(under)) + each
    return Row(measure, f">= {target:g}", found, f"{found:.3f}", met=found >= target, details=shown)


def _figure(
    measure: str,
    target: float,
    found: dict[str, Any] | None,
    name: str,
    details: Callable[[dict[str, Any]], str],
    *,
    least: bool = False,
) -> Row:
    compare, sign = (operator.ge, ">=") if least else (operator.le, "<=")
    shown_target = f"{sign} {target:,g}" if target < 1000 else f"{sign} {target:,}"
    if not found or name not in found:
        return Row(measure, shown_target, None, "", met=False, details="")
    value = found[name]
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    return Row(measure, shown_target, value, shown, met=compare(value, target), details=details(found))


def table(found: Sequence[Row]) -> str:
    """
    The rows as a table for people, details on lines of their own.
    """
    width = max((len(row.measure) for row in found), default=0)
    lines = [f"{'measure':<{width}}  {'target':>10}  {'measured':>9}  {'':<6}", ""]
    for row in found:
        lines.append(f"{row.measure:<{width}}  {row.target:>10}  {row.shown:>9}  {row.verdict:<6}".rstrip())
        if row.details:
            lines.append(f"    {row.details}")
    return "\n".join(lines)
