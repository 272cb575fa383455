# gfs2r: `make demo` shows it, `make test` tests it. Both do all their set-up on a fresh Debian machine.
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo

.PHONY: help demo test check setup build release bench interop model crash posix programs suites stress doc deny manual install uninstall clean

help:
	@echo "make demo      format, mount, work, kill, recover, check: the whole story in two minutes"
	@echo "make test      every test"
	@echo "make check     format and lints"
	@echo "make bench     the micro-benchmarks (needs a quiet machine)"
	@echo "make programs  git, tar, rsync, SQLite, fio, stress-ng and others on a real mount"
	@echo "make suites    pjdfstest, fsx and stress-ng on a real mount          make stress  our own stress, longer"
	@echo "make interop   only the tests against the Linux kernel and the stock tools"
	@echo "make crash     only the crash matrix          make model   only the model test"
	@echo "make posix     only the POSIX run through a real mount"
	@echo "make install   PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)"

# Debian packages that tests and demo use; does nothing where they are there.
setup:
	@scripts/setup

build: setup
	$(CARGO) build --workspace --all-targets

release: setup
	$(CARGO) build --release --workspace

demo: release
	@scripts/demo

test: setup
	$(CARGO) build --release --workspace
	$(CARGO) test --release --workspace --no-fail-fast

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace -- -D warnings
	$(CARGO) clippy --workspace --all-targets
	$(CARGO) build -p gfs2r --lib --no-default-features

model: setup
	$(CARGO) test --release --test model -- --nocapture

crash: setup
	$(CARGO) test --release --test crash -- --nocapture

interop: setup
	$(CARGO) build --release --workspace
	$(CARGO) test --release -p gfs2r-uml --test interop -- --nocapture

posix: release
	$(CARGO) test --release --test posix -- --nocapture

bench:
	$(CARGO) bench --workspace --benches

programs: release
	@scripts/programs

suites: release
	@scripts/suites

stress: release
	GFS2R_STRESS_OPS=20000 GFS2R_STRESS_ROUNDS=20 $(CARGO) test --release --test stress -- --nocapture --test-threads 1

doc:
	$(CARGO) doc --workspace --no-deps

deny:
	$(CARGO) deny check

PROGRAMS = mkfs.gfs2r mount.gfs2r umount.gfs2r fsck.gfs2r gfs2r
# mount(8), umount(8), mkfs(8) and fsck(8) look for their helpers in /sbin; for one that is mounted by its full type.
HELPERS = mkfs.gfs2r mount.gfs2r umount.gfs2r fsck.gfs2r
KINDS = fuse fuseblk
share = $(PREFIX)/share
man8 = $(share)/man/man8
bash = $(share)/bash-completion/completions
zsh = $(share)/zsh/site-functions
fish = $(share)/fish/vendor_completions.d

# Manual pages and completions, made by the programs themselves.
manual: release
	rm -rf target/manual
	for p in $(PROGRAMS); do target/release/$$p --write-manual target/manual || exit 1; done

install: manual
	install -d "$(DESTDIR)$(PREFIX)/sbin" "$(DESTDIR)/sbin"
	cd target/release && install -m 755 $(PROGRAMS) "$(DESTDIR)$(PREFIX)/sbin/"
	[ "$(PREFIX)/sbin" -ef /sbin ] || for p in $(HELPERS); do ln -sf "$(PREFIX)/sbin/$$p" "$(DESTDIR)/sbin/$$p"; done
	for k in $(KINDS); do for p in mount umount; do \
	    ln -sf "$(PREFIX)/sbin/$$p.gfs2r" "$(DESTDIR)/sbin/$$p.$$k.gfs2r"; done; done
	install -d "$(DESTDIR)$(man8)" "$(DESTDIR)$(bash)" "$(DESTDIR)$(zsh)" "$(DESTDIR)$(fish)"
	install -m 644 target/manual/man8/*.8 "$(DESTDIR)$(man8)/"
	install -m 644 target/manual/bash/* "$(DESTDIR)$(bash)/"
	install -m 644 target/manual/zsh/* "$(DESTDIR)$(zsh)/"
	install -m 644 target/manual/fish/* "$(DESTDIR)$(fish)/"

uninstall:
	for p in $(PROGRAMS); do rm -f "$(DESTDIR)$(PREFIX)/sbin/$$p" "$(DESTDIR)/sbin/$$p" "$(DESTDIR)$(man8)/$$p.8" \
	    "$(DESTDIR)$(bash)/$$p" "$(DESTDIR)$(zsh)/_$$p" "$(DESTDIR)$(fish)/$$p.fish"; done
	rm -f "$(DESTDIR)$(man8)"/gfs2r-*.8
	for k in $(KINDS); do for p in mount umount; do rm -f "$(DESTDIR)/sbin/$$p.$$k.gfs2r"; done; done

clean:
	$(CARGO) clean
