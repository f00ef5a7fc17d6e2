"""The page of a run: rows, graph and spec in; HTML, SVG and data out."""
