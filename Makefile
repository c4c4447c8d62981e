# Each target makes the environment .venv first, when it is missing or pyproject.toml has changed.
# PROFILE = smoke | mini | photo | paired | redrawn | paper | rehearsal (see README.md);
# PYTHON = the interpreter to make .venv with.

PROFILE ?= mini
# LOCKED=1 installs the versions that made the published numbers (constraints.txt).
export LOCKED
SEED ?= 0
CAE = .venv/bin/cae
# Jupyter refuses to serve the root user unless told so; LABFLAGS takes further options.
ROOTFLAG = $(if $(filter 0,$(shell id -u)),--allow-root)

# ON = local (here) or slurm; MORE = further options of `cae reproduce`, such as
# MORE="--runs clip-ft,cae-attention --seeds 1".
ON ?= local
WITH = --on $(ON) $(MORE)
CHROMIUM ?= $(firstword $(shell command -v chromium chromium-browser google-chrome google-chrome-stable))
ENGINE = $(if $(filter paper slurm,$(PROFILE) $(ON)),cluster,environment)

.PHONY: help reproduce reproduce-all photo rehearse cluster row book pdf test lab dist clean environment

help:
	@echo "make reproduce   the paper: data, training, pages, book    [PROFILE=$(PROFILE)]"
	@echo "make reproduce-all   also what is beside the paper         [PROFILE=$(PROFILE)]"
	@echo "make photo       the same on photographs, alone and side by side; get them first by $(CAE) data get flickr8k"
	@echo "make rehearse    PROFILE=paper from data to pages in minutes, numbers mean nothing   [ON=slurm]"
	@echo "make row         train and measure one row of the tables: NAME=clip-ft, cae-attention, ...  [SEED=$(SEED) PROFILE=$(PROFILE)]"
	@echo "make book        render the book from the stored pages     [PROFILE=$(PROFILE)]"
	@echo "make pdf         the book as one PDF, printed by Chromium"
	@echo "make test        check of style and types, and all tests"
	@echo "make lab         JupyterLab on the book's pages"
	@echo "make dist        source distribution and wheel, in build/dist"
	@echo "make clean       remove what the other targets made, except .venv"

environment:
	@sh scripts/environment.sh

cluster: environment
	@.venv/bin/python -c "import snakemake_executor_plugin_slurm" 2>/dev/null || \
	  .venv/bin/python -m pip install -q -e ".[cluster]"

reproduce: $(ENGINE)
	@$(CAE) reproduce --profile $(PROFILE) $(WITH)

reproduce-all: $(ENGINE)
	@$(CAE) reproduce --all --profile $(PROFILE) $(WITH)

rehearse: $(ENGINE)
	@$(CAE) reproduce --profile rehearsal $(WITH)

photo: environment
	@$(CAE) reproduce --profile photo
	@$(CAE) reproduce --profile paired

row: environment
	@test -n "$(NAME)" || { echo "make row needs NAME=clip-ft, cae-attention, ..." >&2; exit 2; }
	@$(CAE) train $(NAME) --seed $(SEED) --profile $(PROFILE)
	@$(CAE) evaluate $(NAME) --seed $(SEED) --profile $(PROFILE)

book: environment
	@$(CAE) book --profile $(PROFILE)

pdf: environment
	@test -n "$(CHROMIUM)" || { echo "make pdf prints the book by a browser: install chromium" >&2; exit 2; }
	.venv/bin/jupyter-book build book --config _config.yml --path-output build/book --all -q --builder singlehtml
	@$(CHROMIUM) --headless --no-sandbox --disable-gpu --no-pdf-header-footer --virtual-time-budget=60000 \
	  --print-to-pdf=build/cae-reproduction.pdf file://$(CURDIR)/build/book/_build/singlehtml/index.html

test: environment
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 .venv/bin/pyright --threads 2
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 3 --dist worksteal

lab: environment
	.venv/bin/jupyter lab $(ROOTFLAG) --ServerApp.root_dir=. \
	  --LabApp.default_url=/lab/tree/book/experiments \
	  --LabApp.app_settings_dir=scripts/lab \
	  --ContentsManager.pre_save_hook=book.extension.lab.keep_language_version $(LABFLAGS)

dist: environment
	.venv/bin/python -m pip install -q build
	.venv/bin/python -m build --outdir build/dist

clean:
	rm -rf build runs data/raw data/cache data/checkpoints .pytest_cache .ruff_cache
	find . -name .venv -prune -o \( -name __pycache__ -o -name '*.egg-info' -o -name .ipynb_checkpoints \) \
	  -type d -prune -exec rm -rf {} +
