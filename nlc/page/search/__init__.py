"""A search as one page, as Markdown or as data: the text of `nlc report DIR` on the folder of a search.

facts.py      what is known of a search: its journal, line by line, and the specs of its finalists
front.py      who is not beaten in score, state and FLOPs at once; a picture of it
effects.py    what the values of an axis do to the score; a picture of it
learning.py   learning curves as panels
maps.py       accuracy by depth and length
lineage.py    where mutants come from; a picture of it
finalists.py  where each differs from its base, in the language's own terms
tables.py     everything that is a table, as text
page.py       all of it -> HTML, by templates/search.html.j2
markdown.py   the same as Markdown; data.py: as data

Every number is the journal's, by way of nlc.variants.standings: a report reads nothing else and computes no score.
"""

from nlc.page.search.data import as_data
from nlc.page.search.facts import SearchFacts, finalists, task_ranked_by
from nlc.page.search.markdown import markdown
from nlc.page.search.page import page

__all__ = ["SearchFacts", "as_data", "finalists", "markdown", "page", "task_ranked_by"]
