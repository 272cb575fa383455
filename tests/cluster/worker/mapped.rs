//! Reading through a mapping that stays: there is no mmap in safe Rust, so a Python at our side does it.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const SCRIPT: &str = "
import mmap, os, sys
maps = {}
for line in sys.stdin:
    path, at = line.rstrip('\\n').rsplit(' ', 1)
    if path not in maps:
        fd = os.open(path, os.O_RDONLY)
        maps[path] = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        os.close(fd)
    at = int(at)
    print(maps[path][at:at + 64].hex(), flush=True)
";

#[derive(Default)]
pub(super) struct Mapped(Option<(Child, ChildStdin, BufReader<ChildStdout>)>);

impl Mapped {
    pub(super) fn read(&mut self, path: &Path, at: u64) -> io::Result<Vec<u8>> {
        if self.0.is_none() {
            let mut child = Command::new("python3")
                .args(["-c", SCRIPT])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?;
            let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(io::Error::other("no pipes"));
            };
            self.0 = Some((child, input, BufReader::new(output)));
        }
        let Some((_, input, output)) = &mut self.0 else { return Err(io::Error::other("no reader")) };
        writeln!(input, "{} {at}", path.display())?;
        let mut line = String::new();
        if output.read_line(&mut line)? == 0 {
            return Err(io::Error::other("the reader of mappings is gone"));
        }
        let digits = line.trim().as_bytes();
        digits.chunks(2).map(|pair| byte(pair).ok_or_else(|| io::Error::other(line.trim().to_owned()))).collect()
    }
}

fn byte(pair: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if let Some((mut child, input, _)) = self.0.take() {
            drop(input);
            // It ends with its input.
            let _status = child.wait();
        }
    }
}
