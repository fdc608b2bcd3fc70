# Every target installs what it needs; run them as root on Debian 12 or Ubuntu 24.04.
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests

.PHONY: demo up test unit lint bench test-vm proto install clean

demo: ; @vagrant/provision.sh run && exec $(BIN)/nodeagent up --demo $(ARGS)

up: ; @vagrant/provision.sh run && exec $(BIN)/nodeagent up $(ARGS)

test: ; @vagrant/provision.sh test && exec $(BIN)/python -m pytest $(TESTS) $(ARGS)

unit: ; @vagrant/provision.sh test && exec $(BIN)/python -m pytest tests/unit $(ARGS)

lint: ; @vagrant/provision.sh test && $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: ; @vagrant/provision.sh test && exec $(BIN)/python -m tests.bench $(ARGS)

test-vm: ; @vagrant/provision.sh vm && exec $(BIN)/python -m tests.vm $(ARGS)

proto: ; @vagrant/provision.sh test && exec $(BIN)/python cri/proto/generate.py

install: ; @vagrant/provision.sh install

clean: ; rm -rf $(VENV) .cache build *.egg-info .mypy_cache .ruff_cache .pytest_cache
