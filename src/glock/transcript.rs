//! Plays `tests/glock/*.txt` against the machine: a line at the margin is an event, the indented lines below it are what the
//! machine says. `REWRITE=1 cargo test transcripts` writes what it says now into the files, for review as a diff.

use super::machine::{Effect, Event, HOLD_MAX, Machine, Millis, Refusal, Reply};
use super::mode::LockState;
use super::queue::{Entry, Ticket, Waiter};

fn state(word: &str) -> LockState {
    match word {
        "UN" => LockState::Unlocked,
        "SH" => LockState::Shared,
        "DF" => LockState::Deferred,
        "EX" => LockState::Exclusive,
        other => panic!("no state {other}"),
    }
}

fn event(words: &[&str]) -> Event {
    let ticket = |w: &str| Ticket(w.parse().expect("a ticket number"));
    match *words {
        ["want", t, s] => {
            Event::Want(Waiter { ticket: ticket(t), wants: state(s), tries: false, entry: Entry::Ordinary })
        }
        ["fill", t, s] => Event::Want(Waiter { ticket: ticket(t), wants: state(s), tries: false, entry: Entry::Fill }),
        ["write-back", t] => Event::Want(Waiter {
            ticket: ticket(t),
            wants: LockState::Exclusive,
            tries: false,
            entry: Entry::WriteBack,
        }),
        ["try", t, s] => {
            Event::Want(Waiter { ticket: ticket(t), wants: state(s), tries: true, entry: Entry::Ordinary })
        }
        ["release"] => Event::Released,
        ["abandon", t] => Event::Abandon { ticket: ticket(t), cancel: false },
        ["cancel", t] => Event::Abandon { ticket: ticket(t), cancel: true },
        ["reply", "granted"] => Event::Replied(Reply::Granted),
        ["reply", "refused"] => Event::Replied(Reply::Refused),
        ["reply", "deadlock"] => Event::Replied(Reply::Deadlock),
        ["reply", "failed"] => Event::Replied(Reply::Failed),
        ["blocking", s] => Event::Blocking { ceiling: state(s) },
        ["unneeded"] => Event::Unneeded,
        ["tick"] => Event::Tick,
        ["drained"] => Event::Drained(true),
        ["drain-failed"] => Event::Drained(false),
        ["synced"] => Event::Synced(true),
        ["sync-failed"] => Event::Synced(false),
        ["invalidated"] => Event::Invalidated,
        _ => panic!("no event {words:?}"),
    }
}

fn text(effect: Effect) -> String {
    match effect {
        Effect::Grant(t) => format!("grant {}", t.0),
        Effect::Refuse(t, why) => {
            let why = match why {
                Refusal::WouldWait => "would wait",
                Refusal::Failed => "failed",
                Refusal::Withdrawn => "withdrawn",
            };
            format!("refuse {} {why}", t.0)
        }
        Effect::Drain(to) => format!("drain {to}"),
        Effect::Sync => "sync".into(),
        Effect::Invalidate => "invalidate".into(),
        Effect::Ask { from, to, tries } => format!("ask {from}->{to}{}", if tries { " no queue" } else { "" }),
        Effect::Cancel => "cancel".into(),
        Effect::WakeAt(at) => format!("wake at {at}"),
        Effect::Withdraw => "withdraw".into(),
    }
}

fn play(script: &str) -> String {
    let mut machine = Machine::new(0, false, false);
    let mut now: Millis = 0;
    let mut out = String::new();
    for line in script.lines() {
        if line.starts_with("  ") {
            continue;
        }
        out.push_str(line);
        out.push('\n');
        let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        match *words {
            [] => continue,
            ["glock", kind] => {
                machine = Machine::new(if kind == "inode" { HOLD_MAX } else { 0 }, kind == "drained", kind == "exact");
                now = 0;
                continue;
            }
            ["at", ms] => {
                now = ms.parse().expect("milliseconds");
                continue;
            }
            _ => {}
        }
        let before = (machine.state, machine.held.1);
        for effect in machine.step(event(&words), now) {
            out.push_str(&format!("  {}\n", text(effect)));
        }
        assert!(
            before.1 == 0 || machine.held.1 == 0 || machine.state == before.0,
            "{line}: the state changed under a holder"
        );
        let quiet = if machine.is_quiet() { " quiet" } else { "" };
        let held =
            if machine.held.1 > 0 { format!(" held {}x{}", machine.held.0, machine.held.1) } else { String::new() };
        out.push_str(&format!("  = {}{held}{quiet}\n", machine.state));
    }
    out
}

/// Plays every `.txt` below `tests/FOLDER`, of which there are at least `least`; with REWRITE set, writes what is said now.
pub(crate) fn check_all(folder: &str, least: usize, play: impl Fn(&str) -> String) {
    let dir = format!("{}/tests/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{dir}: {e}")) {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|e| e != "txt") {
            continue;
        }
        seen += 1;
        let script = std::fs::read_to_string(&path).expect("readable");
        let now = play(&script);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, now).expect("writable");
        } else {
            assert_eq!(script, now, "{}", path.display());
        }
    }
    assert!(seen >= least, "only {seen} transcripts found");
}

#[test]
fn transcripts() {
    check_all("glock", 5, play);
}
