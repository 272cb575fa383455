//! `-o key=value,...`

use super::numbers::size;
use gfs2r::device::Topology;

/// The answer to `-o help`, and to an option that does not exist.
pub(crate) const HELP: &str = "\
Extended options:
           help  Display this help, then exit
       swidth=N  Specify the stripe width of the device, overriding probed values
        sunit=N  Specify the stripe unit of the device, overriding probed values
    align=[0|1]  Disable or enable alignment of resource groups
       format=N  Specify the format version number
root_inherit_jdata[=0|1]  New files below the root directory journal their data
test_topology=alignment_offset:logical:minimum_io:optimal_io:physical
                 Pretend that the device is like this (bytes)
";

/// Extended options.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extended {
    pub(crate) help: bool,
    pub(crate) sunit: Option<u64>,
    pub(crate) swidth: Option<u64>,
    pub(crate) no_align: bool,
    pub(crate) format: Option<u32>,
    pub(crate) root_inherit_jdata: bool,
    pub(crate) topology: Option<Topology>,
}

/// What is wrong with extended options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// No such option: the help is shown as well.
    Unknown(String),
    /// Anything else.
    Other(String),
}

impl Extended {
    /// Parses the values of all `-o` options; stops at `help`.
    pub(crate) fn parse(values: &[String]) -> Result<Self, Wrong> {
        let mut all = Self::default();
        for item in values.iter().flat_map(|value| value.split(',')) {
            if item.is_empty() {
                return Err(Wrong::Other("Missing argument to '-o' option".into()));
            }
            let (key, value) = match item.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (item, None),
            };
            all.set(key, value)?;
            if all.help {
                break;
            }
        }
        Ok(all)
    }
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), Wrong> {
        let missing = || Wrong::Other(format!("Missing argument to '{key}'"));
        let invalid = || Wrong::Other(format!("Value of '{key}' is invalid"));
        let bytes = || size(value.ok_or_else(missing)?, 1).ok_or_else(invalid);
        match key {
            "help" => self.help = true,
            "sunit" => self.sunit = Some(bytes()?),
            "swidth" => self.swidth = Some(bytes()?),
            "align" => match value.ok_or_else(missing)? {
                "0" => self.no_align = true,
                "1" => self.no_align = false,
                _ => return Err(Wrong::Other("Option 'align' must be either 1 or 0".into())),
            },
            "format" => match value.ok_or_else(missing)?.parse().map_err(|_| invalid())? {
                format @ 1801..=1802 => self.format = Some(format),
                format if format < 1801 => return Err(Wrong::Other(format!("Invalid filesystem format: {format}"))),
                _ => return Err(invalid()),
            },
            "root_inherit_jdata" => match value {
                None | Some("1") => self.root_inherit_jdata = true,
                Some("0") => self.root_inherit_jdata = false,
                _ => return Err(invalid()),
            },
            "test_topology" => self.topology = Some(topology(value.ok_or_else(missing)?)?),
            _ => return Err(Wrong::Unknown(format!("Invalid extended option (specified with -o): '{key}'"))),
        }
        Ok(())
    }
}

fn topology(text: &str) -> Result<Topology, Wrong> {
    let numbers: Result<Vec<u64>, _> = text.split(':').map(str::parse).collect();
    let numbers = numbers.map_err(|_| Wrong::Other("Value of 'test_topology' is invalid".into()))?;
    match numbers[..] {
        [alignment_offset, logical, minimum_io, optimal_io, physical] => {
            Ok(Topology { alignment_offset, logical, minimum_io, optimal_io, physical })
        }
        [_, _, _, _, _, _, ..] => Err(Wrong::Other("Too many topology values.".into())),
        _ => Err(Wrong::Other("Too few topology values.".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Extended, Wrong> {
        Extended::parse(&[text.to_owned()])
    }

    #[test]
    fn good_ones() {
        let all = parse("sunit=64k,swidth=262144,align=1,format=1801,root_inherit_jdata").expect("good");
        assert_eq!((all.sunit, all.swidth, all.format), (Some(65536), Some(262_144), Some(1801)));
        assert!(all.root_inherit_jdata && !all.no_align);
        assert!(parse("help,nonsense").expect("help comes first").help);
        let topology = parse("test_topology=0:512:65536:262144:4096").expect("good").topology.expect("given");
        assert_eq!((topology.minimum_io, topology.physical), (65536, 4096));
    }

    #[test]
    fn bad_ones_are_told_apart() {
        for (text, say) in [
            ("align=2", "Option 'align' must be either 1 or 0"),
            ("align", "Missing argument to 'align'"),
            ("sunit", "Missing argument to 'sunit'"),
            ("sunit=x", "Value of 'sunit' is invalid"),
            ("format=1800", "Invalid filesystem format: 1800"),
            ("format=1803", "Value of 'format' is invalid"),
            ("root_inherit_jdata=2", "Value of 'root_inherit_jdata' is invalid"),
            ("test_topology=1", "Too few topology values."),
            ("test_topology=0:512:0:0:512:4", "Too many topology values."),
            ("align=1,", "Missing argument to '-o' option"),
            ("", "Missing argument to '-o' option"),
        ] {
            assert_eq!(parse(text).expect_err(text), Wrong::Other(say.into()));
        }
        assert!(matches!(parse("foo=1"), Err(Wrong::Unknown(_))));
    }
}
