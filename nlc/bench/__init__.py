"""What `nlc bench` measures, and against what.

rows (rows.py)  ->  measured, each by one module  ->  a record and a table (record.py)

A module measures one thing against its rivals: in one run, taking turns (timing.py), at sizes that a `Scale` gives.
Importing this package or its `rows` imports neither torch nor the compiler.
"""
