//! What taking a glock costs that this node has and nobody else wants: `cargo bench --bench glock_fast_path`.

use gfs2r::error::Result;
use gfs2r::glock::{GlockTable, Nolock, Protected};
use gfs2r::ids::{LockKind, LockName};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// An object as large as an inode.
struct Object {
    bytes: [u8; 280],
}

impl Protected for Object {
    type Context = ();
    fn instantiate(_: LockName, (): &()) -> Result<Self> {
        Ok(Self { bytes: [1; 280] })
    }
    fn sync(_: LockName, _: &mut Self, (): &()) -> Result<()> {
        Ok(())
    }
    fn invalidate(_: LockName, (): &()) {}
}

fn measure(what: &str, n: u64, mut f: impl FnMut(u64)) {
    let mut best = u128::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        (0..n).for_each(&mut f);
        best = best.min(start.elapsed().as_nanos() / u128::from(n));
    }
    println!("{what:45} {best:6} ns");
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or("VmRSS: 0");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn main() {
    let cx = Arc::new(());
    let table: GlockTable<Object> = GlockTable::new(Arc::new(Nolock), 1 << 20);
    table.set_context(&cx);
    let name = |number| LockName { kind: LockKind::Inode, number };
    let lock = table.get(name(1));
    let broken = "nobody else is here";
    measure("shared, taken and released", 1_000_000, |_| drop(black_box(lock.shared().expect(broken))));
    measure("exclusive, taken and released", 1_000_000, |_| {
        lock.exclusive().expect(broken).bytes[0] = 2;
    });
    measure("found in the table, shared", 1_000_000, |_| drop(black_box(table.get(name(1)).shared().expect(broken))));
    let before = resident();
    let start = Instant::now();
    let many = 1_000_000;
    (0..many).for_each(|n| drop(table.get(name(n + 10)).shared().expect(broken)));
    let each = start.elapsed().as_nanos() / u128::from(many);
    println!("{:45} {each:6} ns", "a new glock with its object");
    println!("{:45} {:6} bytes", "memory of an unused glock with its object", (resident() - before) * 1024 / many);
}
