//! Every bad command line gets one clear sentence and exit 2, every missing thing exit 4, no node exit 3.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Running, binary, distsoc, json};
use std::process::Output;

const ID: &str = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";

fn one_sentence(args: &[&str], output: &Output, code: i32) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert_eq!(
        said.lines().filter(|line| !line.trim().is_empty()).count(),
        1,
        "{args:?}: {said}"
    );
    assert!(
        said.starts_with("distsoc: ") && said.len() > 20,
        "{args:?}: {said}"
    );
    assert!(
        output.stdout.is_empty(),
        "{args:?} said something on stdout"
    );
}

#[test]
fn bad_command_lines_exit_2_with_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.json").display().to_string();
    let broken = dir.path().join("broken.json").display().to_string();
    std::fs::write(&broken, "{").unwrap();
    let wrong_anchor = dir.path().join("wrong.json").display().to_string();
    std::fs::write(&wrong_anchor, r#"{"version":1,"anchors":["x@y"]}"#).unwrap();
    let folder = dir.path().display().to_string();
    let file = |name: &str, length: u64| {
        let path = dir.path().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .set_len(length)
            .unwrap();
        path.display().to_string()
    };
    let (picture, empty) = (file("some.png", 5), file("empty.png", 0));
    let huge = file("huge.png", 64 * 1024 * 1024 + 1);
    let named = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let text = named("text.png", b"only words, whatever it is called");
    let svg = named("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>");
    let html = named("page.jpg", b"<!doctype html><p>");
    for file in [&text, &svg, &html] {
        let args = ["post", "x", "--picture", file, "--alt", "a"];
        let output = distsoc(&dir.path().join("data"), &args);
        one_sentence(&args, &output, 2);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("no PNG, JPEG, GIF or WebP picture"), "{said}");
    }
    let long = "x".repeat(1_025);
    let no_key = format!("02{}@127.0.0.1:4000", "0".repeat(62));
    let at = |place: &str| format!("{ID}@{place}");
    let places = [
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:70000",
        "127.0.0.1:x",
        "::1:4000",
        "[::1",
        "a b:4000",
    ];
    let places: Vec<String> = places.iter().map(|place| at(place)).collect();
    let mut lines: Vec<Vec<&str>> = vec![
        vec![],
        vec!["fly"],
        vec!["--no-such-flag"],
        vec!["status", "extra"],
        vec!["status", "--what"],
        vec!["connect"],
        vec!["connect", "abc"],
        vec!["connect", "abc@127.0.0.1:4000"],
        vec!["connect", &no_key],
        vec!["map", "xyz"],
        vec!["map", "ab"],
        vec!["find"],
        vec!["find", "xyz"],
        vec!["show"],
        vec!["show", "12"],
        vec!["post"],
        vec!["post", "x", "--reply", "nothing"],
        vec!["post", "x", "--picture", &picture],
        vec!["post", "x", "--alt", "a cat"],
        vec![
            "post",
            "x",
            "--picture",
            &picture,
            "--alt",
            "a",
            "--alt",
            "b",
        ],
        vec!["post", "x", "--picture", &missing, "--alt", "a"],
        vec!["post", "x", "--picture", &folder, "--alt", "a"],
        vec!["post", "x", "--picture", &empty, "--alt", "a"],
        vec!["post", "x", "--picture", &huge, "--alt", "a"],
        vec!["post", "x", "--picture", &picture, "--alt", &long],
        vec!["post", "x", "--picture"],
        vec!["heart"],
        vec!["heart", "x"],
        vec!["unheart", "12"],
        vec!["pin", "--all"],
        vec!["unpin"],
        vec!["delete", "everything"],
        vec!["storage", "--budget"],
        vec!["storage", "--budget", "0"],
        vec!["storage", "--budget", "much"],
        vec!["storage", "--budget", "-5"],
        vec!["storage", "--budget", "1.5GB"],
        vec!["storage", "--budget", "1.5 GB"],
        vec!["storage", "--budget", "-1GB"],
        vec!["storage", "--budget", "+1"],
        vec!["storage", "--budget", "1e9"],
        vec!["feed", "--limit", "-1"],
        vec!["devnet", "--nodes", "-1"],
        vec!["show", "abcde"],
        vec!["show", "abcdeg"],
        vec!["show", "abcdef12-"],
        vec!["storage", "extra"],
        vec!["explain"],
        vec!["explain", "xyz"],
        vec!["feed", "--limit", "0"],
        vec!["feed", "--limit", "501"],
        vec!["feed", "--limit", "x"],
        vec!["feed", "--live", "--before", "x"],
        vec!["follow"],
        vec!["unfollow"],
        vec!["unfollow", "me"],
        vec!["profile", "me"],
        vec!["profile", "set", "--name", ""],
        vec!["profile", "set", "--name", "a\nb"],
        vec!["profile", "set", "--anchor", "x"],
        vec!["run", "--profile", "server"],
        vec!["run", "--listen", "here"],
        vec!["run", "--listen", "127.0.0.1:80"],
        vec!["run", "--ui", "0.0.0.0:8080"],
        vec!["run", "--ui", "8080"],
        vec!["run", "--anchors", &missing],
        vec!["run", "--anchors", &broken],
        vec!["run", "--anchors", &wrong_anchor],
        vec!["run", "--name", "   "],
        vec!["devnet", "--nodes", "0"],
        vec!["devnet", "--nodes", "1"],
        vec!["devnet", "--nodes", "201"],
        vec!["devnet", "--nodes", "many"],
        vec!["devnet", "--seed", "-1"],
        vec!["devnet", "--profile", "x"],
    ];
    lines.extend(places.iter().map(|place| vec!["connect", place.as_str()]));
    assert!(lines.len() >= 40);
    for args in &lines {
        one_sentence(args, &distsoc(&dir.path().join("data"), args), 2);
    }
}

