//! `turns ADDRESS FILE`: does what it is told to one file, a letter at a time over TCP, and answers each with a letter: `k` done,
//! `e` an error. `a` appends 64 bytes, `s` asks for the size, `r` reads the first bytes, `q` those of another file that nobody changes, `f` fsyncs, `n` does nothing. For benches
//! in which nodes take turns; serves one connection.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

fn serve(address: &str, path: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("turns: ready");
    io::stdout().flush()?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    // One for each way: a file that is open for both may be mapped and changed, which makes reading it dearer.
    let mut file = File::options().create(true).append(true).open(path)?;
    let reader = File::open(path)?;
    // Nobody changes this one.
    let quiet = format!("{path}-quiet");
    if let Err(error) = File::create_new(&quiet).and_then(|mut quiet| quiet.write_all(&[b'q'; 64]))
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    let quiet = File::open(quiet)?;
    let (mut letter, mut buffer) = ([0], [0; 64]);
    while stream.read(&mut letter)? == 1 {
        let done = match letter[0] {
            b'a' => file.write_all(&[b'x'; 64]),
            b's' => reader.metadata().map(|_| ()),
            b'r' => reader.read_at(&mut buffer, 0).map(|_| ()),
            b'q' => quiet.read_at(&mut buffer, 0).map(|_| ()),
            b'f' => file.sync_all(),
            b'n' => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        if let Err(error) = &done {
            println!("turns: {error}");
        }
        stream.write_all(if done.is_ok() { b"k" } else { b"e" })?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path] = &arguments[..] else {
        eprintln!("usage: turns ADDRESS FILE");
        return ExitCode::from(2);
    };
    match serve(address, path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turns: {error}");
            ExitCode::FAILURE
        }
    }
}
