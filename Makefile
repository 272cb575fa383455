# gfs2r: `make demo` shows it, `make test` tests it. Both do all their set-up on a fresh Debian machine.
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
# What `make install` takes the programs from, and what sees to it that build and tests have what they need.
BUILT ?= $(or $(CARGO_TARGET_DIR),target)/release
SETUP ?= scripts/setup

.PHONY: damage side-by-side help demo demo-single test sim check setup build release bench bench-kernel bench-cluster-kernel bench-fsck interop model crash faults posix fuzz programs suites stress cluster doc deny manual install uninstall clean
FUZZ_SECONDS ?= 60
SECONDS ?= 120
SCHEDULES ?= 10000
FUZZ_TARGETS ?= block journal dir ops image dlm_wire dlm_engine


help:
	@echo "make demo      three nodes, one disk, one of them killed: the whole story in two minutes"
	@echo "make demo-single  one node and real programs: format, mount, work, kill, recover, check"
	@echo "make test      every test"
	@echo "make check     format and lints"
	@echo "make bench     the table of docs/BENCHMARKS.md, and the micro-benchmarks; BENCH=\"--only tree --rounds 5\" chooses"
	@echo "make bench-kernel  against the kernel's own GFS2, in a User-Mode Linux guest"
	@echo "make damage      fsck.gfs2r repairs IMAGES=20000 damaged images from SEED=n on; fsck.gfs2 looks at each"
	@echo "make side-by-side  what fsck.gfs2 -y and ours make of the same IMAGES=400 damaged images: the table of docs/FSCK.md"
	@echo "make bench-fsck  fsck.gfs2r beside fsck.gfs2, cold: time and memory; BENCH=\"1000 --block-size=4096 --json\" chooses"
	@echo "make bench-cluster-kernel  hand-overs between two nodes, against two kernels with GFS2 and their DLM; failover"
	@echo "make programs  git, tar, rsync, SQLite, fio, stress-ng and others on a real mount, and on three of one disk"
	@echo "make suites    pjdfstest, fsx and stress-ng on a real mount          make stress  our own stress, longer"
	@echo "make interop   only the tests against the Linux kernel and the stock tools"
	@echo "make crash     only the crash matrix          make model   only the model test"
	@echo "make faults    every I/O error and full disk at every step, not only a sample"
	@echo "make posix     only the POSIX run through a real mount"
	@echo "make cluster   several mounts of one disk, faults, and a checker of every answer; SECONDS=$(SECONDS) (3600: an hour)"
	@echo "make sim       the whole cluster in one simulated process, SCHEDULES=$(SCHEDULES); SEED=n is the first"
	@echo "make fuzz      every fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS) (needs cargo-fuzz and a nightly compiler)"
	@echo "make install   PREFIX=$(PREFIX) DESTDIR=$(DESTDIR); DROP_IN=1: also by the stock tools' names; make uninstall"

# Debian packages that tests and demo use; does nothing where they are there.
setup:
	@$(SETUP)

build: setup
	$(CARGO) build --workspace --all-targets

release: setup
	$(CARGO) build --release --workspace

demo: release
	@BUILT="$(BUILT)" scripts/demo

demo-single: release
	@BUILT="$(BUILT)" scripts/demo-single

test: setup
	$(CARGO) build --release --workspace
	$(CARGO) test --release --workspace --no-fail-fast
	$(SIM)

SIM = $(CARGO) test --release -p gfs2r --no-default-features --features simulated --test sim -- --nocapture --test-threads 1

sim:
	SCHEDULES=$(SCHEDULES) $(SIM) schedules

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace -- -D warnings
	$(CARGO) clippy --workspace --all-targets
	$(CARGO) build -p gfs2r --lib --no-default-features

model: setup
	$(CARGO) test --release --test model -- --nocapture

crash: setup
	$(CARGO) test --release --test crash -- --nocapture

