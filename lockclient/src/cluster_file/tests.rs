use super::*;
use std::path::Path;

const GOOD: &str = r#"
name = "tcluster"
token_ms = 800
[[node]]
id = 2
name = "node2.example.org"
address = "127.0.0.12:4000"
[node.fence]
agent = "fence_x"
ip = "192.0.2.1"
port = 7
verbose = true
[[node]]
id = 1
name = "node1"
address = "127.0.0.11"
[node.fence]
agent = "/usr/sbin/fence_y"
"#;

fn parse(text: &str) -> Result<ClusterFile, Vec<String>> {
    match ClusterFile::parse(text, Path::new("/etc/c.toml")) {
        Ok(file) => Ok(file),
        Err(ClusterFileError::Mistakes(mistakes)) => Err(mistakes),
        Err(other) => panic!("{other}"),
    }
}

/// The one mistake that a change of the good file makes.
fn mistake(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is in the file");
    let mistakes = parse(&GOOD.replace(from, to)).expect_err(to);
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(!mistakes[0].contains('\n') && mistakes[0].ends_with(')'), "a line with a hint: {:?}", mistakes[0]);
    mistakes[0].clone()
}

fn says(from: &str, to: &str, line: u32, what: &str) {
    let mistake = mistake(from, to);
    assert!(mistake.starts_with(&format!("/etc/c.toml:{line}: ")) && mistake.contains(what), "{mistake}");
}

#[test]
fn a_good_file_is_understood() {
    let file = parse(GOOD).expect("good");
    assert_eq!((file.name.as_str(), file.token_ms, file.startup_ms), ("tcluster", 800, 4000));
    let [one, two] = &file.nodes[..] else { panic!("two, by id") };
    assert_eq!((one.id, one.address), (NodeId(1), "127.0.0.11:21064".parse().expect("address")));
    assert_eq!(two.address, "127.0.0.12:4000".parse().expect("address"));
    let options: Vec<(&str, &str)> =
        two.fence.as_ref().expect("fence").options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(options, [("ip", "192.0.2.1"), ("port", "7"), ("verbose", "1")]);
    let config = file.start(Some("node1")).expect("start");
    assert_eq!((config.node, config.address), (NodeId(1), one.address));
    assert_eq!(config.peers, [(NodeId(2), two.address)].into());
    assert_eq!(config.fence[&NodeId(2)].agent, "fence_x");
    assert!(config.tls.is_none());
    assert!(file.expect_cluster("tcluster").is_ok() && file.expect_cluster("other").is_err());
}

#[test]
fn nodes_are_found_by_host_name() {
    let file = parse(GOOD).expect("good");
    let id = |host: &str| file.node_of_host(host).map(|node| node.id.0);
    assert_eq!((id("node1"), id("node1.example.org")), (Some(1), Some(1)));
    assert_eq!((id("node2"), id("node2.example.org"), id("node2.example.net")), (Some(2), Some(2), None));
    assert_eq!((id("node3"), id("")), (None, None));
    let error = file.node(Some("node3")).expect_err("absent").to_string();
    assert_eq!(
        error,
        "/etc/c.toml: no node is called \"node3\"; there are node1, node2.example.org (add it, or choose with node=NAME)"
    );
}

