//! What the workload knows of the tree: the names that are there, what they are, and roughly how much they hold.

use super::rng::Rng;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Paths relative to the work directory are kept shorter than this (PATH_MAX is 4096).
const LONGEST_PATH: usize = 3000;

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dir,
    File,
    Symlink,
    /// A device node, a fifo or a socket.
    Special,
}

#[derive(Debug)]
struct Node {
    parent: usize,
    name: Vec<u8>,
    kind: Kind,
    /// Index in the list of its kind; `None` when the name is gone.
    place: Option<usize>,
    /// Number of names in this directory, and one for each crowd of [`Crowd`] that is not empty.
    children: usize,
    bytes: u64,
}

/// How many `h` stand before the number in a name whose hash collides.
const COLLIDING_PREFIX: usize = 200;

/// Numbers whose names, after [`COLLIDING_PREFIX`], have a CRC-32 with the same 17 upper bits: they stay in one leaf however
/// often it is split, so that the hash table grows to its largest size (depth 17), and the leaf gets a chain.
const COLLIDING: [u32; 64] = [
    0, 297001, 404166, 738279, 860180, 922768, 1002972, 1062482, 1377523, 1691815, 1727647, 1856700, 2038733, 2153365,
    2390166, 2468457, 2503001, 2754748, 3083881, 3188127, 3220772, 3396920, 3505847, 3670416, 3901551, 4054341,
    4089945, 4176859, 4203408, 4297142, 4404025, 4711184, 4894879, 5291904, 5327756, 5402863, 5462593, 5777432,
    5806575, 5866885, 5999999, 6068546, 6103110, 6354659, 6438622, 6553274, 6790077, 6937292, 7105956, 7270507,
    7483990, 7588036, 7620663, 7796831, 7887486, 7951724, 8030094, 8325135, 8522518, 8657949, 8775251, 8804316,
    9056522, 9180680,
];

/// Many files of one directory, numbered; their names follow from the number.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) dir: usize,
    /// Length of the names; 0 for names whose hashes collide.
    pub(super) length: usize,
    pub(super) next: u64,
    pub(super) alive: Vec<u64>,
}

impl Crowd {
    /// The name of the file with a number; `None` when there are no more names.
    pub(super) fn name(&self, number: u64) -> Option<Vec<u8>> {
        if self.length == 0 {
            let number = COLLIDING.get(usize::try_from(number).ok()?)?;
            return Some(format!("{}{number}", "h".repeat(COLLIDING_PREFIX)).into_bytes());
        }
        let mut name = format!("c{number}").into_bytes();
        while name.len() < self.length {
            name.push(b'a' + (number as usize + name.len()) as u8 % 26);
        }
        Some(name)
    }
}

/// The tree. Node 0 is the work directory itself.
#[derive(Debug)]
pub(super) struct Namespace {
    nodes: Vec<Node>,
    lists: [Vec<usize>; 4],
    pub(super) crowds: Vec<Crowd>,
    bytes: u64,
    counter: u64,
}

impl Namespace {
    pub(super) fn new() -> Namespace {
        let root = Node { parent: 0, name: Vec::new(), kind: Kind::Dir, place: Some(0), children: 0, bytes: 0 };
        Namespace {
            nodes: vec![root],
            lists: [vec![0], vec![], vec![], vec![]],
            crowds: Vec::new(),
            bytes: 0,
            counter: 0,
        }
    }

