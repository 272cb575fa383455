//! The syntax of a POSIX ACL in its little-endian attribute form (ondisk.md 6.2, acl(5)).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Entry {
    tag: U16,
    perm: U16,
    id: U32,
}

const NO_ID: u32 = u32::MAX;

/// What is wrong with it, if anything.
pub(crate) fn fault(value: &[u8]) -> Option<&'static str> {
    let Ok((version, entries)) = U32::ref_from_prefix(value) else { return Some("shorter than its version") };
    if version.get() != 2 {
        return Some("version is not 2");
    }
    let Ok(entries) = <[Entry]>::ref_from_bytes(entries) else { return Some("a partial entry") };
    // Tags in the order in which they must come, each with the number of times it may.
    let mut last = 0;
    let (mut named, mut seen) = (false, [0u32; 6]);
    for entry in entries {
        let rank = match entry.tag.get() {
            0x01 => 0,
            0x02 => 1,
            0x04 => 2,
            0x08 => 3,
            0x10 => 4,
            0x20 => 5,
            _ => return Some("an unknown tag"),
        };
        let has_id = matches!(rank, 1 | 3);
        named |= has_id;
        if rank < last {
            return Some("entries out of order");
        }
        if has_id && entry.id.get() == NO_ID {
            return Some("a named entry without id");
        }
        if entry.perm.get() > 7 {
            return Some("unknown permission bits");
        }
        seen[rank] += 1;
        if !has_id && seen[rank] > 1 {
            return Some("an entry twice");
        }
        last = rank;
    }
    if [0, 2, 5].iter().any(|&rank| seen[rank] == 0) {
        return Some("owner, group or others missing");
    }
    (named && seen[4] == 0).then_some("named entries without a mask")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u8, u8, u32)]) -> Vec<u8> {
        let mut value = vec![2, 0, 0, 0];
        for &(tag, perm, id) in entries {
            value.extend([tag, 0, perm, 0, id as u8, (id >> 8) as u8, (id >> 16) as u8, (id >> 24) as u8]);
        }
        value
    }

    #[test]
    fn good_and_bad() {
        let good = [(1, 6, NO_ID), (2, 6, 1000), (4, 4, NO_ID), (0x10, 6, NO_ID), (0x20, 4, NO_ID)];
        assert_eq!(fault(&acl(&good)), None);
        assert!(fault(&acl(&good)[..20]).is_some(), "cut");
        for missing in [0, 2, 3, 4] {
            let mut bad = good.to_vec();
            bad.remove(missing);
            assert!(fault(&acl(&bad)).is_some(), "without entry {missing}");
        }
        let mut bad = good;
        bad.swap(1, 2);
        assert!(fault(&acl(&bad)).is_some(), "out of order");
        assert!(fault(&[3, 0, 0, 0]).is_some(), "version");
        assert!(fault(&[]).is_some(), "empty");
    }
}
