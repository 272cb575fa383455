# gfs2r: `make demo` shows it, `make test` tests it. Both do all their set-up on a fresh Debian machine.
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo

.PHONY: help demo test check setup build release bench interop model crash posix programs doc deny install uninstall clean

help:
	@echo "make demo      format, mount, work, kill, recover, check: the whole story in two minutes"
	@echo "make test      every test"
	@echo "make check     format and lints"
	@echo "make bench     the micro-benchmarks (needs a quiet machine)"
	@echo "make programs  git, tar, rsync, SQLite, fio, stress-ng and others on a real mount"
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
	$(CARGO) test --release -p gfs2r-lockclient --test kernel

posix: release
	$(CARGO) test --release --test posix -- --nocapture

bench:
	$(CARGO) bench --workspace --benches

programs: release
	@scripts/programs

doc:
	$(CARGO) doc --workspace --no-deps

deny:
	$(CARGO) deny check

install: release
	install -d "$(DESTDIR)$(PREFIX)/sbin" "$(DESTDIR)/sbin"
	install -m 755 target/release/mkfs.gfs2r target/release/mount.gfs2r target/release/umount.gfs2r \
	    target/release/fsck.gfs2r target/release/gfs2r "$(DESTDIR)$(PREFIX)/sbin/"
	# mount(8), umount(8), mkfs(8) and fsck(8) look for their helpers in /sbin.
	for p in mkfs.gfs2r mount.gfs2r umount.gfs2r fsck.gfs2r; do ln -sf "$(PREFIX)/sbin/$$p" "$(DESTDIR)/sbin/$$p"; done
	for k in fuse fuseblk; do ln -sf "$(PREFIX)/sbin/umount.gfs2r" "$(DESTDIR)/sbin/umount.$$k.gfs2r"; \
	    ln -sf "$(PREFIX)/sbin/mount.gfs2r" "$(DESTDIR)/sbin/mount.$$k.gfs2r"; done

uninstall:
	for p in mkfs.gfs2r mount.gfs2r umount.gfs2r fsck.gfs2r gfs2r; do rm -f "$(DESTDIR)$(PREFIX)/sbin/$$p" "$(DESTDIR)/sbin/$$p"; done
	for k in fuse fuseblk; do rm -f "$(DESTDIR)/sbin/umount.$$k.gfs2r" "$(DESTDIR)/sbin/mount.$$k.gfs2r"; done

clean:
	$(CARGO) clean
