# make demo   check, draw, compile and train the hope spec (ten minutes on two cores)
# make test   unit, oracle, golden, verify at small sizes, end to end, six minutes of random programs (twenty minutes)
# make fuzz   5,000 random legal programs and 5,000 broken ones; hours, and goes on where it was stopped
# make long   what takes hours: benchmarks, comparisons in equal time and equal tokens, one long run, 2,000 mutants of hope
# make check  ruff, mypy, import laws, the documents as a site without a link that leads nowhere
# make docs   rewrite the generated pages of docs/, and make the site, build/site
#
# Each target makes .venv by itself, once. PYTHON=python3.12 make ... picks another interpreter.

PYTHON ?= python3
PIP := .venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt
JOBS ?= 2
SITE := NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

.PHONY: demo test fuzz long check docs clean

demo: .venv/.demo
	.venv/bin/nlc demo

test: .venv/.dev
	OMP_NUM_THREADS=1 .venv/bin/pytest -n $(JOBS) -m "not gpu"

fuzz: .venv/.dev
	OMP_NUM_THREADS=1 .venv/bin/python -m tests.fuzz --jobs $(JOBS)

long: .venv/.dev
	OMP_NUM_THREADS=1 .venv/bin/python bench/text.py --out bench/results/text --seconds 600
	OMP_NUM_THREADS=1 .venv/bin/python bench/text.py --out bench/results/text --tokens 819200
	.venv/bin/python bench/long.py --minutes 90
	.venv/bin/python bench/stream.py
	.venv/bin/nlc bench --out bench/results/bench
	.venv/bin/python bench/searches.py
	OMP_NUM_THREADS=1 .venv/bin/python -m tests.fuzz --mutations --jobs $(JOBS)

check: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy nlc codegen
	.venv/bin/lint-imports
	$(SITE)

docs: .venv/.dev
	.venv/bin/python docs/generate.py
	$(SITE)

# torch comes first and exactly pinned: left to the resolver, it could be another build, gigabytes larger.
.venv/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    found=$$($(PYTHON) --version 2>/dev/null) || found="not there"; \
	    echo "nlc needs Python 3.11 or newer; '$(PYTHON)' is $$found." >&2; \
	    echo "Name another one:  make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	@touch $@

.venv/.demo: .venv/.torch pyproject.toml
	$(PIP) -e .
	@touch $@

.venv/.dev: .venv/.torch pyproject.toml
	$(PIP) -e '.[dev,docs]'
	@touch .venv/.demo $@

clean:
	rm -rf .venv build dist
