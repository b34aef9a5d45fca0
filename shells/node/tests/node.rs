//! Real processes: a node over restarts, two nodes, a devnet, as a person uses them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Running, distsoc, eventually, json};
use serde_json::Value;

fn texts(feed: &Value) -> Vec<String> {
    let text = |post: &Value| post["text"].as_str().unwrap().to_owned();
    feed.as_array().unwrap().iter().map(text).collect()
}

#[test]
fn a_node_keeps_key_port_and_posts_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let node = Running::node(dir.path());
    let id = json(dir.path(), &["id"]);
    json(
        dir.path(),
        &["profile", "set", "--name", "Ada", "--bio", "Counts."],
    );
    let post = json(dir.path(), &["post", "first"]);
    let shown = json(dir.path(), &["show", post["post_id"].as_str().unwrap()]);
    assert_eq!(shown["author_name"], "Ada");
    for field in [
        "post_id",
        "author",
        "author_name",
        "text",
        "created_at_ms",
        "visibility",
        "reply_to",
        "hearts",
        "pictures",
    ] {
        assert!(shown.get(field).is_some(), "the contract names {field}");
    }
    let status = json(dir.path(), &["status"]);
    for field in [
        "node_id",
        "profile",
        "state",
        "peers_social",
        "peers_wide",
        "map",
        "version",
    ] {
        assert!(status.get(field).is_some(), "the contract names {field}");
    }
    let second = distsoc(dir.path(), &["run"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another distsoc process"));
    assert_eq!(node.interrupt("-TERM"), Some(0));
    assert!(!dir.path().join("api.json").exists());
    assert_eq!(
        json(dir.path(), &["id"])["node_id"],
        id["node_id"],
        "also without a node"
    );

    let node = Running::node(dir.path());
    assert_eq!(json(dir.path(), &["id"]), id, "the same port too");
    assert_eq!(texts(&json(dir.path(), &["feed"])), ["first"]);
    assert_eq!(node.interrupt("-INT"), Some(0));
}

#[test]
fn two_nodes_connect_follow_and_read() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_node_a, _node_b) = (Running::node(a.path()), Running::node(b.path()));
    let place = json(a.path(), &["id"])["connect"]
        .as_str()
        .unwrap()
        .to_owned();
    json(b.path(), &["connect", &place]);
    json(b.path(), &["follow", &place]);
    let peers = json(b.path(), &["peers"]);
    for field in [
        "node_id",
        "name",
        "slot",
        "direction",
        "address",
        "is_anchor",
        "rtt_ms",
    ] {
        assert!(peers[0].get(field).is_some(), "the contract names {field}");
    }
    let post = json(a.path(), &["post", "hello"]);
    eventually("the post is in the follower's feed", || {
        texts(&json(b.path(), &["feed"])) == ["hello"]
    });
    let reply = json(
        b.path(),
        &[
            "post",
            "hello back",
            "--reply",
            post["post_id"].as_str().unwrap(),
        ],
    );
    let shown = json(b.path(), &["show", reply["post_id"].as_str().unwrap()]);
    assert_eq!(shown["reply_to"], post["post_id"]);
    let checks = json(b.path(), &["doctor"]);
    assert!(
        checks
            .as_array()
            .unwrap()
            .iter()
            .all(|check| check["ok"] == true),
        "{checks}"
    );
    let traffic = json(b.path(), &["traffic"]);
    let has = |cause: &str| {
        traffic
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["cause"] == cause)
    };
    assert!(has("PostNotification") && has("Hello") && has("transport"));

    let id = json(a.path(), &["id"])["node_id"]
        .as_str()
        .unwrap()
        .to_owned();
    json(b.path(), &["unfollow", &id]);
    assert_eq!(texts(&json(b.path(), &["feed"])), ["hello back"]);
}

