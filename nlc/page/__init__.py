"""A run, or several, as one HTML page that needs nothing else: the text of `nlc report RUN`.

facts.py     what a page knows of a run: its rows, lock, specs, how it ended
curves.py    rows -> panels of series against tokens
chart.py     a panel -> SVG
timeline.py  a graph -> SVG of the levels in time, fastest on top
paths.py     a graph -> SVG of its levels, flows coloured by how the gradient takes them
tables.py    results, cost, differences of specs, versions
page.py      all of it -> HTML, by templates/report.html.j2; layout only is in there
"""

from nlc.page.facts import Facts, Sample
from nlc.page.page import as_data, page

__all__ = ["Facts", "Sample", "as_data", "page"]
