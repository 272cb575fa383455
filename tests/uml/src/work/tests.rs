use super::*;
use crate::tree;

/// A directory for one test, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("fswork-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("work")).unwrap();
        Scratch(path)
    }

    fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    fn listing(&self) -> String {
        let columns = ["atime", "mtime", "ctime", "dirsize", "nlink"]
            .iter()
            .fold(tree::Columns::default(), |columns, name| columns.without(name.parse().unwrap()));
        let mut text = Vec::new();
        tree::list(&self.work(), &tree::Options { columns, whole: 1 << 20, skip: Vec::new() }, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn a_seed_gives_one_tree() {
    let (a, b) = (Scratch::new("a"), Scratch::new("b"));
    let run = |scratch: &Scratch, seed| run(&Config::new(scratch.work(), 1500, seed), &mut Vec::new()).unwrap();
    let counts = run(&a, 7);
    assert_eq!(counts, run(&b, 7));
    assert_eq!(tree::differences(&a.listing(), &b.listing(), 5), Vec::<String>::new());
    let other = Scratch::new("c");
    run(&other, 8);
    assert_ne!(a.listing(), other.listing());
    assert!(counts["create ok"] > 100 && counts["write ok"] > 100, "{counts:?}");
}

#[test]
fn broken_promises_are_found() {
    let scratch = Scratch::new("sync");
    let log = scratch.0.join("log");
    let config = Config { sync_log: Some(log.clone()), ..Config::new(scratch.work(), 800, 3) };
    run(&config, &mut Vec::new()).unwrap();
    let checked = synclog::check(&log, &scratch.work()).unwrap();
    assert!(checked.kept > 20 && checked.open == 0 && checked.broken.is_empty(), "{checked:?}");

    let mut files: Vec<PathBuf> =
        std::fs::read_dir(scratch.work().join("synced")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    std::fs::remove_file(&files[0]).unwrap();
    std::fs::write(&files[1], b"other").unwrap();
    let broken = synclog::check(&log, &scratch.work()).unwrap().broken;
    assert_eq!(broken.len(), 2, "{broken:?}");

    // A line that was cut off says nothing, one that says `begin` excuses.
    let name = files[1].file_name().unwrap().to_str().unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, format!("{text}begin {name}\nsyn")).unwrap();
    let checked = synclog::check(&log, &scratch.work()).unwrap();
    assert_eq!((checked.open, checked.broken.len()), (1, 1), "{checked:?}");
}

#[test]
fn the_budget_is_kept() {
    let scratch = Scratch::new("budget");
    let config = Config { budget: 1 << 20, ..Config::new(scratch.work(), 1500, 5) };
    let mut work = Work::new(&config).unwrap();
    let mut most = 0;
    for step in 0..config.ops {
        work.step = step;
        work.one().unwrap();
        most = most.max(work.names.bytes());
    }
    // One step may go beyond it, by at most the largest write.
    assert!(most < (1 << 20) + (2 << 20), "{most}");
}
