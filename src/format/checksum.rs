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
    const TABLES: [[u32; 256]; 8] = tables();
    let mut crc = u32::MAX;
    let mut chunks = bytes.chunks_exact(8);
    for c in &mut chunks {
        let low = crc ^ (u32::from(c[0]) | u32::from(c[1]) << 8 | u32::from(c[2]) << 16 | u32::from(c[3]) << 24);
        crc = TABLES[7][(low & 0xff) as usize]
            ^ TABLES[6][(low >> 8 & 0xff) as usize]
            ^ TABLES[5][(low >> 16 & 0xff) as usize]
            ^ TABLES[4][(low >> 24) as usize]
            ^ TABLES[3][usize::from(c[4])]
            ^ TABLES[2][usize::from(c[5])]
            ^ TABLES[1][usize::from(c[6])]
            ^ TABLES[0][usize::from(c[7])];
    }
    for &b in chunks.remainder() {
        crc = crc >> 8 ^ TABLES[0][((crc ^ u32::from(b)) & 0xff) as usize];
    }
    crc
}

const fn tables() -> [[u32; 256]; 8] {
    let mut t = [[0u32; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        t[0][i] = crc;
        i += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut i = 0;
        while i < 256 {
            let prev = t[k - 1][i];
            t[k][i] = prev >> 8 ^ t[0][(prev & 0xff) as usize];
            i += 1;
        }
        k += 1;
    }
    t
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
