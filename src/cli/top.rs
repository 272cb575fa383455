//! `gfs2r top`.

use super::table::columns;
use super::{Outcome, about, print, print_json};
use crate::mount::Mounted;
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Row, Table};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Show which locks the nodes of a cluster take from one another, and who waits for whom.
///
/// Hot: how often in a second other nodes wanted a lock that this one held, and this one had to wait. Waiting: what this node
/// wants and since when, who holds it (as far as this node knows: if it is the lock's master), and who the master is. A path
/// is the name under which this node last found the file. Keys: q ends.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gfs2r top
  gfs2r top --once /mnt/gfs2
  gfs2r top --json | jq '.mounts[].waiting[] | select(.since_ms > 1000)'")]
pub(super) struct Arguments {
    /// Mounted directories, or their devices or images; all cluster mounts of this host without one.
    mounts: Vec<PathBuf>,
    /// Look for one interval, print, and end; so it is when the output is no terminal.
    #[arg(long)]
    once: bool,
    /// The same, as JSON.
    #[arg(long)]
    json: bool,
    /// Seconds between looks.
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// Counts of the last look, by directory and lock.
type Counts = HashMap<(String, String), (u64, u64)>;

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let interval = Duration::from_secs(arguments.interval);
    let mut before = Counts::new();
    if arguments.json || arguments.once || !std::io::stdout().is_terminal() {
        look(arguments, &mut before, interval)?;
        std::thread::sleep(interval);
        let mounts = look(arguments, &mut before, interval)?;
        return if arguments.json { print_json("mounts", Value::Array(mounts)) } else { print(&text(&mounts)) };
    }
    look(arguments, &mut before, interval)?;
    let mut terminal = ratatui::try_init().map_err(|e| format!("the terminal: {e}"))?;
    let ended = watch(arguments, &mut terminal, &mut before, interval);
    ratatui::restore();
    ended.map(|()| ExitCode::SUCCESS)
}

/// All cluster mounts at this moment, with rates since the last look.
fn look(arguments: &Arguments, before: &mut Counts, interval: Duration) -> Result<Vec<Value>, String> {
    let found: Vec<Mounted> = if arguments.mounts.is_empty() {
        Mounted::all().map_err(|e| e.to_string())?
    } else {
        arguments.mounts.iter().map(|m| about(m, Mounted::find(m))).collect::<Result<_, _>>()?
    };
    let mut mounts = Vec::new();
    for mounted in &found {
        let answer = mounted.ask("top");
        match answer {
            Ok(Value::Null) if !arguments.mounts.is_empty() => {
                return Err(format!("{}: not a cluster mount (lock_dlm)", mounted.target().display()));
            }
            Ok(Value::Null) => {}
            Ok(mount) => mounts.push(mount),
            Err(e) if !arguments.mounts.is_empty() => return Err(format!("{}: {e}", mounted.target().display())),
            // It is coming or going.
            Err(_) => {}
        }
    }
    rate(&mut mounts, before, interval);
    Ok(mounts)
}

/// Puts rates beside the counts.
fn rate(mounts: &mut [Value], before: &mut Counts, interval: Duration) {
    let mut now = Counts::new();
    for mount in mounts {
        let directory = mount["directory"].as_str().unwrap_or("").to_owned();
        let Some(hot) = mount["hot"].as_array_mut() else { continue };
        for lock in hot.iter_mut() {
            let count = |name: &str| lock[name].as_u64().unwrap_or(0);
            let counts = (count("notices"), count("waits"));
            let key = (directory.clone(), lock["name"].as_str().unwrap_or("").to_owned());
            let old = before.get(&key).copied().unwrap_or(counts);
            let per_second = |new: u64, old: u64| new.saturating_sub(old) as f64 / interval.as_secs_f64();
            lock["notices_per_second"] = json!(per_second(counts.0, old.0));
            lock["waits_per_second"] = json!(per_second(counts.1, old.1));
            now.insert(key, counts);
        }
        let heat = |lock: &Value| {
            lock["notices_per_second"].as_f64().unwrap_or(0.0) + lock["waits_per_second"].as_f64().unwrap_or(0.0)
        };
        // Stable: what is as hot now stays in the order of all times.
        hot.sort_by(|a, b| heat(b).total_cmp(&heat(a)));
    }
    *before = now;
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

/// What is shown of a lock in demand, and of one that is waited for.
fn hot_row(lock: &Value) -> Vec<String> {
    let rate = |name: &str| format!("{:.1}", lock[name].as_f64().unwrap_or(0.0));
    vec![
        place(lock),
        string(&lock["name"]),
        rate("notices_per_second"),
        rate("waits_per_second"),
        lock["notices"].to_string(),
        lock["waits"].to_string(),
    ]
}
const HOT: [&str; 6] = ["HOT", "LOCK", "WANTED/S", "WAITS/S", "WANTED", "WAITS"];

fn waiting_row(lock: &Value) -> Vec<String> {
    let holders: Vec<String> = lock["holders"].as_array().into_iter().flatten().map(string).collect();
    let whom = match (lock["held_back"] == true, holders.is_empty(), lock["master"].as_str()) {
        (true, ..) => "a replay".to_owned(),
        (_, false, _) => holders.join(", "),
        (_, true, Some(master)) => format!("{master} knows"),
        (_, true, None) => "?".to_owned(),
    };
    let since = lock["since_ms"].as_u64().unwrap_or(0);
    vec![
        place(lock),
        string(&lock["name"]),
        if lock["held_back"] == true { String::new() } else { string(&lock["wants"]) },
        whom,
        format!("{}.{:01} s", since / 1000, since / 100 % 10),
    ]
}
const WAITING: [&str; 5] = ["WAITING", "LOCK", "WANTS", "FOR", "SINCE"];

/// The path, or what it is.
fn place(lock: &Value) -> String {
    match (lock["path"].as_str(), lock["kind"].as_str()) {
        (Some(path), Some("inode") | None) => path.to_owned(),
        (Some(path), Some(kind)) => format!("{path} ({kind})"),
        (None, kind) => kind.unwrap_or("?").to_owned(),
    }
}

fn title(mount: &Value) -> String {
    format!("{} on {}, node {}", string(&mount["lock_table"]), string(&mount["directory"]), string(&mount["node"]))
}

fn rows(mount: &Value, list: &str, head: &[&str], row: fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    let head = head.iter().map(|h| (*h).to_owned()).collect();
    std::iter::once(head).chain(mount[list].as_array().into_iter().flatten().map(row)).collect()
}

fn text(mounts: &[Value]) -> String {
    if mounts.is_empty() {
        return "no cluster mount\n".into();
    }
    let each = mounts.iter().map(|mount| {
        let (hot, waiting) = (rows(mount, "hot", &HOT, hot_row), rows(mount, "waiting", &WAITING, waiting_row));
        let waiting = if waiting.len() > 1 { columns(&waiting, 4) } else { "nothing is waited for\n".into() };
        format!("{}\n{}\n{waiting}", title(mount), columns(&hot, 2))
    });
    each.collect::<Vec<_>>().join("\n")
}

fn watch(
    arguments: &Arguments,
    terminal: &mut ratatui::DefaultTerminal,
    before: &mut Counts,
    interval: Duration,
) -> Result<(), String> {
    let io = |e: std::io::Error| format!("the terminal: {e}");
    let mut mounts = Vec::new();
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            next = Instant::now() + interval;
            mounts = look(arguments, before, interval)?;
        }
        terminal.draw(|frame| draw(frame, &mounts)).map_err(io)?;
        if !event::poll(next.saturating_duration_since(Instant::now())).map_err(io)? {
            continue;
        }
        if let Event::Key(key) = event::read().map_err(io)?
            && key.kind == KeyEventKind::Press
        {
            let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(());
            }
        }
    }
}

