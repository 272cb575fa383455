//! The two checksums of GFS2 (ondisk.md 5.3, 8.2, C.1).

/// CRC-32 (zlib): directory hash, `lh_hash`, `rg_crc`.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Hash of a name in a directory.
pub fn dir_hash(name: &[u8]) -> crate::ids::DirHash {
    crate::ids::DirHash(crc32(name))
}

/// CRC-32C (Castagnoli) from 0xffffffff *without* the final inversion: `lh_crc`.
pub fn crc32c_raw(bytes: &[u8]) -> u32 {
    !crc32c::crc32c(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_specification() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32c_raw(b"123456789"), 0x1cf9_6d7c);
        assert_eq!(dir_hash(b"hello").0, 0x3610_a686);
        assert_eq!(dir_hash(&[b'x'; 255]).0, 0x3d66_e3d9);
    }
}
