# Two commands do all the set-up they need: `make run` and `make test`.
# A .venv from the versions pinned in requirements.lock; Debian packages by apt-get where root.

# Of which .venv is made: the system's own, as what is installed runs on it, else the PATH's.
MADE_OF = import ensurepip, sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell /usr/bin/python3 -c '$(MADE_OF)' 2>/dev/null && echo /usr/bin/python3 || echo python3)
endif
VENV := .venv
BIN := $(VENV)/bin
export PYTHON
# Tests start thousands of processes, of which each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# What these tests need, and the tests: as many side by side as -n says.
define run-tests
	@needs=$$($(BIN)/python -m tests.rooms $(1)) && if [ "$$needs" ]; then $(MAKE) --no-print-directory $$needs; fi
	$(BIN)/python -m pytest -n0 $(1)
endef

.PHONY: all run demo-backend demo-migration check test fuzz lint types format schema man completion lock install
.PHONY: deb clean
.PHONY: bench bench-kernel bench-load bench-backend bench-moving plots pictures

all: $(VENV)/ready

run: all ## the daemon on its software device, states sent to it, the device read back
	$(BIN)/python docs/examples/demo.py

demo-backend: all ## a VMM on vdpad-vhost-user and its software device, and what its guest has set
	$(BIN)/python -m tests.backend.demo

demo-migration: all test-kernel ## a Linux guest moves live between two QEMUs on two back ends, and what went where
	@.ci/qemu trixie-backports >/dev/null || true
	$(BIN)/python -m tests.guest.demo

# Two more than processors, since some of these tests only wait.
SIDE_BY_SIDE = $(shell expr $$(nproc) + 2)
check: lint types test-packages ## what takes minutes: lint, types, all tests that start no machine, QEMU or testpmd
	$(call run-tests,-n $(SIDE_BY_SIDE) -m 'not machine and not fuzz and not bulk' --hypothesis-profile=few $(ARGS))

test: all test-packages ## everything: unit tests, QEMU's device, the kernel's vhost-vdpa; or what ARGS says
	$(call run-tests,-n auto --durations=25 $(ARGS))

HARNESS ?= requests
fuzz: all ## one harness, as long as one likes: HARNESS=commands, parts, requests, ring, streams; ARGS=LibFuzzer's
	$(BIN)/python -m tests.fuzz.run $(HARNESS) $(ARGS)

bench: all machine-packages ## one by one against pipelined, and commits against C, on QEMU's device
	$(BIN)/python -m benchmarks.replay $(ARGS)
	$(BIN)/python -m benchmarks.lent $(ARGS)

bench-kernel: all test-kernel ## on the kernel's devices, against C and QEMU 10
	$(BIN)/python -m benchmarks.kernel $(ARGS)

bench-load: all ## 64 clients and 256 software devices at once
	$(BIN)/python -m benchmarks.load $(ARGS)

bench-backend: all test-kernel ## a guest's commands through the back end, and packets past it
	$(BIN)/python -m benchmarks.backend $(ARGS)

bench-moving: all test-dpdk test-kernel ## what logging a guest's memory by a relay costs, and a switch
	$(BIN)/python -m benchmarks.moving $(ARGS)

plots: all ## the pictures of docs/benchmarks.md, from its tables
	$(BIN)/python -m benchmarks.plots

pictures: all ## the README's, from docs/pictures/where.py
	$(BIN)/python docs/pictures/where.py

lint: all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: all
	$(BIN)/mypy

format: all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: all ## what the models say, for machines: JSON Schema, OpenRPC, Varlink
	$(BIN)/python -m vdpad.state.schema netstate > docs/netstate.schema.json
	$(BIN)/python -m vdpad.state.schema devicestate > docs/devicestate.schema.json
	$(BIN)/python -m vdpad.conformance.schema > docs/selftest.schema.json
	$(BIN)/python -m vdpad.daemon.api.schema openrpc > docs/openrpc.json
	$(BIN)/python -m vdpad.daemon.api.schema varlink > vdpad/daemon/api/io.vdpad.Daemon.varlink
	$(BIN)/python -m vdpad.backend.control.schema openrpc > docs/backend.openrpc.json
	$(BIN)/python -m vdpad.backend.control.schema varlink > vdpad/backend/control/io.vdpad.BackEnd.varlink

man: all ## the man pages, in build/man
	mkdir -p build/man
	for page in vdpad.8 vdpad-vhost-user.8 vdpactl.1 vdpad.toml.5; do \
		$(BIN)/rst2man --halt=info docs/man/$$page.rst build/man/$$page || exit 1; done

completion: all ## of command lines, for bash, zsh and fish, in build/completion
	$(BIN)/python systemd/completion.py build/completion

COMPILE = uv pip compile --all-extras --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"
lock: ## both locks from pyproject.toml; needs uv (PyPI) on the PATH
	$(COMPILE) --upgrade --group dev pyproject.toml -o requirements.lock
	$(COMPILE) --no-annotate -c requirements.lock pyproject.toml -o requirements-run.lock

PREFIX ?= /usr
SYSCONFDIR ?= /etc
SYSTEM_PYTHON ?= /usr/bin/python3
install: man completion ## what a distribution's package would have, under DESTDIR; PREFIX, SYSCONFDIR, SYSTEM_PYTHON
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' PYTHON='$(SYSTEM_PYTHON)' \
		PIP='$(BIN)/pip' sh systemd/install.sh

deb: all ## packages of that for this Debian, 12 or 13, in build/deb
	@.ci/packages dh=debhelper
	rm -rf build/deb
	$(MAKE) --no-print-directory install DESTDIR=$(CURDIR)/build/deb/installed PREFIX=/usr SYSCONFDIR=/etc
	sh debian/build.sh build/deb/installed build/deb

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: python-packages test-packages machine-packages
.PHONY: test-kernel test-qemus test-vdpa-tool test-dpdk test-systemd test-libvirt
.PHONY: test-clients test-kit test-promtool test-install test-recipes
python-packages:
	@.ci/packages $(PYTHON)=python3 :ensurepip=python3-venv

test-packages:
	@.ci/packages ip=iproute2 gcc=gcc /usr/include/linux/vhost.h=linux-libc-dev systemd-analyze=systemd \
		/usr/bin/python3=python3 man=man-db locale-gen=locales node=nodejs

machine-packages: test-packages
	@.ci/packages qemu-system-x86_64=qemu-system-x86 depmod=kmod busybox=busybox-static \
		xz=xz-utils file=file ethtool=ethtool /bin/kill=procps

test-kernel: machine-packages
	@.ci/kernel >/dev/null || true

test-qemus: machine-packages
	@for suite in bookworm trixie trixie-backports; do .ci/qemu $$suite >/dev/null || true; done

test-dpdk: test-packages
	@.ci/packages dpdk-testpmd=dpdk-dev

test-libvirt: machine-packages
	@.ci/libvirt >/dev/null || true

test-systemd: machine-packages
	@.ci/systemd >/dev/null || true

test-vdpa-tool: machine-packages
	@.ci/vdpa >/dev/null || true

test-promtool:
	@.ci/promtool >/dev/null || true

test-clients: test-packages
	@for each in varlinkctl go; do .ci/$$each >/dev/null || true; done

test-kit: test-packages
	@.ci/packages rustc=rustc

test-recipes: test-packages
	@.ci/packages json_pp=perl
	@.ci/go >/dev/null || true

test-install: test-packages
	@.ci/packages zsh=zsh fish=fish dh=debhelper /usr/share/bash-completion/bash_completion=bash-completion

$(VENV)/ready: requirements.lock pyproject.toml | python-packages
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