#[test]
fn a_devnet_comes_up_and_lives() {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().join("net");
    let mut devnet = Running::start(&net, &["devnet", "--nodes", "4", "--seed", "3"]);
    let lines = devnet.wait_ready();
    assert_eq!(lines.len(), 5);
    for (line, number) in lines.iter().zip(1..=4) {
        assert_eq!(line["node"], number);
        for field in ["node_id", "connect", "data", "profile", "ui"] {
            assert!(line[field].is_string(), "the contract names {field}");
        }
    }
    assert_eq!(lines[4]["ui"], lines[0]["ui"], "node 1's");
    eventually("example people follow each other", || {
        !json(&net.join("2"), &["follows"])
            .as_array()
            .unwrap()
            .is_empty()
    });
    let author = lines[0]["node_id"].as_str().unwrap();
    json(&net.join("2"), &["follow", author]);
    json(&net.join("1"), &["post", "from the first"]);
    eventually("the post arrives", || {
        texts(&json(&net.join("2"), &["feed"])).contains(&"from the first".to_owned())
    });
    assert_eq!(devnet.interrupt("-INT"), Some(0));

    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("precious"), "x").unwrap();
    let refused = distsoc(&foreign, &["devnet", "--fresh"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(foreign.join("precious").exists());
}

#[test]
fn a_devnet_goes_on_where_it_was_until_it_is_made_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let start = |more: &[&str]| {
        let args = [&["devnet", "--nodes", "2", "--empty"], more].concat();
        let mut devnet = Running::start(dir.path(), &args);
        let lines = devnet.wait_ready();
        (devnet, lines[0]["node_id"].clone())
    };
    let (devnet, first) = start(&[]);
    json(&dir.path().join("1"), &["post", "kept"]);
    for args in [&["devnet"][..], &["devnet", "--fresh"]] {
        let refused = distsoc(dir.path(), args);
        assert_eq!(refused.status.code(), Some(1), "one runs there already");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("a devnet runs on"), "{said}");
    }
    assert_eq!(texts(&json(&dir.path().join("1"), &["feed"])), ["kept"]);
    assert_eq!(devnet.interrupt("-INT"), Some(0));

    let (mut devnet, second) = start(&[]);
    assert_eq!(second, first);
    assert_eq!(texts(&json(&dir.path().join("1"), &["feed"])), ["kept"]);
    devnet.kill();

    let (devnet, _) = start(&["--fresh"]);
    assert!(texts(&json(&dir.path().join("1"), &["feed"])).is_empty());
    assert_eq!(devnet.interrupt("-TERM"), Some(0));
}

#[test]
fn whoever_asked_for_it_outlives_the_terminal_and_others_stop_as_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let run = ["run", "--listen", "127.0.0.1:0"];
    // Whoever runs the tests may be outliving a terminal too.
    let mut env = std::process::Command::new("env");
    env.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_distsoc")]);
    let mut node = Running::start_by(env, dir.path(), &run);
    node.wait_ready();
    assert_eq!(node.interrupt("-HUP"), Some(0));
    let mut nohup = std::process::Command::new("nohup");
    nohup.arg(env!("CARGO_BIN_EXE_distsoc"));
    let mut node = Running::start_by(nohup, dir.path(), &run);
    node.wait_ready();
    node.signal("-HUP");
    // A signal that was heard is acted on before the next: a hang-up would have begun the end, and this would be the second.
    assert!(json(dir.path(), &["status"])["node_id"].is_string());
    assert_eq!(node.interrupt("-TERM"), Some(0));
}

#[test]
fn a_node_that_does_not_answer_is_not_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let node = Running::node(dir.path());
    node.signal("-STOP");
    let output = distsoc(dir.path(), &["status"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("does not answer"), "{said}");
    let checks = distsoc(dir.path(), &["doctor"]);
    assert!(String::from_utf8_lossy(&checks.stdout).contains("does not answer"));
    node.signal("-CONT");
    eventually("it answers again", || {
        distsoc(dir.path(), &["status"]).status.success()
    });
}