fn draw(frame: &mut ratatui::Frame<'_>, mounts: &[Value]) {
    if mounts.is_empty() {
        return frame.render_widget(Line::from("no cluster mount"), frame.area());
    }
    let areas = Layout::vertical(mounts.iter().map(|_| Constraint::Fill(1))).split(frame.area());
    for (mount, area) in mounts.iter().zip(areas.iter()) {
        let waiting = rows(mount, "waiting", &WAITING, waiting_row);
        let lines = u16::try_from(waiting.len()).unwrap_or(u16::MAX).min(area.height / 2);
        let halves = Layout::vertical([Constraint::Fill(1), Constraint::Length(lines)]).split(*area);
        let hot = rows(mount, "hot", &HOT, hot_row);
        let block = Block::new().title(title(mount).bold());
        frame.render_widget(
            table(
                &hot,
                &[
                    Constraint::Fill(1),
                    Constraint::Length(12),
                    Constraint::Length(9),
                    Constraint::Length(9),
                    Constraint::Length(8),
                    Constraint::Length(8),
                ],
            )
            .block(block),
            halves[0],
        );
        frame.render_widget(
            table(
                &waiting,
                &[
                    Constraint::Fill(1),
                    Constraint::Length(12),
                    Constraint::Length(6),
                    Constraint::Length(24),
                    Constraint::Length(10),
                ],
            ),
            halves[1],
        );
    }
}

fn table<'r>(rows: &'r [Vec<String>], widths: &[Constraint]) -> Table<'r> {
    let row = |cells: &'r Vec<String>| Row::new(cells.iter().map(String::as_str));
    let head = rows.first().map(row).unwrap_or_default().style(Style::new().reversed());
    Table::new(rows.iter().skip(1).map(row), widths.iter().copied()).header(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount() -> Value {
        json!({
            "directory": "/mnt/a", "lock_table": "c:v", "node": "ant",
            "hot": [
                { "name": "2/18", "kind": "inode", "path": "/d", "notices": 10, "waits": 10 },
                { "name": "3/11", "kind": "resource group", "path": null, "notices": 1, "waits": 0 },
            ],
            "waiting": [{
                "name": "2/18", "kind": "inode", "path": "/d", "wants": "EX", "since_ms": 1250, "held_back": false,
                "holders": ["bee EX"], "master": "ant",
            }],
        })
    }

    #[test]
    fn what_is_hot_now_comes_first() {
        let mut before = Counts::new();
        rate(&mut [mount()], &mut before, Duration::from_secs(2));
        let mut now = mount();
        now["hot"][1]["notices"] = json!(9);
        let mut now = [now];
        rate(&mut now, &mut before, Duration::from_secs(2));
        let text = text(&now);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "c:v on /mnt/a, node ant");
        assert!(lines[2].starts_with("resource group  3/11       4.0      0.0"), "{text}");
        assert!(lines[6].starts_with("/d       2/18  EX     bee EX") && lines[6].ends_with("1.2 s"), "{text}");
    }

    #[test]
    fn it_is_drawn() {
        let mut terminal = ratatui::Terminal::new(ratatui::backend::TestBackend::new(80, 12)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &[mount()])).expect("drawn");
        let seen = terminal.backend().to_string();
        assert!(seen.contains("c:v on /mnt/a") && seen.contains("resource group") && seen.contains("bee EX"), "{seen}");
        terminal.draw(|frame| draw(frame, &[])).expect("drawn");
    }
}
