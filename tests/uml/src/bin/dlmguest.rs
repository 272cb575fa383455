//! `dlmguest ADDRESS DEV`: hands the kernel's lock manager to a test; runs inside a guest.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, dev] = &arguments[..] else {
        eprintln!("usage: dlmguest ADDRESS DEV");
        return ExitCode::from(2);
    };
    match gfs2r_uml::dlm::agent::serve(address, Path::new(dev)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dlmguest: {error}");
            ExitCode::FAILURE
        }
    }
}
