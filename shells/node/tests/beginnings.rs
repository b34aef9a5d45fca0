//! What a screen shows of an id is enough to name it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Running, distsoc, eventually, json};
use std::path::Path;

/// What a command says to a person.
fn said(dir: &Path, args: &[&str]) -> String {
    let output = distsoc(dir, args);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {why}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn commands_take_what_feed_and_peers_show_of_an_id() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_node_a, _node_b) = (Running::node(a.path()), Running::node(b.path()));
    let (a, b) = (a.path(), b.path());
    let own = json(a, &["id"]);
    let (node, place) = (
        own["node_id"].as_str().unwrap(),
        own["connect"].as_str().unwrap(),
    );
    json(b, &["connect", place]);
    let peers = said(b, &["peers"]);
    let shown = peers.lines().nth(1).unwrap().split(' ').next().unwrap();
    assert!(
        shown.len() < node.len() && node.starts_with(shown),
        "{peers}"
    );
    assert_eq!(json(b, &["follow", shown])["node_id"], node);
    assert_eq!(json(b, &["map", shown])["node_id"], node);
    assert_eq!(json(b, &["find", &shown.to_uppercase()])["node_id"], node);
    assert_eq!(json(b, &["explain", shown])["node_id"], node);

    let post = json(a, &["post", "hello"])["post_id"].clone();
    let post = post.as_str().unwrap();
    eventually("the post arrives", || {
        json(b, &["feed"])[0]["post_id"] == post
    });
    let feed = said(b, &["feed"]);
    let shown_post = feed.lines().next().unwrap().rsplit(' ').next().unwrap();
    assert!(
        shown_post.len() < post.len() && post.starts_with(shown_post),
        "{feed}"
    );
    for command in ["show", "heart", "unheart", "pin", "unpin", "explain"] {
        let done = json(b, &[command, shown_post]);
        assert_eq!(done["post_id"], post, "{command}");
    }
    assert_eq!(json(b, &["show", &post[..6]])["post_id"], post);
    let reply = json(b, &["post", "hello to you", "--reply", shown_post]);
    let reply = json(b, &["show", reply["post_id"].as_str().unwrap()]);
    assert_eq!(reply["reply_to"], post);
    assert_eq!(json(a, &["delete", shown_post])["post_id"], post);
    assert_eq!(json(b, &["unfollow", shown])["node_id"], node);

    let no_post = distsoc(b, &["show", shown]);
    assert_eq!(no_post.status.code(), Some(4), "a node is no post");
    let why = String::from_utf8_lossy(&no_post.stderr);
    assert!(why.contains("no post that is stored here"), "{why}");
}

#[test]
fn what_was_so_already_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let _node = Running::node(dir.path());
    let post = json(dir.path(), &["post", "hello"])["post_id"].clone();
    let post = post.as_str().unwrap();
    for (command, words) in [
        ("unheart", "There was no heart of yours to take back."),
        ("heart", "Your heart is given"),
        ("heart", "You have given your heart to it already."),
        ("unheart", "Your heart is taken back."),
        ("unpin", "It was not pinned."),
        ("pin", "Pinned"),
        ("pin", "It is pinned already."),
        ("unpin", "No longer pinned"),
    ] {
        let said = said(dir.path(), &[command, post]);
        assert!(said.starts_with(words), "{command}: {said}");
    }
}