#[test]
fn what_is_accepted_is_said_where_something_else_is_given() {
    let dir = tempfile::tempdir().unwrap();
    for words in [&["1.5", "GB"][..], &["500", "mib"]] {
        let args = [&["storage", "--budget"], words].concat();
        let output = distsoc(dir.path(), &args);
        one_sentence(&args, &output, 2);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("a size is one word, as 500MB"), "{said}");
    }
    for (args, accepted) in [
        (["storage", "--budget", "-1"], "as 500MB, 10GB or 4GiB"),
        (
            ["storage", "--budget", "-1.5GB"],
            "1500MB for one and a half GB",
        ),
        (
            ["storage", "--budget", "1.5 GB"],
            "1500MB for one and a half GB",
        ),
        (["storage", "--budget", "0"], "from 1 on"),
        (["feed", "--limit", "-1"], "1 to 500 posts"),
        (["feed", "--limit", "1.5"], "1 to 500 posts"),
        (["devnet", "--nodes", "-3"], "2 to 200 nodes"),
        (["devnet", "--seed", "-1"], "a whole number from 0 to"),
    ] {
        let said = distsoc(dir.path(), &args).stderr;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(accepted), "{args:?}: {said}");
    }
    for (who, accepted) in [
        ("", "it must be NODE_ID@HOST:PORT, or the 64 hex digits"),
        ("ada", "it must be NODE_ID@HOST:PORT, or the 64 hex digits"),
        ("ada@127.0.0.1:4000", "the part before '@'"),
    ] {
        let output = distsoc(dir.path(), &["follow", who]);
        one_sentence(&["follow", who], &output, 2);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(accepted), "{who}: {said}");
    }
}

#[test]
fn without_a_node_commands_exit_3() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["status"][..],
        &["feed"],
        &["post", "x"],
        &["peers"],
        &["id"],
        &["follow", ID],
        &["feed", "--live"],
        &["heart", ID],
        &["delete", ID],
        &["storage"],
        &["explain", ID],
        &["show", "abcdef"],
    ] {
        one_sentence(args, &distsoc(dir.path(), args), 3);
    }
}

#[test]
fn a_node_that_was_killed_is_no_node_whoever_has_its_port_now() {
    let dir = tempfile::tempdir().unwrap();
    Running::node(dir.path()).kill();
    let file = dir.path().join("api.json");
    let mut api: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    one_sentence(&["killed"], &distsoc(dir.path(), &["status"]), 3);

    let (other, mute) = (tempfile::tempdir().unwrap(), mute_server());
    let _node = Running::node(other.path());
    let its: serde_json::Value =
        serde_json::from_slice(&std::fs::read(other.path().join("api.json")).unwrap()).unwrap();
    for addr in [its["addr"].clone(), mute.to_string().into()] {
        api["addr"] = addr;
        std::fs::write(&file, api.to_string()).unwrap();
        one_sentence(&["taken"], &distsoc(dir.path(), &["status"]), 3);
    }
}

/// Somebody who answers everything with the same words.
fn mute_server() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
            let _ = std::io::Write::write_all(&mut stream.unwrap(), answer);
        }
    });
    address
}

#[test]
fn help_and_version_are_no_errors() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["--help"][..], &["--version"], &["post", "--help"]] {
        let output = distsoc(dir.path(), args);
        assert!(
            output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn what_a_running_node_does_not_have_exits_4_and_what_it_must_not_do_5() {
    let dir = tempfile::tempdir().unwrap();
    let _node = Running::node(dir.path());
    let post = "ab".repeat(32);
    for args in [
        &["show", post.as_str()][..],
        &["unfollow", ID],
        &["map", ID],
        &["find", ID],
        &["profile", ID],
        &["profile"],
        &["explain", ID],
        &["explain", post.as_str()],
        &["show", "abcdef"],
        &["heart", "abcdef12"],
        &["explain", "ABCDEF"],
        &["unfollow", "abcdef"],
        &["follow", "abcdef"],
        &["map", "abcdef12"],
        &["post", "x", "--reply", "abcdef"],
    ] {
        one_sentence(args, &distsoc(dir.path(), args), 4);
    }
    let own = json(dir.path(), &["id"]);
    let (id, connect) = (
        own["node_id"].as_str().unwrap(),
        own["connect"].as_str().unwrap(),
    );
    one_sentence(&["follow", "own"], &distsoc(dir.path(), &["follow", id]), 5);
    one_sentence(
        &["connect", "own"],
        &distsoc(dir.path(), &["connect", connect]),
        2,
    );
    let cut = dir.path().join("cut.png").display().to_string();
    std::fs::write(&cut, b"\x89PNG\r\n\x1a\n and no more").unwrap();
    for args in [
        &["post", "  "][..],
        &["post", "a\u{7}b"],
        &["feed", "--before", "xyz"],
        &["follow", "xyz"],
        &["follow", "abc@127.0.0.1:4000"],
        &["profile", "set"],
        &["post", "x", "--picture", &cut, "--alt", "a"],
    ] {
        one_sentence(args, &distsoc(dir.path(), args), 2);
    }
}

#[test]
fn output_that_does_not_fit_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let _node = Running::node(dir.path());
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = binary()
        .arg("--data")
        .arg(dir.path())
        .arg("id")
        .stdout(full)
        .output()
        .unwrap();
    one_sentence(
        &["id"],
        &Output {
            stdout: Vec::new(),
            ..output
        },
        1,
    );
}
