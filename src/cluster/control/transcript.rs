//! Plays `tests/control/*.txt` against the machine: a line at the margin is an event, the indented lines below it are what the
//! machine says. `REWRITE=1 cargo test control::transcript` writes what it says now into the files, for review as a diff.
//!
//! `granted N 1 4` is an answer with a value block of generation N in which journals 1 and 4 wait.

use super::{Ask, Control, ControlBlock, Effect, Event, Value};
use crate::glock::Lvb;
use crate::glock::transcript::check_all;

fn number(word: &str) -> u32 {
    word.parse().expect("a number")
}

fn block(words: &[&str]) -> Lvb {
    let [generation, jids @ ..] = words else { return Lvb::default() };
    let mut block = ControlBlock::clean(if *generation == "disabled" { u32::MAX } else { number(generation) });
    jids.iter().for_each(|jid| block.set_waits(number(jid), true));
    block.0
}

fn event(words: &[&str]) -> Event {
    match *words {
        ["prepare"] => Event::Prepare,
        ["failed", slot] => Event::SlotFailed(number(slot) as u16),
        ["done", our_slot, largest, generation] => Event::Done {
            our_slot: number(our_slot) as u16,
            largest: number(largest) as u16,
            generation: number(generation),
        },
        ["mount"] => Event::Mount,
        ["stop"] => Event::Stop,
        ["first-done"] => Event::FirstDone,
        ["granted", ref rest @ ..] => Event::Answer { granted: true, lvb: block(rest) },
        ["again"] => Event::Answer { granted: false, lvb: Lvb::default() },
        ["gone"] => Event::Gone,
        ["wake"] => Event::Wake,
        ["replayed", jid] => Event::Recovered { jid: number(jid), success: true },
        ["busy", jid] => Event::Recovered { jid: number(jid), success: false },
        ["remote-withdraw"] => Event::RemoteWithdraw,
        ["unmount"] => Event::Unmount,
        ["withdraw"] => Event::Withdraw,
        _ => panic!("no event {words:?}"),
    }
}

fn text(effect: Effect) -> String {
    match effect {
        Effect::Ask(Ask { which, mode, tries, value }) => {
            let tries = if tries { " no queue" } else { "" };
            let value = match value {
                Value::Skip => String::new(),
                Value::Fetch => " value".into(),
                Value::Write(lvb) => {
                    let block = ControlBlock(lvb);
                    let waiting: String = block.waiting().map(|jid| format!(" {jid}")).collect();
                    format!(" write {}{waiting}", block.generation())
                }
            };
            format!("{which:?} {mode:?}{tries}{value}")
        }
        Effect::WakeAfter(ms) => format!("wake after {ms}"),
        Effect::Mounted { first: true } => "mounted first".into(),
        Effect::Mounted { first: false } => "mounted".into(),
        Effect::Refused(why) => format!("refused: {why:?}"),
        Effect::Hold => "hold".into(),
        Effect::Release => "release".into(),
        Effect::Published => "published".into(),
        Effect::Recover(jid) => format!("replay {jid}"),
        Effect::RecoverOthers => "replay others".into(),
    }
}

fn play(script: &str) -> String {
    let mut machine = Control::new(false);
    let mut out = String::new();
    for line in script.lines().filter(|line| !line.starts_with("  ")) {
        out.push_str(line);
        out.push('\n');
        let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        match *words {
            [] => continue,
            ["node"] => machine = Control::new(false),
            ["spectator"] => machine = Control::new(true),
            _ => {
                for effect in machine.step(event(&words)) {
                    out.push_str(&format!("  {}\n", text(effect)));
                }
            }
        }
    }
    out
}

#[test]
fn transcripts() {
    check_all("control", 6, play);
}
