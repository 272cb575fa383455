//! mkfs.gfs2r against the stock mkfs.gfs2: the same options must give the same filesystem, block for block, and the same
//! refusals. Skips, loudly, where the stock tools are missing.
//!
//! What cannot be equal is masked: times, and the bytes that the stock tool leaves uninitialised in rindex entries.
//! Where the journals' sequences start is read from the stock image and given to ours.

mod common;

use common::{Case, Rng, both, compare, stock_is_there};

/// Repeat a failure with `GFS2R_SEED=n`; `GFS2R_CASES=n` runs more or fewer.
#[test]
fn random_options_give_equal_filesystems() {
    if !stock_is_there() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("GFS2R_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20 | 0x9e37);
    let cases = number("GFS2R_CASES").unwrap_or(200);
    println!("GFS2R_SEED={seed}");
    let mut rng = Rng(seed);
    let mut failed = Vec::new();
    for n in 0..cases {
        let case = Case::random(&mut rng);
        let differences = compare(&case);
        if !differences.is_empty() {
            println!("case {n}: {}\n  {}", case.command(), differences.join("\n  "));
            failed.push(n);
        }
    }
    assert!(failed.is_empty(), "seed {seed}: {} of {cases} filesystems differ: {failed:?}", failed.len());
}

/// Options that both must refuse, with the same words and the same exit status.
#[test]
fn refusals_are_the_same() {
    if !stock_is_there() {
        return;
    }
    let long = |c: &str, n: usize| c.repeat(n);
    let tables = [
        String::new(),
        "a".into(),
        ":".into(),
        ":b".into(),
        "a:".into(),
        "a:b:c".into(),
        "a*:b".into(),
        "a b:c".into(),
        "a:b:*".into(),
        "a.b:c".into(),
        long("c", 33) + ":b",
        String::from("a:") + &long("n", 31),
    ];
    let mut cases: Vec<Vec<&str>> = tables.iter().map(|table| vec!["-t", table, "DEV"]).collect();
    cases.extend([
        vec!["-b", "1000", "DEV"],
        vec!["-b", "256", "DEV"],
        vec!["-b", "8192", "DEV"],
        vec!["-b", "x", "DEV"],
        vec!["-b", "-4096", "DEV"],
        vec!["-c", "0", "DEV"],
        vec!["-c", "65", "DEV"],
        vec!["-J", "7", "DEV"],
        vec!["-J", "1025", "DEV"],
        vec!["-J", "x", "DEV"],
        vec!["-J", "", "DEV"],
        vec!["-J", "99999999999999999999", "DEV"],
        vec!["-j", "0", "DEV"],
        vec!["-j", "-1", "DEV"],
        vec!["-j", "x", "DEV"],
        vec!["-j", "100", "DEV"],
        vec!["-j", "99999999999", "DEV"],
        vec!["-r", "31", "DEV"],
        vec!["-r", "2049", "DEV"],
        vec!["-o", "sunit=4096", "DEV"],
        vec!["-o", "swidth=4096", "DEV"],
        vec!["-o", "sunit=4097,swidth=8192", "DEV"],
        vec!["-o", "sunit=4096,swidth=5000", "DEV"],
        vec!["-o", "sunit=x,swidth=0", "DEV"],
        vec!["-o", "sunit", "DEV"],
        vec!["-o", "align=2", "DEV"],
        vec!["-o", "format=1800", "DEV"],
        vec!["-o", "format=1803", "DEV"],
        vec!["-o", "root_inherit_jdata=2", "DEV"],
        vec!["-o", "test_topology=1", "DEV"],
        vec!["-o", "test_topology=0:512:0:0:512:4", "DEV"],
        vec!["-o", "test_topology=0:x:0:0:512", "DEV"],
        vec!["-o", "test_topology=0:4096:4096:4096:4096", "-b", "512", "DEV"],
        vec!["-o", "align=1,", "DEV"],
        vec!["-o", ",align=1", "DEV"],
        vec!["-p", "foo", "DEV"],
        vec!["-p", "lock_dlm", "DEV"],
        vec!["-p", "lock_gulm", "DEV"],
        vec!["-U", "foo", "DEV"],
        vec!["-U", "11111111222233334444555555555555", "DEV"],
        vec!["DEV", "0"],
        vec!["DEV", "x"],
        vec!["DEV", "100"],
        vec!["DEV", "16385"],
        vec!["DEV", "5", "6"],
        vec![],
        vec!["-J", "9", "-j", "4", "DEV"],
        vec!["-J", "1024", "DEV"],
        vec!["-J", "33", "DEV"],
        vec!["/does/not/exist"],
        vec!["/tmp"],
        vec!["/dev/null"],
        // Several mistakes at once: the same one is found first.
        vec!["-b", "7", "-j", "-1", "-c", "0", "-J", "0", "-r", "0", "-p", "z", "-t", "*", "DEV"],
        vec!["-b", "7", "-j", "-1", "-c", "0", "-J", "0", "-r", "0", "DEV"],
        vec!["-b", "7", "-j", "0", "-c", "0", "-J", "0", "DEV"],
        vec!["-b", "7", "-c", "0", "-J", "0", "DEV"],
        vec!["-b", "7", "-c", "0", "-o", "sunit=4096", "DEV"],
        vec!["-b", "7", "-o", "sunit=4096", "DEV"],
        vec!["-b", "7", "-U", "z", "DEV"],
        vec!["-b", "7", "/does/not/exist"],
        vec!["-r", "0", "-c", "0"],
        vec!["-U", "z", "DEV", "999999"],
        vec!["-o", "sunit=1000,swidth=4096", "DEV", "999999"],
        vec!["-o", "sunit=1000,swidth=4096", "-J", "1000", "DEV"],
        vec!["-o", "format=1800", "-p", "z", "DEV"],
        vec!["-b"],
        vec!["-Z", "DEV"],
    ]);
    let mut failed = Vec::new();
    for case in &cases {
        // The lock protocol comes first, so that a case may replace it.
        let [stock, ours] = both(64 << 20, case);
        if stock != ours || stock.0 == Some(0) {
            failed.push(format!("{case:?}:\n  stock {stock:?}\n  ours  {ours:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What is said on the way to a success, with the answers to the question.
#[test]
fn conversations_are_the_same() {
    if !stock_is_there() {
        return;
    }
    for case in [
        vec!["-O", "-U", common::UUID, "DEV"],
        vec!["-O", "-q", "DEV"],
        vec!["-O", "-D", "-K", "-U", common::UUID, "-o", "sunit=8192,swidth=16384", "DEV"],
        vec!["-O", "-U", common::UUID, "-p", "lock_dlm", "-t", "a:b", "-j", "2", "-J", "8", "DEV", "9999"],
        vec!["-O", "-U", common::UUID, "-o", "test_topology=0:512:4096:0:4096", "-b", "512", "DEV"],
        vec!["-O", "-U", common::UUID, "-o", "test_topology=512:512:65536:262144:4096", "DEV"],
        vec!["-O", "-U", common::UUID, "LINK"],
        vec!["-U", common::UUID, "DEV"],
        vec!["DEV", "<n"],
        vec!["DEV", "<no idea\n"],
    ] {
        let [stock, ours] = both(64 << 20, &case);
        assert_eq!(stock, ours, "{case:?}");
    }
}

/// One case, by hand: `GFS2R_CASE="size_mib -b 512 -j 3" cargo test … -- --ignored one_case --nocapture`.
#[test]
#[ignore = "for a look at a single case"]
fn one_case() {
    let text = std::env::var("GFS2R_CASE").expect("GFS2R_CASE=\"size_mib options…\"");
    let case = Case::parse(&text);
    let differences = compare(&case);
    println!("{}\n  {}", case.command(), differences.join("\n  "));
    assert!(differences.is_empty());
}
