"""A run as one HTML page: what was gained, how the rounds went, and every episode to read.

    from exsearch.evaluation.report import write_report
    write_report("runs/demo")        # → "runs/demo/report.html"

The page is a single file without any outside reference: styles, script, charts
(SVG drawn here) and the episodes of the viewer are inside. `sources` reads the
run folder, `sections` decides what is drawn and `charts` draws it, `viewer` chooses
and packs episodes, `page` puts the parts together. What a run does not have is left
out with a note that says so.
"""

from exsearch.evaluation.report.page import write_report

__all__ = ["write_report"]
