//! Numbers with k, M, G and T.

/// The number at the start of `text` and its unit as a power of 1024; `None` when it is no such thing.
fn parse(text: &str) -> Option<(u64, Option<u32>)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..digits].parse().ok()?;
    let unit = match text[digits..].to_ascii_lowercase().as_str() {
        "" => None,
        "k" | "kb" | "kib" => Some(1),
        "m" | "mb" | "mib" => Some(2),
        "g" | "gb" | "gib" => Some(3),
        "t" | "tb" | "tib" => Some(4),
        _ => return None,
    };
    Some((number, unit))
}

/// A size in units of `unit` bytes, or in bytes when it has a suffix; must be whole units then.
pub(crate) fn size(text: &str, unit: u64) -> Option<u64> {
    let (number, suffix) = parse(text)?;
    let Some(power) = suffix else { return Some(number) };
    let bytes = number.checked_mul(1024u64.pow(power))?;
    bytes.is_multiple_of(unit).then(|| bytes / unit)
}

/// A size in MiB within a range; 0 when it is none, which no range contains.
pub(crate) fn mebibytes(text: &str) -> u32 {
    size(text, 1 << 20).and_then(|mib| u32::try_from(mib).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_mean_bytes() {
        assert_eq!(size("4096", 1), Some(4096));
        assert_eq!(size("4k", 1), Some(4096));
        assert_eq!(size("2G", 4096), Some(524_288));
        assert_eq!((mebibytes("32"), mebibytes("1g"), mebibytes("8192K"), mebibytes("64MiB")), (32, 1024, 8, 64));
        for bad in ["", "x", "-1", "1.5M", "4097k", "8x", "0x10", "99999999999999999999", "16777216T", "1 M"] {
            assert_eq!(mebibytes(bad), 0, "{bad}");
        }
    }
}
