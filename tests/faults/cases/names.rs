//! Names: making, linking, removing, moving, looking up, listing.

use super::{Case, Silent, whole};
use crate::stage::Ctx;
use gfs2r::error::{Error, Result};
use gfs2r::fs::{NewInode, RenameHow};

const FILE: NewInode<'_> = NewInode::File(0o644);
const DIR: NewInode<'_> = NewInode::Dir(0o755);

fn grow(c: &Ctx<'_>, which: usize) -> Result<String> {
    c.make(["/g1", "/g2", "/g3"][which], &c.name(c.growth[which]), &FILE).quiet()
}

fn unlink(c: &Ctx<'_>, dir: &str, name: &str) -> Result<String> {
    c.on(dir, |dir| c.fs.unlink(dir, name.as_bytes())).quiet()
}

fn rmdir(c: &Ctx<'_>, dir: &str, name: &str) -> Result<String> {
    c.on(dir, |dir| c.fs.rmdir(dir, name.as_bytes())).quiet()
}

fn rename(c: &Ctx<'_>, from: (&str, &str), to: (&str, &str), how: RenameHow) -> Result<String> {
    c.on(from.0, |old| c.on(to.0, |new| c.fs.rename(&c.caller, (old, from.1.as_bytes()), (new, to.1.as_bytes()), how)))
        .quiet()
}

fn replace(c: &Ctx<'_>, from: (&str, &str), to: (&str, &str)) -> Result<String> {
    rename(c, from, to, RenameHow::Replace)
}

fn making() -> Vec<Case> {
    vec![
        whole("create", |c| c.make("/few", "new", &FILE).quiet()),
        whole("create in the root", |c| c.make("/", "new", &FILE).quiet()),
        whole("create, directory leaves its dinode", |c| grow(c, 0)),
        whole("create, a leaf splits", |c| grow(c, 1)),
        whole("create, the table grows", |c| grow(c, 2)),
        whole("create, inherits an ACL", |c| c.make("/acl.d", "new", &FILE).quiet()),
        whole("mkdir", |c| c.make("/few", "new", &DIR).quiet()),
        whole("mkdir in the root", |c| c.make("/", "new", &DIR).quiet()),
        whole("mkdir, inherits ACLs", |c| c.make("/acl.d", "new", &DIR).quiet()),
        whole("mkdir, a leaf splits", |c| c.make("/g2", &c.name(c.growth[1]), &DIR).quiet()),
        whole("symlink", |c| c.make("/few", "new", &NewInode::Symlink(b"target")).quiet()),
        whole("symlink, long", |c| {
            let target = vec![b't'; c.bs as usize - 240];
            c.make("/g1", &c.name(c.growth[0]), &NewInode::Symlink(&target)).quiet()
        }),
        whole("mknod", |c| c.make("/few", "new", &NewInode::Node(0o010_600, (0, 0))).quiet()),
        whole("link", |c| c.link("/small", "/few", "new").quiet()),
        whole("link, directory leaves its dinode", |c| c.link("/small", "/g1", &c.name(c.growth[0])).quiet()),
        whole("link, the table grows", |c| c.link("/few/one", "/g3", &c.name(c.growth[2])).quiet()),
    ]
}

fn removing() -> Vec<Case> {
    vec![
        whole("unlink", |c| unlink(c, "/few", "one")),
        whole("unlink, one of two names", |c| unlink(c, "/few", "link")),
        whole("unlink, five blocks", |c| unlink(c, "/", "mid")),
        whole("unlink, tall", |c| unlink(c, "/", "deep")),
        whole("unlink, fragments", |c| unlink(c, "/", "frag")),
        whole("unlink, long", |c| unlink(c, "/", "long")),
        whole("unlink, journaled data", |c| unlink(c, "/", "jd")),
        whole("unlink, attributes", |c| unlink(c, "/", "x.some")),
        whole("unlink, many attributes", |c| unlink(c, "/", "x.many")),
        whole("unlink, large attributes", |c| unlink(c, "/", "x.two")),
        whole("unlink a symlink", |c| unlink(c, "/", "sym")),
        whole("unlink a device node", |c| unlink(c, "/", "node")),
        whole("unlink, hashed directory", |c| unlink(c, "/g2", &c.name(1))),
        whole("unlink while open", |c| c.on("/deep2", |_| unlink(c, "/", "deep2"))),
        whole("rmdir", |c| rmdir(c, "/", "empty.d")),
        whole("rmdir, hashed", |c| rmdir(c, "/", "hollow")),
    ]
}

