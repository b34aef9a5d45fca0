//! Two real processes: one vanishes and returns, both dial at once, and what a person hears of a dial that fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Running, distsoc, eventually, json};
use serde_json::Value;
use std::net::UdpSocket;
use std::path::Path;
use std::thread;

fn connect_string(dir: &Path) -> String {
    json(dir, &["id"])["connect"].as_str().unwrap().to_owned()
}

fn texts(dir: &Path) -> Vec<String> {
    let feed = json(dir, &["feed"]);
    let entries = feed.as_array().unwrap();
    entries
        .iter()
        .map(|entry| entry["text"].as_str().unwrap().to_owned())
        .collect()
}

fn peers(dir: &Path) -> Vec<Value> {
    json(dir, &["peers"]).as_array().unwrap().clone()
}

#[test]
fn a_peer_that_vanishes_comes_back_and_its_posts_go_on() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut author, _follower) = (Running::node(a.path()), Running::node(b.path()));
    let place = connect_string(a.path());
    json(b.path(), &["follow", &place]);
    eventually("they are connected", || peers(b.path()).len() == 1);
    json(a.path(), &["post", "before"]);
    eventually("the first post arrives", || texts(b.path()) == ["before"]);
    author.kill();
    let _author = Running::node(a.path());
    json(a.path(), &["post", "after"]);
    eventually("nobody does anything, and the next post arrives", || {
        texts(b.path()) == ["after", "before"]
    });
    eventually("each has the other once", || {
        peers(a.path()).len() == 1 && peers(b.path()).len() == 1
    });
}

#[test]
fn two_that_dial_each_other_at_once_hold_one_connection() {
    for _ in 0..5 {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_node_a, _node_b) = (Running::node(a.path()), Running::node(b.path()));
        let (to_a, to_b) = (connect_string(a.path()), connect_string(b.path()));
        thread::scope(|scope| {
            let first = scope.spawn(|| json(a.path(), &["connect", &to_b]));
            let second = scope.spawn(|| json(b.path(), &["connect", &to_a]));
            first.join().unwrap();
            second.join().unwrap();
        });
        eventually("both ends mean the same connection", || {
            let (of_a, of_b) = (peers(a.path()), peers(b.path()));
            of_a.len() == 1 && of_b.len() == 1 && of_a[0]["direction"] != of_b[0]["direction"]
        });
        // What one says reaches the other over the one that stayed.
        json(b.path(), &["follow", &to_a]);
        json(a.path(), &["post", "over one"]);
        eventually("the post arrives", || texts(b.path()) == ["over one"]);
    }
}

#[test]
fn a_dial_that_fails_says_why() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_node_a, _node_b) = (Running::node(a.path()), Running::node(b.path()));
    let (place, own) = (connect_string(a.path()), connect_string(b.path()));
    let (address, own_id) = (
        place.split_once('@').unwrap().1,
        own.split_once('@').unwrap().0,
    );
    let dead = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let other_id = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let cases = [
        (
            format!("{other_id}@{address}"),
            1,
            "another node answers there",
        ),
        (
            format!("{other_id}@{dead}"),
            1,
            "no distsoc/2 node answers there",
        ),
        (
            format!("{other_id}@no-such-host.invalid:4000"),
            1,
            "no usable address",
        ),
        (format!("{own_id}@{address}"), 2, "your own connect string"),
    ];
    for (target, code, words) in cases {
        let output = distsoc(b.path(), &["connect", &target]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains(words) && said.trim().lines().count() == 1,
            "{target}: {said}"
        );
        assert_eq!(output.status.code(), Some(code), "{target}: {said}");
        assert!(output.stdout.is_empty());
    }
    assert!(peers(b.path()).is_empty());
    json(b.path(), &["connect", &place]);
    assert_eq!(peers(b.path()).len(), 1, "and the right one works");
}
