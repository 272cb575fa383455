//! The volume grows and gets journals while all nodes are at work: a round as any other, with an administrator beside it.

use crate::lab::{Lab, program};
use crate::round::{self, Plan};
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where one node's commands are given.
struct Desk {
    mnt: PathBuf,
    run: PathBuf,
}

impl Desk {
    fn order(&self, words: &[&str]) -> Result<String, String> {
        let out = Command::new("timeout")
            .args(["-s", "KILL", "60"])
            .arg(program("gfs2r"))
            .args(words)
            .arg(&self.mnt)
            .env("GFS2R_RUN_DIR", &self.run)
            .output()
            .map_err(|e| e.to_string())?;
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if out.status.success() { Ok(said) } else { Err(format!("gfs2r {words:?}: {}: {said}", out.status)) }
    }
}

/// A round on mounted nodes; what went wrong.
pub fn run(lab: &mut Lab, plan: Plan<'_>) -> Vec<String> {
    let desks: Vec<Desk> = lab.nodes.iter().map(|node| Desk { mnt: node.mnt(), run: node.dir.join("run") }).collect();
    let (image, over) = (lab.image(), AtomicBool::new(false));
    let pause = plan.length / 6;
    let administer = || {
        let mut gib = 2;
        for n in 0..4 {
            std::thread::sleep(pause);
            if over.load(Ordering::Acquire) {
                return Err("the round was over before the work was done".to_owned());
            }
            let desk = &desks[n % desks.len()];
            if n == 2 {
                print!("{}", desk.order(&["jadd", "-j", "1", "-J", "32"])?);
                continue;
            }
            gib += 1;
            File::options().write(true).open(&image).and_then(|f| f.set_len(gib << 30)).map_err(|e| e.to_string())?;
            print!("{}", desk.order(&["grow"])?);
        }
        // Every node sees all of it.
        std::thread::sleep(Duration::from_millis(200));
        for desk in &desks {
            if desk.order(&["grow", "-T"]).is_ok() {
                return Err(format!("{} does not know how large it is", desk.mnt.display()));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let administrator = scope.spawn(administer);
        let mut wrong = round::run(lab, plan);
        over.store(true, Ordering::Release);
        match administrator.join() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => wrong.push(e),
            Err(_) => wrong.push("the administrator panicked".into()),
        }
        wrong
    })
}
