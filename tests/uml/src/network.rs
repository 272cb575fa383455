//! A network, mounts and processes of their own for a test that boots several guests: it becomes itself again inside, and all
//! of it is gone when the inner process has ended, in whatever way.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Set in the environment of the process inside.
const INSIDE: &str = "GFS2R_UML_NETWORK";

/// The bridge is this machine's own port; every guest has a tap.
const NETWORK: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
ip link add br0 type bridge forward_delay 0
ip addr add 10.98.77.254/24 dev br0
for node in 1 2 3 4; do ip tuntap add dev tap$node mode tap; ip link set tap$node master br0 up; done
ip link set br0 up
exec "$@"
"#;

/// The address of a guest.
pub fn guest_address(node: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 77, node as u8) // numbers 1 to 4
}

/// The tap device of a guest.
pub fn tap(node: u32) -> String {
    format!("tap{node}")
}

/// Where a node of ours on this machine has its address.
pub fn own_address(node: u32) -> Ipv4Addr {
    Ipv4Addr::new(127, 98, 77, node as u8) // small numbers
}

/// Says why there is nothing to be tested; a failure if there must be.
pub fn skip(what: &str, reason: &str) -> ExitCode {
    eprintln!("SKIPPED: {what}: {reason}. NOTHING WAS TESTED.");
    let required = std::env::var_os("GFS2R_UML_REQUIRED").is_some_and(|value| value == "1");
    if required { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// `None` when this process is inside already; otherwise what came of the process inside.
pub fn enter(what: &str) -> Option<ExitCode> {
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let Ok(program) = std::env::current_exe() else { return Some(skip(what, "this program does not know its path")) };
    let namespaces = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]).env(INSIDE, "1");
        command.args(["sh", "-c", NETWORK, "network"]);
        command
    };
    let reason = match namespaces().arg("true").output() {
        Ok(output) if output.status.success() => {
            format!("unshare: {}", namespaces().arg(program).args(std::env::args_os().skip(1)).exec())
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no reason given").to_string(),
        Err(error) => format!("unshare: {error}"),
    };
    Some(skip(what, &format!("no namespaces with bridge and tap devices: {reason}")))
}
