//! gfs2r-fsck-checks(8): every finding, made from the list of issue kinds.

use gfs2r_fsck::{EXPLAINED, Severity};
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

const PAGE: &str = "gfs2r-fsck-checks.8";

/// After `--write-manual DIR` wrote the program's own page: this one as well.
pub(crate) fn also(code: ExitCode) -> ExitCode {
    let dir = std::env::args_os().nth(2).unwrap_or_else(|| ".".into());
    match write(Path::new(&dir)) {
        Ok(()) => code,
        Err(e) => {
            eprintln!("fsck.gfs2r: {}: {e}", Path::new(&dir).display());
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &Path) -> io::Result<()> {
    let dir = dir.join("man8");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(PAGE), page())
}

/// Text that roff leaves as it is.
fn plain(text: &str) -> String {
    let text = text.trim().replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn page() -> String {
    let mut page = String::from(
        ".TH gfs2r-fsck-checks 8 \"\" \"gfs2r\" \"GFS2 in userspace\"\n.SH NAME\ngfs2r-fsck-checks \\- what \
         fsck.gfs2r(8) finds\n.SH DESCRIPTION\nEvery finding has a code that does not change between versions. It \
         stands in brackets at the end of the line, and as\n.I code\nin the output of \\-\\-json. Words in braces stand \
         for what was found and expected.\n",
    );
    for (severity, title, what) in [
        (
            Severity::Error,
            "ERRORS",
            "A rule is broken: something is lost or unreachable, or the kernel would stumble over it.",
        ),
        (Severity::Warning, "WARNINGS", "A field that nobody trusts is wrong."),
        (
            Severity::Info,
            "INFORMATION",
            "Legal, and worth knowing; shown with \\-v. The exit status does not depend on it.",
        ),
    ] {
        page.push_str(&format!(".SH {title}\n{what}\n"));
        for (code, _, meaning, text) in EXPLAINED.iter().filter(|(_, of, ..)| *of == severity) {
            page.push_str(&format!(".TP\n.B {}\n{}\n.br\nReads:\n.I {}\n", plain(code), plain(meaning), plain(text)));
        }
    }
    page.push_str(
        ".SH REPAIR\nWith \\-y errors and warnings are repaired, in this order: what is wrong within a structure; names and \
         links, when all structures are sound; bitmaps and counters, when all names are. A file or directory without a name \
         gets one in lost+found: lost_file_N, lost_dir_N and so on, where N is its block. What is damaged beyond repair is \
         removed, and only that. Information is left as it is, but for deleted files that nobody has open: their space is \
         freed.\n",
    );
    page.push_str(".SH SEE ALSO\nfsck.gfs2r(8), gfs2r(8)\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained() {
        let page = page();
        for (code, _, meaning, _) in EXPLAINED {
            assert!(page.contains(&format!(".B {}\n", plain(code))), "{code}");
            assert!(!meaning.trim().is_empty(), "{code} has no explanation");
        }
    }
}
