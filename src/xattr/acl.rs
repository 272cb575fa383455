//! POSIX ACLs (ondisk.md 6.2, acl(5), POSIX 1003.1e draft 17).
//!
//! To the rest of this chapter an ACL is a value; here it has a meaning. The value is little-endian, unlike everything else in
//! this filesystem: it is Linux's interchange format, kept as it came.

use crate::error::{Error, Result};

/// Version of the interchange format.
const VERSION: u32 = 2;
/// The id of entries that have none.
const NO_ID: u32 = u32::MAX;

/// Tags of entries.
pub mod tag {
    /// The file's owner.
    pub const USER_OBJ: u16 = 0x01;
    /// A named user.
    pub const USER: u16 = 0x02;
    /// The file's group.
    pub const GROUP_OBJ: u16 = 0x04;
    /// A named group.
    pub const GROUP: u16 = 0x08;
    /// Most that named users and any group can get.
    pub const MASK: u16 = 0x10;
    /// Everybody else.
    pub const OTHER: u16 = 0x20;
}

/// A parsed ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Entries in canonical order: (tag, perm, id).
    pub entries: Vec<(u16, u16, u32)>,
}

impl Acl {
    /// Parses and validates the xattr value (little-endian, version 2); `Invalid` otherwise. An empty value, or one without
    /// entries, is `None`.
    pub fn parse(value: &[u8]) -> Result<Option<Self>> {
        if value.is_empty() {
            return Ok(None);
        }
        let (version, rest) = value.split_first_chunk::<4>().ok_or(Error::Invalid)?;
        let (entries, tail) = rest.as_chunks::<8>();
        if little32(*version) != VERSION || !tail.is_empty() {
            return Err(Error::Invalid);
        }
        let entries: Vec<_> = entries.iter().map(|e| parse_entry(*e)).collect();
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Self { entries };
        if acl.is_valid() { Ok(Some(acl)) } else { Err(Error::Invalid) }
    }

    /// The xattr value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(4 + 8 * self.entries.len());
        push_little(&mut value, VERSION, 4);
        for &(tag, perm, id) in &self.entries {
            push_little(&mut value, u32::from(tag), 2);
            push_little(&mut value, u32::from(perm), 2);
            push_little(&mut value, id, 4);
        }
        value
    }

    /// Tags in order (one USER_OBJ, named users, one GROUP_OBJ, named groups, at most one MASK, one OTHER), permissions within
    /// rwx, and a MASK wherever somebody is named.
    fn is_valid(&self) -> bool {
        let (mut stage, mut named) = (0, false);
        for &(tag, perm, id) in &self.entries {
            // A tag may follow the stages named first; the stage after it is named last.
            stage = match (tag, stage) {
                (tag::USER_OBJ, 0) => 1,
                (tag::USER, 1) => 1,
                (tag::GROUP_OBJ, 1) => 2,
                (tag::GROUP, 2) => 2,
                (tag::MASK, 2) => 3,
                (tag::OTHER, 2) if !named => 4,
                (tag::OTHER, 3) => 4,
                _ => return false,
            };
            let is_named = tag == tag::USER || tag == tag::GROUP;
            if perm > 7 || (is_named && id == NO_ID) {
                return false;
            }
            named |= is_named;
        }
        stage == 4
    }

    fn perm(&self, wanted: u16) -> Option<u32> {
        self.entries.iter().find(|(tag, ..)| *tag == wanted).map(|&(_, perm, _)| u32::from(perm))
    }

    fn perm_mut(&mut self, wanted: u16) -> Option<&mut u16> {
        self.entries.iter_mut().find(|(tag, ..)| *tag == wanted).map(|(_, perm, _)| perm)
    }

    /// The tag whose permissions are the group bits of the mode.
    fn group_class(&self) -> u16 {
        if self.perm(tag::MASK).is_some() { tag::MASK } else { tag::GROUP_OBJ }
    }

    /// The permission bits it implies, if it says nothing beyond them (then it is not stored); else `None`.
    pub fn equivalent_mode(&self) -> Option<u32> {
        let plain = self.entries.iter().all(|(tag, ..)| matches!(*tag, tag::USER_OBJ | tag::GROUP_OBJ | tag::OTHER));
        plain.then(|| self.mode_bits())
    }

    /// The nine permission bits this access ACL shows in st_mode.
    pub fn mode_bits(&self) -> u32 {
        let class = |tag| self.perm(tag).unwrap_or(0);
        class(tag::USER_OBJ) << 6 | class(self.group_class()) << 3 | class(tag::OTHER)
    }

    /// This access ACL after chmod to `mode`.
    pub fn with_mode(&self, mode: u32) -> Self {
        let mut acl = self.clone();
        for (tag, shift) in [(tag::USER_OBJ, 6), (self.group_class(), 3), (tag::OTHER, 0)] {
            if let Some(perm) = acl.perm_mut(tag) {
                *perm = (mode >> shift & 7) as u16;
            }
        }
        acl
    }

    /// This default ACL applied to a new object created with `mode` (umask not applied): its mode, its access ACL if one
    /// must be stored. Bits of `mode` other than the nine stay as they are.
    pub fn inherit(&self, mode: u32) -> (u32, Option<Self>) {
        let mut acl = self.clone();
        for (tag, shift) in [(tag::USER_OBJ, 6), (self.group_class(), 3), (tag::OTHER, 0)] {
            if let Some(perm) = acl.perm_mut(tag) {
                *perm &= (mode >> shift & 7) as u16;
            }
        }
        let mode = mode & !0o777 | acl.mode_bits();
        let stored = acl.equivalent_mode().is_none().then_some(acl);
        (mode, stored)
    }
}