faults: setup
	FAULTS=full $(CARGO) test --release --test faults -- --nocapture

interop: setup
	$(CARGO) build --release --workspace
	$(CARGO) test --release -p gfs2r-uml --test interop -- --nocapture
	$(CARGO) test --release -p gfs2r-uml --test cluster
	$(CARGO) test --release -p gfs2r-lockclient --test kernel
	$(CARGO) test --release -p gfs2r-lockclient --test nodes

posix: release
	$(CARGO) test --release --test posix -- --nocapture

# What the table's program takes: make bench BENCH=--help
BENCH ?=

bench: release
	$(CARGO) bench -p gfs2r --bench glock_fast_path --bench journal --bench file
	$(CARGO) bench -p gfs2r-lockclient --benches
	$(CARGO) bench -p gfs2r --bench end_to_end -- $(BENCH)

bench-kernel: release
	$(CARGO) bench -p gfs2r --bench end_to_end -- --kernel $(BENCH)

bench-cluster-kernel: release
	$(CARGO) bench -p gfs2r-uml --bench handover -- $(BENCH)

# A million files take 8 GB in TMPDIR; emptying the page cache takes root.
damage: IMAGES ?= 20000
damage: SEED ?= 70001000
damage:
	GFS2R_IMAGES=$(IMAGES) GFS2R_SEED=$(SEED) GFS2R_STOCK=1 \
		$(CARGO) test --release -p gfs2r-fsck --test random damaged -- --nocapture
side-by-side: IMAGES ?= 400
side-by-side: SEED ?= 80000000
side-by-side:
	GFS2R_IMAGES=$(IMAGES) GFS2R_SEED=$(SEED) \
		$(CARGO) test --release -p gfs2r-fsck --test random side_by_side -- --ignored --nocapture
bench-fsck: release
	$(CARGO) bench -p gfs2r-fsck --bench check -- $(BENCH)

fuzz:
	@$(CARGO) fuzz --version >/dev/null 2>&1 && rustup toolchain list 2>/dev/null | grep -q nightly || \
	    { echo "make fuzz needs: cargo install cargo-fuzz; rustup toolchain install nightly"; \
	      echo "(the same targets with a fixed budget: cargo test --release --test fuzz)"; exit 1; }
	for t in $(FUZZ_TARGETS); do mkdir -p fuzz/found/$$t && $(CARGO) +nightly fuzz run -s none $$t fuzz/found/$$t fuzz/corpus/$$t -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=30 -rss_limit_mb=3000 -malloc_limit_mb=1000 -max_len=4096 || exit 1; done

programs: release
	@scripts/programs
	@scripts/programs-cluster

suites: release
	@scripts/suites

stress: release
	GFS2R_STRESS_OPS=20000 GFS2R_STRESS_ROUNDS=20 $(CARGO) test --release --test stress -- --nocapture --test-threads 1

cluster: release
	SECONDS=$(SECONDS) KEEP=1 $(CARGO) test --release --test cluster -- --include-ignored --nocapture --test-threads 1

doc:
	$(CARGO) doc --workspace --no-deps

deny:
	$(CARGO) deny check

PROGRAMS = mkfs.gfs2r mount.gfs2r umount.gfs2r fsck.gfs2r gfs2r
# mount(8), umount(8), mkfs(8) and fsck(8) look for their helpers in /sbin; for one that is mounted by its full type.
HELPERS = mkfs.gfs2r mount.gfs2r umount.gfs2r fsck.gfs2r
KINDS = fuse fuseblk
# DROP_IN=1 installs the names of the stock tools too, with their command lines: STOCK:OURS. A file that is there already (of
# the package gfs2-utils) stays; it is found after ours in $(PREFIX)/sbin, but by mkfs(8), fsck(8) and mount(8) before ours.
DROP_IN ?=
NAMES = mkfs.gfs2:mkfs.gfs2r fsck.gfs2:fsck.gfs2r mount.gfs2:mount.gfs2r \
	gfs2_grow:gfs2r gfs2_jadd:gfs2r tunegfs2:gfs2r
