//! Columns and sizes for people.

/// `1.5G`: three digits at most, as df -h prints.
pub(super) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1024 {
        return bytes.to_string();
    }
    let mut shift = 10;
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes >> shift >= 1024 {
        shift += 10;
        unit += 1;
    }
    let tenths = (u128::from(bytes) * 10).div_ceil(1 << shift);
    if tenths < 100 {
        format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{}{}", tenths.div_ceil(10), UNITS[unit])
    }
}

/// Rows as columns; `left` of them are text, the others numbers on the right.
pub(super) fn columns(rows: &[Vec<String>], left: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let line: Vec<String> =
            cells.map(|(n, (cell, &w))| if n < left { format!("{cell:<w$}") } else { format!("{cell:>w$}") }).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [(0, "0"), (1023, "1023"), (1024, "1.0K"), (10_240, "10K"), (1 << 30, "1.0G"), (u64::MAX, "16E")];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
        assert_eq!(columns(&[vec!["a".into(), "1".into()], vec!["bcd".into(), "22".into()]], 1), "a     1\nbcd  22\n");
    }
}
