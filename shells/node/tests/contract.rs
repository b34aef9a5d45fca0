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

/// A picture of one pixel.
const GIF: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

/// That a command ends with this exit code and says why in one line, and nothing on stdout.
fn exits(dir: &std::path::Path, args: &[&str], code: i32, why: &str) {
    let output = harness::distsoc(dir, &[&["--json"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(
        said.contains(why) && said.lines().count() == 1,
        "{args:?}: {said}"
    );
    assert!(output.stdout.is_empty(), "{args:?}");
}

#[test]
fn posts_with_pictures_and_what_is_done_with_them_keep_the_contract() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_node_a, _node_b) = (Running::node(a.path()), Running::node(b.path()));
    let own = json(a.path(), &["id"]);
    let place = own["connect"].as_str().unwrap();
    json(b.path(), &["connect", place]);
    json(b.path(), &["follow", place]);
    let picture = a.path().join("dot.gif");
    // With a comment that says too much.
    let noted = [&GIF[..19], b"!\xfe\x07at home\0", &GIF[19..]].concat();
    std::fs::write(&picture, noted).unwrap();
    let picture = picture.display().to_string();
    let args = ["post", "look", "--picture", &picture, "--alt", "a dot"];
    let post = json(a.path(), &args);
    has("post with a picture", &post, &["post_id"]);
    let id = post["post_id"].as_str().unwrap();
    let feed = || json(b.path(), &["feed"]);
    eventually("the post arrives with its picture", || {
        feed()[0]["pictures"][0]["media_type"] == "image/gif"
    });
    let shown = feed();
    let pictures = &shown[0]["pictures"];
    let fields = [
        "blob",
        "length",
        "alt",
        "media_type",
        "url",
        "thumbnail_url",
    ];
    has("pictures", pictures, &fields);
    assert_eq!(
        (&pictures[0]["alt"], &pictures[0]["length"]),
        (&"a dot".into(), &GIF.len().into())
    );
    assert_eq!(pictures[0]["url"], format!("/v1/blobs/{id}/0"));
    assert_eq!(
        pictures[0]["thumbnail_url"],
        format!("/v1/thumbnails/{id}/0")
    );
    assert_eq!(shown[0]["hearts"], 0);

    let changes = |command, is_change: bool| {
        let done = json(b.path(), &[command, id]);
        assert_eq!(
            (&done["post_id"], &done["changed"]),
            (&post["post_id"], &is_change.into()),
            "{command}"
        );
    };
    changes("unheart", false);
    changes("unpin", false);
    for (command, hearts) in [("heart", 1), ("unheart", 0)] {
        changes(command, true);
        eventually(command, || feed()[0]["hearts"] == hearts);
        changes(command, false);
    }
    let storage = [
        "budget_bytes",
        "disk_bytes",
        "own_bytes",
        "pinned_bytes",
        "followed_bytes",
        "hosted_bytes",
        "next_to_go",
    ];
    let pinned = || {
        json(b.path(), &["storage"])["pinned_bytes"]
            .as_u64()
            .unwrap()
    };
    has("storage", &json(b.path(), &["storage"]), &storage);
    assert_eq!(pinned(), 0);
    changes("pin", true);
    changes("pin", false);
    eventually("it is pinned", || pinned() >= GIF.len() as u64);
    let explained = json(b.path(), &["explain", id]);
    let fields = [
        "post_id",
        "author",
        "reasons",
        "priority",
        "factors",
        "rank",
        "bytes",
        "missing_bytes",
        "is_pinned",
    ];
    has("explain of a post", &explained, &fields);
    assert!(
        explained["priority"].as_f64() >= Some(99_999.0),
        "{explained}"
    );
    let factors = [
        "relationship",
        "heart_recency",
        "post_age",
        "peer_copies",
        "pin_bonus",
    ];
    has("factors", &explained["factors"], &factors);
    changes("unpin", true);
    eventually("it is pinned no more", || pinned() == 0);
    let set = json(b.path(), &["storage", "--budget", "100000000"]);
    has("storage --budget", &set, &storage);
    eventually("the budget is another", || {
        json(b.path(), &["storage"])["budget_bytes"] == 100_000_000
    });
    has(
        "next_to_go",
        &json(b.path(), &["storage"])["next_to_go"],
        &fields[..2],
    );
    has(
        "status",
        &json(b.path(), &["status"]),
        &["responses_dropped"],
    );

    let metrics = json(b.path(), &["metrics"]);
    let text = metrics["text"].as_str().unwrap();
    let dropped = "\ndistsoc_responses_dropped_total 0\n";
    assert!(text.contains(dropped), "{text}");

    let unknown = "ab".repeat(32);
    for command in ["show", "heart", "unheart", "pin", "unpin", "delete"] {
        exits(
            b.path(),
            &[command, &unknown],
            4,
            "that post is not stored here",
        );
    }
    exits(
        b.path(),
        &["delete", id],
        5,
        "only its author can take a post back",
    );
    exits(
        b.path(),
        &["storage", "--budget", "1000"],
        5,
        "the least budget is 64 MB",
    );
    exits(b.path(), &["storage", "--budget", "0"], 2, "");
    exits(b.path(), &["post", "x", "--picture", &picture], 2, "--alt");
    let cut = a.path().join("cut.gif");
    std::fs::write(&cut, &GIF[..GIF.len() - 1]).unwrap();
    let cut = cut.display().to_string();
    let args = ["post", "x", "--picture", &cut, "--alt", "a dot"];
    exits(
        a.path(),
        &args,
        2,
        "open it in a picture program, save it anew and attach that",
    );

    assert_eq!(json(a.path(), &["delete", id]), post);
    exits(a.path(), &["show", id], 4, "that post is not stored here");
    eventually("it is gone everywhere", || {
        harness::distsoc(b.path(), &["show", id]).status.code() == Some(4)
    });
}
