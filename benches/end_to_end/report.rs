//! The table, and the samples as JSON.

use super::Args;
use super::measure::{Sample, Samples, Unit};
use super::targets::Kind;
use super::workloads;
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The samples of one row, by target.
type Row<'a> = BTreeMap<Kind, Vec<&'a Sample>>;

/// Rows in the table's order.
fn rows<'a>(samples: &'a Samples, only: &[String]) -> Vec<(&'static str, String, Unit, Row<'a>)> {
    let mut found: Vec<(&'static str, String, Unit, Row<'a>)> = Vec::new();
    for sample in samples.all.iter().filter(|s| workloads::wanted(only, s.suite, &s.row)) {
        let at = found.iter().position(|(suite, row, ..)| *suite == sample.suite && *row == sample.row);
        let at = at.unwrap_or_else(|| {
            found.push((sample.suite, sample.row.clone(), sample.unit, Row::new()));
            found.len() - 1
        });
        found[at].3.entry(sample.target).or_default().push(sample);
    }
    found.sort_by_key(|(suite, row, ..)| workloads::place(suite, row));
    found
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => None,
        n if n % 2 == 1 => values.get(n / 2).copied(),
        n => Some((values.get(n / 2 - 1)? + values.get(n / 2)?) / 2.0),
    }
}

/// The best of some rates.
fn best(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}

/// What the others are compared with: ourselves in a cluster, where that was measured.
fn base(row: &Row<'_>) -> Kind {
    if row.contains_key(&Kind::Dlm) { Kind::Dlm } else { Kind::Gfs2r }
}

/// How many times as fast gfs2r was in its best round as `other` in its own.
fn ratio_of_best(row: &Row<'_>, other: Kind) -> Option<f64> {
    let of = |kind| best(&row.get(&kind)?.iter().map(|s| s.rate).collect::<Vec<_>>());
    Some(of(base(row))? / of(other)?)
}

/// How many times as fast as `other` gfs2r was: the median of the rounds' ratios.
fn ratio(row: &Row<'_>, other: Kind) -> Option<f64> {
    let (ours, theirs) = (row.get(&base(row))?, row.get(&other)?);
    let of_round = |s: &&Sample| theirs.iter().find(|t| t.round == s.round).map(|t| s.rate / t.rate);
    median(ours.iter().filter_map(of_round).collect())
}

fn shown(unit: Unit, rate: f64) -> String {
    let value = if unit == Unit::Ms { 1000.0 / rate } else { rate };
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// Prints the table, or writes the samples, or both.
pub(crate) fn print(samples: &Samples, args: &Args) -> io::Result<()> {
    let rows = rows(samples, &args.only);
    let only_json = args.json.as_deref() == Some(Path::new("-"));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&as_json(&rows, samples, args)).map_err(io::Error::other)?;
        if only_json { println!("{text}") } else { std::fs::write(path, text)? }
    }
    if !only_json {
        table(&rows, args, false);
        if args.cpu {
            println!("\nprocessor time of the daemon, microseconds for each operation or MB");
            table(&rows, args, true);
        }
        for (suite, target) in &samples.failures {
            println!("FAILED: {suite} on {}", target.name());
        }
    }
    Ok(())
}

fn table(rows: &[(&'static str, String, Unit, Row<'_>)], args: &Args, cpu: bool) {
    let kinds: Vec<Kind> = {
        let mut kinds: Vec<Kind> = rows.iter().flat_map(|(.., row)| row.keys().copied()).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    };
    let base = if kinds.contains(&Kind::Dlm) { Kind::Dlm } else { Kind::Gfs2r };
    let others: Vec<Kind> = kinds.iter().copied().filter(|k| *k != base && !cpu).collect();
    let what = if cpu { String::new() } else { format!("   {} is ... times as fast as", base.name()) };
    println!("{:44} {:>4} {:width$}{what}", "", "", "", width = kinds.len() * 10);
    let scale = args.scale.map_or(String::new(), |scale| format!(", {scale} of the work"));
    let kept = if args.best { "best" } else { "medians" };
    print!("{:44} {:>4}", format!("{kept} of {} rounds{scale}", args.rounds), "");
    kinds.iter().for_each(|k| print!(" {:>9}", k.name()));
    print!("  ");
    others.iter().for_each(|k| print!(" {:>7}", k.name()));
    println!();
    let mut last = "";
    for (suite, name, unit, row) in rows {
        if *suite != last {
            println!("{suite}");
            last = suite;
        }
        print!("  {name:42} {:>4}", unit.name());
        for kind in &kinds {
            let of = |s: &Vec<&Sample>| {
                let values: Vec<f64> = s.iter().map(|s| if cpu { s.cpu * 1e6 } else { s.rate }).collect();
                match (args.best, cpu) {
                    (false, _) => median(values),
                    (true, false) => best(&values),
                    (true, true) => values.into_iter().min_by(f64::total_cmp),
                }
            };
            let unit = if cpu { Unit::Ops } else { *unit };
            print!(" {:>9}", row.get(kind).and_then(of).map_or(String::new(), |v| shown(unit, v)));
        }
        print!("  ");
        for kind in &others {
            let ratio = if args.best { ratio_of_best(row, *kind) } else { ratio(row, *kind) };
            print!(" {:>7}", ratio.map_or(String::new(), |r| format!("{r:.2}")));
        }
        println!();
    }
}

fn as_json(rows: &[(&'static str, String, Unit, Row<'_>)], samples: &Samples, args: &Args) -> serde_json::Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|(suite, name, unit, row)| {
            let targets: serde_json::Map<String, serde_json::Value> = row
                .iter()
                .map(|(kind, samples)| {
                    let rates: Vec<f64> = samples.iter().map(|s| s.rate).collect();
                    let cpu: Vec<f64> = samples.iter().map(|s| s.cpu).collect();
                    let value = json!({
                        "rates": rates, "median": median(rates.clone()), "daemon_cpu_seconds": median(cpu),
                        "gfs2r_is_faster_by": ratio(row, *kind), "best_by": ratio_of_best(row, *kind),
                    });
                    (kind.name().to_owned(), value)
                })
                .collect();
            json!({ "suite": suite, "row": name, "unit": unit.name(), "targets": targets })
        })
        .collect();
    let failed: Vec<_> = samples.failures.iter().map(|(suite, kind)| json!([suite, kind.name()])).collect();
    json!({ "rounds": args.rounds, "scale": args.scale, "rows": rows, "failed": failed })
}
