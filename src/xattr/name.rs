//! Names of attributes: prefix ↔ type (ondisk.md 6.1).

use crate::format::ea::EaType;

/// Stored names of the two attributes that are exposed under `system.`.
pub(super) const ACLS: [&[u8]; 2] = [b"posix_acl_access", b"posix_acl_default"];

/// Splits `user.x` into type and stored name; `None` for a prefix GFS2 does not know, and for names under `system.` other than
/// the two of the ACLs. The stored name may be empty or too long; `set` refuses that.
pub fn split_name(full: &[u8]) -> Option<(EaType, &[u8])> {
    let dot = full.iter().position(|&b| b == b'.')?;
    let (prefix, name) = (&full[..dot], &full[dot + 1..]);
    let kind = match prefix {
        b"user" => EaType::User,
        b"system" if ACLS.contains(&name) => EaType::System,
        b"security" => EaType::Security,
        b"trusted" => EaType::Trusted,
        _ => return None,
    };
    Some((kind, name))
}

/// The full name; `None` for what is not exposed.
pub(super) fn full_name(kind: EaType, name: &[u8]) -> Option<Vec<u8>> {
    let prefix: &[u8] = match kind {
        EaType::Unused => return None,
        EaType::User => b"user.",
        EaType::System if !ACLS.contains(&name) => return None,
        EaType::System => b"system.",
        EaType::Security => b"security.",
        EaType::Trusted => b"trusted.",
    };
    Some([prefix, name].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for full in [&b"user.a.b"[..], b"security.selinux", b"trusted.x", b"system.posix_acl_access"] {
            let (kind, name) = split_name(full).expect("known");
            assert_eq!(full_name(kind, name).as_deref(), Some(full));
        }
        for full in [&b"system.x"[..], b"users.x", b"user", b"", b".x"] {
            assert_eq!(split_name(full), None);
        }
        assert_eq!(full_name(EaType::System, b"x"), None);
    }
}
