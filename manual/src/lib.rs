//! Manual pages and shell completions, made from what the commands know of themselves.
//!
//! Each program calls [`on_request`] first. `PROGRAM --write-manual DIR`, which `make install` runs and no help mentions,
//! writes `DIR/man8/*.8`, `DIR/bash/*`, `DIR/zsh/*` and `DIR/fish/*`, and ends the program.

mod see_also;

use clap::Command;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// The request, as the first argument.
const REQUEST: &str = "--write-manual";
/// Administrator's commands.
const SECTION: &str = "8";
/// Of a command that does not say otherwise.
const EXIT_STATUS: &str = "  0 done; 1 failed; 2 wrong usage";
/// Where readers look for the usual sections; others come before them.
const ORDER: [&str; 4] = ["EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"];

/// Does what `--write-manual DIR` asks for; `None` when nobody asks.
pub fn on_request(command: impl FnOnce() -> Command) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != REQUEST {
        return None;
    }
    let dir = arguments.next().unwrap_or_else(|| OsString::from("."));
    let command = command();
    let name = command.get_name().to_owned();
    match write_all(command, Path::new(&dir)) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(e) => {
            eprintln!("{name}: {}: {e}", Path::new(&dir).display());
            Some(ExitCode::FAILURE)
        }
    }
}

/// Writes the pages and completions of `command` and its subcommands below `dir`.
pub fn write_all(mut command: Command, dir: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    command = command.bin_name(&name);
    for (shell, folder) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        fs::create_dir_all(dir.join(folder))?;
        generate_to(shell, &mut command, &name, dir.join(folder))?;
    }
    // bash-completion looks for a file of the command's own name.
    fs::rename(dir.join("bash").join(format!("{name}.bash")), dir.join("bash").join(&name))?;
    fs::create_dir_all(dir.join("man8"))?;
    command.build();
    pages(&command, &name, &dir.join("man8"))
}

/// A page for `command` (called `gfs2r-quota-set`) and one for each subcommand.
fn pages(command: &Command, page: &str, dir: &Path) -> io::Result<()> {
    let subcommands: Vec<_> =
        command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help").collect();
    let mut text = Vec::new();
    render(command, page, !subcommands.is_empty(), &mut text)?;
    fs::write(dir.join(format!("{page}.{SECTION}")), text)?;
    for sub in subcommands {
        pages(sub, &format!("{page}-{}", sub.get_name()), dir)?;
    }
    Ok(())
}

fn render(command: &Command, page: &str, has_subcommands: bool, out: &mut Vec<u8>) -> io::Result<()> {
    // The name must outlive the command: pages are few, and the program ends when they are written.
    let named = command.clone().name(String::leak(page.to_owned()) as &'static str).display_name(page);
    let man = Man::new(named);
    // Written here, because an empty date is to stay between the section and the source.
    writeln!(out, ".TH \"{page}\" {SECTION} \"\" \"gfs2r\" \"GFS2 in userspace\"")?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if has_subcommands {
        man.render_subcommands_section(out)?;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut parts = sections(&after);
    if !parts.iter().any(|(title, _)| title == "EXIT STATUS") {
        parts.push(("EXIT STATUS".into(), vec![EXIT_STATUS]));
    }
    if let Some(files) = see_also::files(page) {
        parts.push(("FILES".into(), files.to_vec()));
    }
    parts.sort_by_key(|(title, _)| ORDER.iter().position(|o| o == title).map_or(0, |n| n + 1));
    for (title, lines) in parts {
        verbatim(&title, &lines, out)?;
    }
    let mut see = Roff::new();
    see.control("SH", ["SEE ALSO"]);
    see.text([roman(see_also::pages(page).join(", "))]);
    see.to_writer(out)
}

/// The parts of a help text's end: a line that begins at the margin and ends with a colon is a title.
fn sections(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match (line.strip_suffix(':').filter(|l| !l.starts_with(' ') && !l.is_empty()), found.last_mut()) {
            (Some(title), _) => found.push((title.to_uppercase(), Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => found.push(("NOTES".into(), vec![line])),
        }
    }
    found
}

/// A section as it stands, in the shape that the help gave it.
fn verbatim(title: &str, lines: &[&str], out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, ".SH {title}\n.nf")?;
    let end = lines.iter().rposition(|l| !l.trim().is_empty()).map_or(0, |n| n + 1);
    for line in &lines[..end] {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A line that begins with a dot or an apostrophe would be an instruction.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        writeln!(out, "{guard}{line}")?;
    }
    writeln!(out, ".fi")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn pages_and_completions() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let sub = Command::new("set").about("Sets it").after_help("Examples:\n  tool.x set 1\n  .dot");
        let command =
            Command::new("tool.x").about("A tool").arg(Arg::new("json").long("json").num_args(0)).subcommand(sub);
        write_all(command, dir.path()).expect("written");
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(read("man8/tool.x.8").contains(".SH SYNOPSIS"));
        let page = read("man8/tool.x-set.8");
        let place = |of: &str| page.find(of).unwrap_or_else(|| panic!("no {of}: {page}"));
        assert!(place(".SH EXIT STATUS\n.nf\n  0 done") < place(".SH EXAMPLES\n.nf\n  tool.x set 1"), "{page}");
        assert!(place(".SH EXAMPLES") < place("SEE ALSO"), "{page}");
        assert!(read("bash/tool.x").contains("json") && read("zsh/_tool.x").contains("#compdef tool.x"));
        assert!(read("fish/tool.x.fish").contains("tool.x"));
    }

    #[test]
    fn a_help_text_has_parts() {
        let parts = sections("free text\n\nExit status:\n  0 good\n\nExamples:\n  one: two");
        let titles: Vec<_> = parts.iter().map(|(t, _)| t.as_str()).collect();
        assert_eq!(titles, ["NOTES", "EXIT STATUS", "EXAMPLES"]);
    }
}