fn parse_entry(e: [u8; 8]) -> (u16, u16, u32) {
    let (tag, perm) = (u16::from(e[0]) | u16::from(e[1]) << 8, u16::from(e[2]) | u16::from(e[3]) << 8);
    let named = tag == tag::USER || tag == tag::GROUP;
    (tag, perm, if named { little32([e[4], e[5], e[6], e[7]]) } else { NO_ID })
}

fn little32(b: [u8; 4]) -> u32 {
    u32::from(b[0]) | u32::from(b[1]) << 8 | u32::from(b[2]) << 16 | u32::from(b[3]) << 24
}

fn push_little(to: &mut Vec<u8>, value: u32, bytes: usize) {
    to.extend((0..bytes).map(|i| (value >> (8 * i)) as u8));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl { entries: entries.to_vec() }
    }

    fn named(mask: u16) -> Acl {
        acl(&[(1, 7, NO_ID), (2, 6, 1000), (4, 5, NO_ID), (8, 4, 100), (0x10, mask, NO_ID), (0x20, 1, NO_ID)])
    }

    #[test]
    fn the_specifications_bytes() {
        let value =
            [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 0xe8, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255];
        let rest = [0x10, 0, 6, 0, 255, 255, 255, 255, 0x20, 0, 4, 0, 255, 255, 255, 255];
        let value = [&value[..], &rest].concat();
        let parsed = Acl::parse(&value).expect("valid").expect("not empty");
        assert_eq!(parsed.entries[1], (tag::USER, 6, 1000));
        assert_eq!((parsed.mode_bits(), parsed.equivalent_mode()), (0o664, None));
        assert_eq!(parsed.to_bytes(), value);
    }

    #[test]
    fn what_is_valid() {
        let cases: &[(&[(u16, u16, u32)], bool, &str)] = &[
            (&[(1, 7, 0), (4, 5, 0), (0x20, 5, 0)], true, "the minimum"),
            (&[(1, 7, 0), (4, 5, 0), (0x10, 5, 0), (0x20, 5, 0)], true, "a mask may stand alone"),
            (&[(1, 7, 0), (2, 5, 9), (4, 5, 0), (0x20, 5, 0)], false, "named user without mask"),
            (&[(1, 7, 0), (4, 5, 0), (8, 5, 9), (0x20, 5, 0)], false, "named group without mask"),
            (&[(1, 7, 0), (2, 5, 9), (4, 5, 0), (0x10, 1, 0), (0x20, 5, 0)], true, "named user with mask"),
            (&[(1, 7, 0), (2, 5, NO_ID), (4, 5, 0), (0x10, 1, 0), (0x20, 5, 0)], false, "named user without id"),
            (&[(1, 8, 0), (4, 5, 0), (0x20, 5, 0)], false, "permission beyond rwx"),
            (&[(4, 5, 0), (1, 7, 0), (0x20, 5, 0)], false, "out of order"),
            (&[(1, 7, 0), (1, 7, 0), (4, 5, 0), (0x20, 5, 0)], false, "two owners"),
            (&[(1, 7, 0), (4, 5, 0)], false, "nobody else"),
            (&[(1, 7, 0), (4, 5, 0), (0x20, 5, 0), (0x20, 5, 0)], false, "something behind OTHER"),
            (&[(1, 7, 0), (4, 5, 0), (0x40, 5, 0), (0x20, 5, 0)], false, "unknown tag"),
        ];
        for (entries, valid, why) in cases {
            assert_eq!(matches!(Acl::parse(&acl(entries).to_bytes()), Ok(Some(_))), *valid, "{why}");
        }
        assert!(matches!(Acl::parse(b""), Ok(None)));
        assert!(matches!(Acl::parse(&[2, 0, 0, 0]), Ok(None)));
        for bad in [&[3, 0, 0, 0][..], &[2, 0, 0], &[2, 0, 0, 0, 1]] {
            assert!(matches!(Acl::parse(bad), Err(Error::Invalid)), "{bad:?}");
        }
    }

    #[test]
    fn modes() {
        let plain = acl(&[(1, 6, NO_ID), (4, 4, NO_ID), (0x20, 0, NO_ID)]);
        assert_eq!(plain.equivalent_mode(), Some(0o640));
        assert_eq!(named(7).mode_bits(), 0o771);
        assert_eq!(named(2).mode_bits(), 0o721);
        // chmod changes the mask where there is one, the group's entry otherwise.
        assert_eq!(plain.with_mode(0o100751).entries, [(1, 7, NO_ID), (4, 5, NO_ID), (0x20, 1, NO_ID)]);
        let changed = named(7).with_mode(0o640);
        assert_eq!(
            (changed.perm(tag::MASK), changed.perm(tag::GROUP_OBJ), changed.mode_bits()),
            (Some(4), Some(5), 0o640)
        );
    }

    #[test]
    fn inheriting() {
        // (default ACL, mode asked for) → (mode, mask or group of the stored ACL).
        let plain = acl(&[(1, 7, NO_ID), (4, 5, NO_ID), (0x20, 0, NO_ID)]);
        assert_eq!(plain.inherit(0o100666), (0o100640, None));
        assert_eq!(plain.inherit(0o040777), (0o040750, None));
        let (mode, stored) = named(7).inherit(0o104644);
        assert_eq!(mode, 0o104640);
        let stored = stored.expect("names somebody");
        assert_eq!(
            (stored.perm(tag::MASK), stored.perm(tag::GROUP_OBJ), stored.perm(tag::USER)),
            (Some(4), Some(5), Some(6))
        );
        let masked = acl(&[(1, 7, NO_ID), (4, 7, NO_ID), (0x10, 5, NO_ID), (0x20, 5, NO_ID)]);
        assert_eq!(masked.inherit(0o777).0, 0o755);
        assert!(masked.inherit(0o777).1.is_some());
    }
}
