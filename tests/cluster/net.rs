//! A network for the nodes: a namespace for each, joined by a bridge in a namespace of its own. Their mounts stay the machine's.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

pub struct Net {
    name: String,
    nodes: u32,
}

fn ip(args: &str) -> io::Result<()> {
    let out = Command::new("ip").args(args.split(' ')).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    if out.status.success() { Ok(()) } else { Err(io::Error::other(format!("ip {args}: {said}"))) }
}

impl Net {
    pub fn new(nodes: u32) -> io::Result<Self> {
        static SERIAL: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        let net = Self { name: format!("gc{}x{serial}", std::process::id()), nodes };
        let switch = net.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add bridge type bridge"))?;
        ip(&format!("-n {switch} link set bridge up"))?;
        for n in 1..=nodes {
            let space = net.space(n);
            ip(&format!("netns add {space}"))?;
            ip(&format!("-n {switch} link add port{n} type veth peer name eth0 netns {space}"))?;
            ip(&format!("-n {switch} link set port{n} master bridge up"))?;
            ip(&format!("-n {space} addr add {}/24 dev eth0", Self::address(n)))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(net)
    }

    fn switch(&self) -> String {
        format!("{}s", self.name)
    }

    fn space(&self, node: u32) -> String {
        format!("{}n{node}", self.name)
    }

    pub fn address(node: u32) -> String {
        format!("10.99.0.{node}")
    }

    /// A command that runs on the node's network, and on the machine's mounts.
    pub fn command(&self, node: u32, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.space(node))).arg("--").arg(program);
        command
    }

    /// Nothing reaches the node, nothing leaves it; nobody is told.
    pub fn cut(&self, node: u32) -> io::Result<()> {
        ip(&format!("-n {} link set port{node} nomaster", self.switch()))
    }

    pub fn heal(&self, node: u32) -> io::Result<()> {
        ip(&format!("-n {} link set port{node} master bridge", self.switch()))
    }

    /// What `from` sends to `to` is lost, and nobody is told; the other direction works.
    pub fn cut_way(&self, from: u32, to: u32) -> io::Result<()> {
        let (space, to) = (self.space(from), Self::address(to));
        // An address that no card has.
        ip(&format!("-n {space} neigh replace {to} lladdr 02:00:00:00:00:99 nud permanent dev eth0"))
    }

    pub fn heal_way(&self, from: u32, to: u32) -> io::Result<()> {
        ip(&format!("-n {} neigh del {} dev eth0", self.space(from), Self::address(to)))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let spaces = (1..=self.nodes).map(|n| self.space(n)).chain([self.switch()]);
        for space in spaces.filter(|s| Path::new("/run/netns").join(s).exists()) {
            if let Err(e) = ip(&format!("netns del {space}")) {
                eprintln!("{e}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_node_is_alone_until_it_is_healed() {
        if let Some(missing) = crate::lab::lacks() {
            eprintln!("SKIPPED: it needs {missing}. NOTHING WAS TESTED.");
            return;
        }
        let net = Net::new(2).expect("a network");
        let heard = |how: &str| {
            // Something that answers: a refused connection is an answer too.
            let script = format!(
                "import socket,sys\ns=socket.socket()\ns.settimeout({how})\ntry: s.connect(('{}',9))\nexcept \
                 ConnectionRefusedError: sys.exit(0)\nexcept OSError: sys.exit(1)",
                Net::address(2)
            );
            let python = net.command(1, Path::new("python3")).args(["-c", &script]).status();
            python.expect("python runs").success()
        };
        assert!(heard("5"));
        net.cut(2).expect("cut");
        assert!(!heard("0.5"));
        net.heal(2).expect("healed");
        assert!(heard("5"));
        net.cut_way(1, 2).expect("cut");
        assert!(!heard("0.5"));
        net.heal_way(1, 2).expect("healed");
        assert!(heard("5"));
        let name = net.name.clone();
        drop(net);
        let left = std::fs::read_dir("/run/netns").into_iter().flatten().filter_map(Result::ok);
        assert!(!left.map(|e| e.file_name()).any(|f| f.to_string_lossy().starts_with(&name)));
    }
}
