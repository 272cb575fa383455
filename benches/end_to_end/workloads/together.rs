//! Three nodes that do not get in one another's way, against one of them.

use super::Suite;
use crate::measure::{Bench, Unit};
use crate::targets::{Kind, nodes};
use std::fs;
use std::io;
use std::path::PathBuf;

pub(super) const TOGETHER: Suite = Suite {
    name: "nodes at once, each in its own directory",
    rows: &[
        "create, write 1 KiB, 1 node",
        "create, write 1 KiB, 3 nodes",
        "append 100 bytes, 1 node",
        "append 100 bytes, 3 nodes",
        "unlink, 1 node",
        "unlink, 3 nodes",
    ],
    fits: |kind| kind == Kind::Dlm,
    needs_mount: true,
    run: together,
};

fn together(bench: &mut Bench<'_>) -> io::Result<()> {
    let files = bench.scaled(3000);
    for nodes in [1, 3] {
        let some = if nodes == 1 { "1 node" } else { "3 nodes" };
        let dirs: Vec<PathBuf> =
            (1..=nodes).map(|n| nodes::root(&bench.target.root, n).join(format!("own{nodes}-{n}"))).collect();
        dirs.iter().try_for_each(fs::create_dir)?;
        let amount = (files * u64::from(nodes)) as f64;
        let each = |what: &(dyn Fn(PathBuf) -> io::Result<()> + Sync)| {
            std::thread::scope(|scope| {
                let work = |dir: &PathBuf| {
                    let dir = dir.clone();
                    scope.spawn(move || (0..files).try_for_each(|n| what(dir.join(format!("file{n}")))))
                };
                let all: Vec<_> = dirs.iter().map(work).collect();
                all.into_iter().try_for_each(|one| one.join().map_err(|_| io::Error::other("a thread panicked"))?)
            })
        };
        bench.time(&format!("create, write 1 KiB, {some}"), Unit::Ops, amount, |_| {
            each(&|path| fs::write(path, [5; 1024]))
        })?;
        bench.target.settle()?;
        let log = |path: PathBuf| path.with_file_name("log");
        bench.time(&format!("append 100 bytes, {some}"), Unit::Ops, amount, |_| {
            each(&|path| {
                use std::io::Write;
                fs::File::options().create(true).append(true).open(log(path))?.write_all(&[6; 100])
            })
        })?;
        bench.target.settle()?;
        bench.time(&format!("unlink, {some}"), Unit::Ops, amount, |_| each(&|path| fs::remove_file(path)))?;
        dirs.iter().try_for_each(fs::remove_dir_all)?;
        bench.target.settle()?;
    }
    Ok(())
}
