//! The JSON of a running node has the fields that the command line's contract names.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Running, eventually, json};
use serde_json::Value;

/// That the value, or each of a list that is not empty, has these fields.
fn has(what: &str, value: &Value, fields: &[&str]) {
    let one = std::slice::from_ref(value);
    let all = value.as_array().map_or(one, Vec::as_slice);
    assert!(!all.is_empty(), "{what} is empty");
    for (entry, field) in all.iter().flat_map(|e| fields.iter().map(move |f| (e, f))) {
        assert!(entry.get(field).is_some(), "{what} has no {field}: {entry}");
    }
}

#[test]
fn fields_are_those_of_the_contract() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_node_a, _node_b) = (Running::node(a.path()), Running::node(b.path()));
    let own = json(a.path(), &["id"]);
    has("id", &own, &["node_id", "connect"]);
    let (id, place) = (
        own["node_id"].as_str().unwrap(),
        own["connect"].as_str().unwrap(),
    );
    json(b.path(), &["connect", place]);
    json(b.path(), &["follow", place]);
    let post = json(a.path(), &["post", "hello"]);
    has("post", &post, &["post_id"]);
    eventually("the post arrives", || {
        json(b.path(), &["feed"])
            .as_array()
            .is_some_and(|feed| feed.len() == 1)
    });
    let status = [
        "node_id",
        "profile",
        "state",
        "peers_social",
        "peers_wide",
        "map",
        "version",
    ];
    has("status", &json(b.path(), &["status"]), &status);
    has(
        "the map of status",
        &json(b.path(), &["status"])["map"],
        &["hop1", "hop2", "hop3"],
    );
    has(
        "map",
        &json(b.path(), &["map"]),
        &["hop1", "hop2", "hop3", "bytes"],
    );
    has(
        "map of one",
        &json(b.path(), &["map", id]),
        &["node_id", "hop", "reporters"],
    );
    let found = json(b.path(), &["find", id]);
    has(
        "find",
        &found,
        &["node_id", "found_by", "address", "jumps", "ms", "steps"],
    );
    assert_eq!(found["found_by"], "direct");
    let explained = json(b.path(), &["explain", id]);
    has(
        "explain",
        &explained,
        &["node_id", "reasons", "hop", "reporters", "peer"],
    );
    assert_eq!(
        (&explained["hop"], &explained["peer"]["node_id"]),
        (&1.into(), &id.into())
    );
    let peers = [
        "node_id",
        "name",
        "slot",
        "direction",
        "address",
        "is_anchor",
        "rtt_ms",
    ];
    has("peers", &json(b.path(), &["peers"]), &peers);
    let traffic = [
        "layer",
        "cause",
        "in_bytes",
        "out_bytes",
        "day",
        "budget_bytes",
    ];
    has("traffic", &json(b.path(), &["traffic"]), &traffic);
    has(
        "doctor",
        &json(b.path(), &["doctor"]),
        &["check", "ok", "detail", "next_step"],
    );
    let feed = [
        "post_id",
        "author",
        "author_name",
        "text",
        "created_at_ms",
        "visibility",
        "reply_to",
        "hearts",
        "pictures",
    ];
    has("feed", &json(b.path(), &["feed"]), &feed);
    let shown = json(b.path(), &["show", post["post_id"].as_str().unwrap()]);
    has("show", &shown, &feed);
    assert_eq!(shown, json(b.path(), &["feed"])[0]);
    has("follows", &json(b.path(), &["follows"]), &["node_id"]);
    has(
        "profile",
        &json(a.path(), &["profile", "set", "--name", "Ada"]),
        &[],
    );
    assert_eq!(json(a.path(), &["profile"])["name"], "Ada");
}
