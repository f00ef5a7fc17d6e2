"""Tasks that are learned one after another, and what is left of each after the others.

sources, topics (texts with labels), domains (texts) -> lessons (sequences by number) -> course (in which order)
-> classify, domains (a row of the matrix) -> matrix, measures
"""