fn moving() -> Vec<Case> {
    vec![
        whole("rename", |c| replace(c, ("/few", "one"), ("/few", "other"))),
        whole("rename into a directory that grows", |c| replace(c, ("/few", "one"), ("/g1", &c.name(c.growth[0])))),
        whole("rename within a directory that grows", |c| {
            replace(c, ("/g2", &c.name(0)), ("/g2", &c.name(c.growth[1])))
        }),
        whole("rename to another directory", |c| replace(c, ("/a", "one"), ("/b", "other"))),
        whole("rename over a file", |c| replace(c, ("/", "small"), ("/", "victim"))),
        whole("rename over a tall file", |c| replace(c, ("/few", "one"), ("/", "deep"))),
        whole("rename over one of two names", |c| replace(c, ("/few", "one"), ("/few", "link"))),
        whole("rename over a file with attributes", |c| replace(c, ("/a", "one"), ("/", "x.two"))),
        whole("rename a directory", |c| replace(c, ("/a", "sub"), ("/b", "other"))),
        whole("rename over a directory", |c| replace(c, ("/a", "sub"), ("/b", "empty"))),
        whole("rename, no replacing", |c| rename(c, ("/a", "one"), ("/b", "other"), RenameHow::NoReplace)),
        whole("exchange files", |c| rename(c, ("/few", "one"), ("/few", "two"), RenameHow::Exchange)),
        whole("exchange directories", |c| rename(c, ("/a", "sub"), ("/b", "sub"), RenameHow::Exchange)),
        whole("exchange a file and a directory", |c| rename(c, ("/a", "one"), ("/b", "sub"), RenameHow::Exchange)),
    ]
}

fn looking() -> Vec<Case> {
    vec![
        whole("lookup", |c| c.on("/a/sub", |node| c.fs.getattr(node)).map(|a| format!("{a:?}"))),
        whole("lookup in a hashed directory", |c| {
            let path = format!("/g3/{}", c.name(c.growth[2] / 2));
            c.on(&path, |node| c.fs.getattr(node)).map(|a| format!("{a:?}"))
        }),
        whole("lookup what is not there", |c| match c.on("/g3/nothing", |_| Ok(())) {
            Err(Error::NotFound) => Ok("not found".into()),
            other => other.quiet(),
        }),
        whole("readlink", |c| c.on("/sym", |node| c.fs.readlink(node)).map(|t| format!("{t:?}"))),
        whole("readdir", |c| list(c, "/few")),
        whole("readdir of the root", |c| list(c, "/")),
        whole("readdir, hashed", |c| list(c, "/g3")),
        whole("readdir with attributes", |c| {
            let mut names = Vec::new();
            let mut known = Vec::new();
            let listed = c.on("/", |dir| {
                c.fs.list_plus(dir, 0, &mut |item| {
                    known.extend(item.attr.map(|a| a.inum.addr));
                    names.push((item.name.to_vec(), item.next));
                    true
                })
            });
            known.into_iter().for_each(|node| c.let_go(node));
            listed.map(|()| format!("{names:?}"))
        }),
    ]
}

fn list(c: &Ctx<'_>, dir: &str) -> Result<String> {
    let mut names = Vec::new();
    c.on(dir, |dir| {
        c.fs.list(dir, 0, &mut |item| {
            names.push((item.name.to_vec(), item.entry.inum.addr, item.next));
            true
        })
    })?;
    Ok(format!("{names:?}"))
}

pub(super) fn cases() -> Vec<Case> {
    [making(), removing(), moving(), looking()].concat()
}
