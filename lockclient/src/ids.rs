//! Identifiers: nodes, locks, operations, names of resources, and the hash that spreads them.

use std::fmt;

/// A node of the cluster (corosync's node id); 0 is nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Nobody.
    pub const NONE: NodeId = NodeId(0);
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A lock on one node of one lockspace; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockId(pub u32);

impl LockId {
    /// No lock.
    pub const NONE: LockId = LockId(0);
}

/// Longest resource name, in bytes.
pub const NAME_MAX: usize = 64;

/// A resource name: 0..=64 opaque bytes, length significant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    length: u8,
    bytes: [u8; NAME_MAX],
}

impl Name {
    /// The name, unless it is too long.
    pub fn new(bytes: &[u8]) -> Option<Name> {
        let mut name = Name { length: u8::try_from(bytes.len()).ok()?, bytes: [0; NAME_MAX] };
        name.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(name)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// The hash of a resource name: Bob Jenkins' public-domain lookup3 ("hashlittle"), initial value 0.
pub fn name_hash(name: &[u8]) -> u32 {
    // Names are at most 64 bytes; a longer slice wraps harmlessly.
    let start = 0xdead_beef_u32.wrapping_add(name.len() as u32);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = name;
    while rest.len() > 12 {
        let (head, tail) = rest.split_at(12);
        a = a.wrapping_add(word(head, 0));
        b = b.wrapping_add(word(head, 4));
        c = c.wrapping_add(word(head, 8));
        for (x, y, z, rotation) in
            [(0, 1, 2, 4), (1, 2, 0, 6), (2, 0, 1, 8), (0, 1, 2, 16), (1, 2, 0, 19), (2, 0, 1, 4)]
        {
            let mut v = [a, b, c];
            v[x] = v[x].wrapping_sub(v[z]) ^ v[z].rotate_left(rotation);
            v[z] = v[z].wrapping_add(v[y]);
            [a, b, c] = v;
        }
        rest = tail;
    }
    if rest.is_empty() {
        return c;
    }
    a = a.wrapping_add(word(rest, 0));
    b = b.wrapping_add(word(rest, 4));
    c = c.wrapping_add(word(rest, 8));
    for (x, y, rotation) in [(2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)] {
        let mut v = [a, b, c];
        v[x] = (v[x] ^ v[y]).wrapping_sub(v[y].rotate_left(rotation));
        [a, b, c] = v;
    }
    c
}

/// The little-endian word at `at`, zero-padded where the bytes end.
fn word(bytes: &[u8], at: usize) -> u32 {
    let byte = |i: usize| u32::from(bytes.get(at + i).copied().unwrap_or(0));
    byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
}

/// The global id of a lockspace: CRC-32 of `dlm:ls:NAME` and one NUL (dlm.md 3.3).
pub fn lockspace_id(name: &str) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(b"dlm:ls:");
    crc.update(name.as_bytes());
    crc.update(&[0]);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_kernels() {
        let vectors: [(&str, u32); 13] = [
            ("", 0xdead_beef),
            ("a", 0x58d6_8708),
            ("resB", 0xe2fb_5a39),
            ("resC", 0x486b_f73b),
            ("resG", 0x2b3e_40e9),
            ("resL", 0xaa6a_ac5a),
            ("r00", 0xe437_2e81),
            ("hello world!", 0x4b89_46db),
            ("hello world!!", 0xbdfd_2524),
            ("       1               4", 0x6ded_6295),
            ("       1               5", 0x3733_a7f2),
            ("       1               1", 0x08d2_42bc),
            ("       2            1b3a", 0x8104_e1f8),
        ];
        for (name, hash) in vectors {
            assert_eq!(name_hash(name.as_bytes()), hash, "{name:?}");
        }
    }

    #[test]
    fn lockspace_ids_are_the_daemons() {
        for (name, id) in
            [("t", 0x68a5_3196), ("fs0", 0x44fd_2812), ("clvmd", 0x4104_eefa), ("lvm_global", 0x12aa_bd2d)]
        {
            assert_eq!(lockspace_id(name), id, "{name}");
        }
    }

    #[test]
    fn names_have_a_limit() {
        assert_eq!(Name::new(&[7; 64]).map(|n| n.as_bytes().len()), Some(64));
        assert!(Name::new(&[7; 65]).is_none() && Name::new(&[7; 300]).is_none());
    }
}