    /// About how many bytes of data the tree holds.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn kind(&self, node: usize) -> Kind {
        self.nodes[node].kind
    }

    pub(super) fn is_empty_dir(&self, node: usize) -> bool {
        self.nodes[node].children == 0
    }

    /// A live node of one of the kinds.
    pub(super) fn pick(&self, kinds: &[Kind], rng: &mut Rng) -> Option<usize> {
        let total: usize = kinds.iter().map(|&kind| self.lists[kind as usize].len()).sum();
        let mut at = rng.index(total)?;
        for &kind in kinds {
            let list = &self.lists[kind as usize];
            if at < list.len() {
                return Some(list[at]);
            }
            at -= list.len();
        }
        None
    }

    /// A name that was never used: short, of middle length, or up to 255 bytes, now and then not ASCII or not UTF-8.
    pub(super) fn new_name(&mut self, rng: &mut Rng) -> Vec<u8> {
        self.counter += 1;
        let mut name =
            format!("{}{}", ["f", "x", "name-", "A B", "#"][rng.below(5) as usize], self.counter).into_bytes();
        let length = match rng.below(10) {
            0..6 => 0,
            6..9 => rng.range(15, 60),
            _ => rng.range(200, 255),
        } as usize;
        if rng.one_in(8) {
            name.extend_from_slice(["äöü€".as_bytes(), b"\xff\xfe", b"new\nline"][rng.below(3) as usize]);
        }
        while name.len() < length {
            name.push(b'a' + rng.below(26) as u8);
        }
        name
    }

    /// The path relative to the work directory; `None` when it is too long.
    pub(super) fn path(&self, node: usize) -> Option<PathBuf> {
        let mut parts = Vec::new();
        let mut at = node;
        while at != 0 {
            parts.push(self.nodes[at].name.as_slice());
            at = self.nodes[at].parent;
        }
        parts.reverse();
        let path = parts.join(&b'/');
        (path.len() < LONGEST_PATH).then(|| PathBuf::from(OsString::from_vec(path)))
    }

    pub(super) fn path_below(&self, dir: usize, name: &[u8]) -> Option<PathBuf> {
        let path = self.path(dir)?.join(OsString::from_vec(name.to_vec()));
        (path.as_os_str().len() < LONGEST_PATH).then_some(path)
    }

    pub(super) fn add(&mut self, parent: usize, name: Vec<u8>, kind: Kind) -> usize {
        let node = self.nodes.len();
        let list = &mut self.lists[kind as usize];
        self.nodes.push(Node { parent, name, kind, place: Some(list.len()), children: 0, bytes: 0 });
        list.push(node);
        self.nodes[parent].children += 1;
        node
    }

    pub(super) fn remove(&mut self, node: usize) {
        self.set_bytes(node, 0);
        let Node { parent, kind, .. } = self.nodes[node];
        self.nodes[parent].children -= 1;
        if let Some(place) = self.nodes[node].place.take() {
            let list = &mut self.lists[kind as usize];
            list.swap_remove(place);
            if let Some(&moved) = list.get(place) {
                self.nodes[moved].place = Some(place);
            }
        }
    }

    pub(super) fn rename(&mut self, node: usize, parent: usize, name: Vec<u8>) {
        let old = self.nodes[node].parent;
        self.nodes[old].children -= 1;
        self.nodes[parent].children += 1;
        self.nodes[node].parent = parent;
        self.nodes[node].name = name;
    }

    pub(super) fn exchange(&mut self, a: usize, b: usize) {
        let (a_place, b_place) = (self.place_of(a), self.place_of(b));
        self.rename(a, b_place.0, b_place.1);
        self.rename(b, a_place.0, a_place.1);
    }

    /// The parent and the name of a node.
    pub(super) fn place_of(&self, node: usize) -> (usize, Vec<u8>) {
        (self.nodes[node].parent, self.nodes[node].name.clone())
    }

    /// Whether `above` is `node` itself or a directory above it.
    pub(super) fn is_within(&self, node: usize, above: usize) -> bool {
        let mut at = node;
        loop {
            if at == above {
                return true;
            }
            if at == 0 {
                return false;
            }
            at = self.nodes[at].parent;
        }
    }

    pub(super) fn add_bytes(&mut self, node: usize, bytes: u64) {
        self.set_bytes(node, self.nodes[node].bytes + bytes);
    }

    pub(super) fn set_bytes(&mut self, node: usize, bytes: u64) {
        self.bytes = self.bytes - self.nodes[node].bytes + bytes;
        self.nodes[node].bytes = bytes;
    }

    /// Makes a crowd in a directory, empty so far; the directory is never empty again (none of them is ever removed).
    pub(super) fn add_crowd(&mut self, dir: usize, length: usize) -> usize {
        self.nodes[dir].children += 1;
        self.crowds.push(Crowd { dir, length, next: 0, alive: Vec::new() });
        self.crowds.len() - 1
    }
}
