"""The compiler tested by programs nobody wrote: random legal specs, and legal specs with one thing broken.

legal      a strategy of specs that mean something, drawn from the language's own tables, and how to feed each
agreement  what must hold of each: it compiles, all ways of running it agree, levels are in order, it reads back
illegal    a strategy of specs with one thing wrong, and of refusals: one located error
__main__   the long run: python -m tests.fuzz
"""
