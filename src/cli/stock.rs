//! The names of the stock tools: when `gfs2r` is called `gfs2_grow`, `gfs2_jadd` or `tunegfs2`, it takes their command lines, says
//! what they say and ends with their statuses.

use super::{grow, jadd, tune};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// The command line of a stock tool.
pub(super) struct Stock {
    /// Its name.
    pub(super) name: &'static str,
    /// What `-h` prints.
    pub(super) usage: &'static str,
    /// Letters with a value.
    pub(super) with_value: &'static str,
    /// Letters without one.
    pub(super) without: &'static str,
}

/// What was on a command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Letters and values, in order; options without a value have an empty one.
    pub(super) given: Vec<(char, String)>,
    /// The rest.
    pub(super) operands: Vec<String>,
}

impl Options {
    pub(super) fn has(&self, letter: char) -> bool {
        self.given.iter().any(|(l, _)| *l == letter)
    }
    /// The value given last.
    pub(super) fn value(&self, letter: char) -> Option<&str> {
        self.given.iter().rev().find(|(l, _)| *l == letter).map(|(_, value)| value.as_str())
    }
}

impl Stock {
    /// As getopt(3) does; what it says when something is wrong. A name that is not UTF-8 is refused.
    pub(super) fn parse(&self, words: impl IntoIterator<Item = OsString>) -> Result<Options, String> {
        let mut options = Options::default();
        let mut words =
            words.into_iter().map(|w| w.into_string().map_err(|w| format!("{}: not text: {}", self.name, w.display())));
        let mut only_operands = false;
        while let Some(word) = words.next() {
            let word = word?;
            if only_operands || !word.starts_with('-') || word == "-" {
                options.operands.push(word);
                continue;
            }
            if word == "--" {
                only_operands = true;
                continue;
            }
            let mut letters = word[1..].chars();
            while let Some(letter) = letters.next() {
                if self.without.contains(letter) {
                    options.given.push((letter, String::new()));
                } else if self.with_value.contains(letter) {
                    let rest: String = letters.by_ref().collect();
                    let value = if rest.is_empty() { words.next().transpose()? } else { Some(rest) };
                    let value =
                        value.ok_or_else(|| format!("{}: option requires an argument -- '{letter}'", self.name))?;
                    options.given.push((letter, value));
                } else {
                    return Err(format!("{}: invalid option -- '{letter}'", self.name));
                }
            }
        }
        Ok(options)
    }
}

/// `-h` and `-V`.
pub(super) fn told(stock: &Stock, given: &[(char, String)]) -> Option<ExitCode> {
    let letter = given.iter().map(|(letter, _)| *letter).find(|letter| "hV".contains(*letter))?;
    if letter == 'h' {
        print!("{}", stock.usage);
    } else {
        println!("{} (gfs2r) {}", stock.name, crate::mount::VERSION);
    }
    Some(ExitCode::SUCCESS)
}

/// The stock tool whose name the program was called by, run.
pub(super) fn dispatch() -> Option<ExitCode> {
    let called = std::env::args_os().next()?;
    match Path::new(&called).file_name()?.to_str()? {
        "gfs2_grow" => Some(grow::stock()),
        "gfs2_jadd" => Some(jadd::stock()),
        "tunegfs2" => Some(tune::stock()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_as_with_getopt() {
        let stock = Stock { name: "x", usage: "", with_value: "jJ", without: "qT" };
        let parse = |words: &[&str]| stock.parse(words.iter().map(OsString::from));
        let options = parse(&["-qT", "-j3", "dev", "-J", "64", "--", "-q"]).expect("good");
        assert!(options.has('q') && options.has('T') && !options.has('x'));
        assert_eq!((options.value('j'), options.value('J')), (Some("3"), Some("64")));
        assert_eq!(options.operands, ["dev", "-q"]);
        assert_eq!(parse(&["-x"]), Err("x: invalid option -- 'x'".into()));
        assert_eq!(parse(&["-qj"]), Err("x: option requires an argument -- 'j'".into()));
    }
}