#[test]
fn each_mistake_is_one_line_that_says_what_to_do() {
    says("token_ms = 800", "token_ms = 199", 3, "out of bounds");
    says("token_ms = 800", "token_ms = 800\nbogus = 1", 4, "unknown field `bogus`");
    says("id = 1", "id = 1\nweight = 3", 15, "unknown field `weight`");
    says("id = 1", "id = 0", 14, "id = 0");
    says("id = 1", "id = -1", 14, "id = -1");
    says("id = 1", "id = 99999999999", 14, "id = 99999999999");
    says("id = 1", "id = 2", 14, "second time");
    says("\"node1\"", "\"node2.example.org\"", 15, "second time");
    says("\"node1\"", "\"no de\"", 15, "cannot be a node's name");
    says("\"127.0.0.11\"", "\"127.0.0.12:4000\"", 16, "second time");
    says("\"127.0.0.11\"", "\"localhost\"", 16, "not an address");
    says("\"127.0.0.11\"", "\"0.0.0.0\"", 16, "not the address of a node");
    says("\"127.0.0.11\"", "\"127.0.0.11:0\"", 16, "not the address of a node");
    says("\"127.0.0.11\"", "\"fd00::1\"", 16, "mixed");
    says("\"tcluster\"", "\"a:b\"", 2, "cannot be a cluster's name");
    says("[node.fence]\nagent = \"/usr/sbin/fence_y\"", "", 13, "has no [node.fence]");
    says("\"fence_x\"", "\"none\"", 8, "is \"none\"");
    says("agent = \"fence_x\"", "agnet = \"fence_x\"", 8, "has no agent");
    says("verbose = true", "verbose = [1]", 8, "cannot be handed");
    says("\"192.0.2.1\"", "\"a\\nb\"", 8, "cannot be handed");
    says("verbose = true", "fail_time = 3", 8, "ours to give");
    says("verbose = true", "[node.tls]\ncertificate = \"c\"\nkey = \"k\"", 12, "there is no [tls]");
    says("name = \"tcluster\"", "name = ", 2, "");
    says("id = 1", "", 13, "missing field `id`");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let bad = GOOD.replace("id = 1", "id = 0").replace("token_ms = 800", "token_ms = 1").replace("fence_x", "none");
    let mistakes = parse(&bad).expect_err("bad");
    assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    assert_eq!(parse("name = \"c\"").expect_err("no nodes").len(), 1);
}

#[test]
fn laboratories_may_do_without_fencing() {
    let lab = GOOD.replace("fence_x", "none").replace("[node.fence]\nagent = \"/usr/sbin/fence_y\"", "");
    assert!(parse(&lab).is_err());
    let lab = lab.replace("token_ms = 800", "unsafe_no_fencing = true");
    let file = parse(&lab).expect("permitted");
    let config = file.start(Some("node1")).expect("start");
    assert!(config.fence.values().all(|device| device.agent == "none") && config.fence.len() == 2);
    // Alone there is nobody to be fenced.
    parse("name = \"c\"\n[[node]]\nid = 1\nname = \"n\"\naddress = \"::1\"").expect("one node");
}

#[test]
fn certificates_may_be_common_or_each_nodes_own() {
    let common = "[tls]\nca = \"ca.pem\"\ncertificate = \"/x/node.pem\"\nkey = \"node.key\"\n[[node]]";
    let file = parse(&GOOD.replacen("[[node]]", common, 1)).expect("good");
    let tls = file.node(Some("node1")).expect("node").tls.as_ref().expect("tls");
    assert_eq!((tls.ca.as_path(), tls.key.as_path()), (Path::new("/etc/ca.pem"), Path::new("/etc/node.key")));
    assert_eq!(tls.certificate, Path::new("/x/node.pem"));
    assert_eq!(tls.names[&NodeId(2)], "node2.example.org");
    says("[[node]]\nid = 1", "[[node]]\nid = 1\ntls = { certificate = \"c\" }", 15, "missing field `key`");
    let half = parse(&GOOD.replacen("[[node]]", "[tls]\nca = \"ca.pem\"\nkey = \"k\"\n[[node]]", 1)).expect_err("half");
    assert!(half[0].contains("belong together"), "{half:?}");
    let none = parse(&GOOD.replacen("[[node]]", "[tls]\nca = \"ca.pem\"\n[[node]]", 1)).expect_err("none");
    assert!(none.len() == 2 && none[0].contains("has no certificate"), "{none:?}");
}

#[test]
fn damaged_files_end_in_a_mistake() {
    for cut in 0..GOOD.len() {
        // Some of them are still good; none may do harm.
        let _either = parse(&GOOD[..cut]);
    }
    assert!(ClusterFile::read("/nonexistent/cluster.toml").expect_err("absent").to_string().contains("cluster=FILE"));
}
