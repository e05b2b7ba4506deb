"""The table of what was measured, in Markdown."""
from statistics import median

from .faults import BACKLOG, TITLES


def spread(values, unit):
    low, middle, high = min(values), median(values), max(values)
    return f"{middle:.2f} {unit} ({low:.2f}–{high:.2f})"


def cell(runs):
    """Median, minimum and maximum of the runs that could be judged, and what was lost in any of them."""
    judged = [run for run in runs if "failed" not in run]
    unjudged = f"{len(runs) - len(judged)} of {len(runs)} FAILED"
    if not judged:
        return unjudged if runs else "-"
    if "rss_mb" in judged[0]:
        sizes = (("rss_mb", "MB RSS"), ("agent_rss_mb", "MB RSS without the guard"), ("pss_mb", "MB PSS"), ("cpu_percent", "% CPU"))
        parts = [spread([run[key] for run in judged], unit) for key, unit in sizes if key in judged[0]]
    else:
        parts = [spread([run["gap_s"] for run in judged], "s")]
    if "lost" in judged[0]:
        if any(run["gap_with_healing_s"] > run["gap_s"] + 0.5 for run in judged):
            parts.append("with the healing " + spread([run["gap_with_healing_s"] for run in judged], "s"))
        lost = [run["lost"] for run in judged]
        parts.append("0 lost" if not any(lost) else f"**{min(lost)}–{max(lost)} lost**")
        at_once = [run["at_once"] for run in judged]
        if any(at_once):
            parts.append(f"**{min(at_once)}–{max(at_once)} by two at once**")
        changed = sum(run["leader_changed"] for run in judged)
        parts.append("same leader" if not changed else "new leader" if changed == len(judged) else f"new leader in {changed} of {len(judged)}")
    if len(judged) < len(runs):
        parts.append(unjudged)
    return ", ".join(parts)


def render(results, subjects, faults, outage):
    """`results` maps (subject, fault) to its runs."""
    lines = ["| fault | " + " | ".join(subject.name for subject in subjects) + " |", "| --- |" + " --- |" * len(subjects)]
    for fault in faults:
        cells = [cell(results.get((subject, fault), [])) for subject in subjects]
        lines.append(f"| {TITLES[fault].format(outage=outage, backlog=BACKLOG)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