share = $(PREFIX)/share
man5 = $(share)/man/man5
man8 = $(share)/man/man8
bash = $(share)/bash-completion/completions
zsh = $(share)/zsh/site-functions
fish = $(share)/fish/vendor_completions.d

# Manual pages and completions, made by the programs themselves.
manual: release
	rm -rf "$(BUILT)/manual"
	for p in $(PROGRAMS); do "$(BUILT)/$$p" --write-manual "$(BUILT)/manual" || exit 1; done

install: manual
	install -d "$(DESTDIR)$(PREFIX)/sbin" "$(DESTDIR)/sbin"
	cd "$(BUILT)" && install -s -m 755 $(PROGRAMS) "$(DESTDIR)$(PREFIX)/sbin/"
	[ "$(PREFIX)/sbin" -ef /sbin ] || for p in $(HELPERS); do ln -sf "$(PREFIX)/sbin/$$p" "$(DESTDIR)/sbin/$$p"; done
	for k in $(KINDS); do for p in mount umount; do \
	    ln -sf "$(PREFIX)/sbin/$$p.gfs2r" "$(DESTDIR)/sbin/$$p.$$k.gfs2r"; done; done
	install -d "$(DESTDIR)$(man5)" "$(DESTDIR)$(man8)" "$(DESTDIR)$(bash)" "$(DESTDIR)$(zsh)" "$(DESTDIR)$(fish)"
	install -m 644 "$(BUILT)"/manual/man8/*.8 "$(DESTDIR)$(man8)/"
	install -m 644 manual/pages/*.5 "$(DESTDIR)$(man5)/"
	install -m 644 "$(BUILT)"/manual/bash/* "$(DESTDIR)$(bash)/"
	install -m 644 "$(BUILT)"/manual/zsh/* "$(DESTDIR)$(zsh)/"
	install -m 644 "$(BUILT)"/manual/fish/* "$(DESTDIR)$(fish)/"
ifeq ($(DROP_IN),1)
	for n in $(NAMES); do stock=$${n%%:*}; ours=$(PREFIX)/sbin/$${n#*:}; \
	    for at in "$(DESTDIR)$(PREFIX)/sbin" "$(DESTDIR)/sbin"; do \
	        if [ -L "$$at/$$stock" ] && [ "$$(readlink "$$at/$$stock")" = "$$ours" ]; then :; \
	        elif [ -e "$$at/$$stock" ] || [ -L "$$at/$$stock" ]; then echo "make install: $$at/$$stock is not ours, and stays" >&2; \
	        else ln -s "$$ours" "$$at/$$stock" || exit 1; fi; done; done
endif

uninstall:
	for n in $(NAMES); do stock=$${n%%:*}; ours=$(PREFIX)/sbin/$${n#*:}; \
	    for at in "$(DESTDIR)$(PREFIX)/sbin" "$(DESTDIR)/sbin"; do \
	        [ ! -L "$$at/$$stock" ] || [ "$$(readlink "$$at/$$stock")" != "$$ours" ] || rm -f "$$at/$$stock"; done; done
	for p in $(PROGRAMS); do rm -f "$(DESTDIR)$(PREFIX)/sbin/$$p" "$(DESTDIR)/sbin/$$p" "$(DESTDIR)$(man8)/$$p.8" \
	    "$(DESTDIR)$(bash)/$$p" "$(DESTDIR)$(zsh)/_$$p" "$(DESTDIR)$(fish)/$$p.fish"; done
	rm -f "$(DESTDIR)$(man8)"/gfs2r-*.8 "$(DESTDIR)$(man5)"/gfs2r-*.5
	for k in $(KINDS); do for p in mount umount; do rm -f "$(DESTDIR)/sbin/$$p.$$k.gfs2r"; done; done

clean:
	$(CARGO) clean
