use super::*;
use std::os::unix::fs::FileExt;

/// A directory for one test, removed when dropped.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("treelist-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn listing(root: &Scratch, columns: Columns) -> String {
    let mut text = Vec::new();
    let listing = list(&root.0, &Options { columns, ..Options::default() }, &mut text).unwrap();
    assert_eq!(listing.errors, Vec::<String>::new());
    String::from_utf8(text).unwrap()
}

#[test]
fn lists_what_is_there() {
    let root = Scratch::new("plain");
    std::fs::create_dir(root.0.join("d")).unwrap();
    std::fs::write(root.0.join("d/a file"), b"hello").unwrap();
    std::fs::hard_link(root.0.join("d/a file"), root.0.join("z")).unwrap();
    std::os::unix::fs::symlink("d/a file", root.0.join("l")).unwrap();
    let text = listing(&root, Columns::default());
    let paths: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(paths, ["/", "d", "d/a\\x20file", "l", "z"]);
    let z = text.lines().last().unwrap();
    assert!(
        z.contains(" nlink=2 ") && z.contains(" same=d/a\\x20file ") && z.contains(&content::hash_of(b"hello")),
        "{z}"
    );
    assert!(text.contains(" link=d/a\\x20file"));
}

#[test]
fn holes_and_zeros_have_one_hash() {
    let root = Scratch::new("holes");
    let size = 300 * 1024;
    let (sparse, dense) =
        (std::fs::File::create_new(root.0.join("s")).unwrap(), std::fs::File::create_new(root.0.join("d")).unwrap());
    sparse.set_len(size).unwrap();
    dense.write_all_at(&vec![0; size as usize], 0).unwrap();
    for file in [&sparse, &dense] {
        file.write_all_at(b"x", 100_000).unwrap();
        file.write_all_at(b"y", size - 1).unwrap();
    }
    let open = |name: &str| std::fs::File::open(root.0.join(name)).unwrap();
    let whole = content::hash(open("s"), size, size).unwrap();
    assert_eq!(content::hash(open("d"), size, size).unwrap(), whole);
    assert_eq!(content::hash(open("s"), size, 0).unwrap(), whole, "by SEEK_DATA");
    assert_eq!(content::hash(open("d"), size, 0).unwrap(), whole, "by SEEK_DATA");
    sparse.write_all_at(b"z", 200_000).unwrap();
    assert_ne!(content::hash(open("s"), size, 0).unwrap(), whole);
}

#[test]
fn differences_name_the_fields() {
    let left = "a type=file size=1\nb type=dir\n";
    let right = "a type=file size=2\nc type=dir\n";
    let found = differences(left, right, 10);
    assert_eq!(found, ["differs:    a [size=1] / [size=2]", "only left:  b type=dir", "only right: c type=dir"]);
    assert!(differences(left, left, 10).is_empty());
    assert_eq!(differences(left, right, 1).len(), 2);
}

#[test]
fn columns_are_chosen_by_name() {
    let root = Scratch::new("columns");
    let only = Columns::default().without(Column::Atime).without(Column::Mtime).without(Column::Ctime);
    let text = listing(&root, only.with("ino".parse().unwrap()));
    assert!(!text.contains("time=") && text.contains(" ino="), "{text}");
    assert!("nonsense".parse::<Column>().is_err());
}
