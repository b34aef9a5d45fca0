//! A node on a disk without a free byte (PROTOCOL section 7, quota): it starts after a kill, what it says is what is wrong, and the
//! person can delete. A small disk in memory is filled to its end.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a child tells its parent")]

mod harness;

use harness::{Running, distsoc, json};
use std::ffi::CString;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Names the folder of this program that was started as a child of itself.
const CHILD_DIR: &str = "DISTSOC_TEST_CHILD_DIR";
/// The disk: far smaller than what the budget allows.
const DISK: &str = "size=24m";
const BUDGET: &str = "64MB";

/// A disk of its own for this process and those it starts; false where the system grants none.
#[allow(unsafe_code, reason = "std offers no mounts")]
fn mount_disk(dir: &Path) -> bool {
    let path = CString::new(dir.as_os_str().as_bytes()).unwrap();
    let size = CString::new(DISK).unwrap();
    // SAFETY: every pointer is to a string that lives through the calls.
    unsafe {
        let is_alone = libc::unshare(libc::CLONE_NEWNS) == 0
            || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) == 0;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let (none, tmpfs) = (std::ptr::null(), c"tmpfs".as_ptr());
        is_alone
            && libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0
            && libc::mount(tmpfs, path.as_ptr(), tmpfs, 0, size.as_ptr().cast()) == 0
    }
}

/// Takes every byte that is free.
fn fill(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).open(path).unwrap();
    for block in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; block]).is_ok() {}
    }
}

/// What a command says that must not work.
fn refused(dir: &Path, args: &[&str]) -> String {
    let output = distsoc(dir, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{args:?}: {said}");
    said
}

fn child(dir: &Path) {
    if !mount_disk(dir) {
        println!("TOLD no disk");
        return;
    }
    let (data, rest) = (dir.join("data"), dir.join("the rest"));
    let mut node = Running::node(&data);
    json(&data, &["storage", "--budget", BUDGET]);
    let text = "x".repeat(12_000);
    let post = |number: u32| json(&data, &["post", &format!("{number} {text}")]);
    let posts: Vec<String> = (0..60)
        .map(|number| post(number)["post_id"].as_str().unwrap().to_owned())
        .collect();
    fill(&rest);
    let mut late = 0;
    // Pages that are free within the files take a few more.
    let said = loop {
        late += 1;
        let text = format!("late {late} {text}");
        let output = distsoc(&data, &["post", &text]);
        if !output.status.success() {
            break String::from_utf8_lossy(&output.stderr).into_owned();
        }
    };
    assert!(said.contains("the disk is full"), "{said}");

    // Its api.json comes in the place of the old.
    node.kill();
    fill(&rest);
    let mut node = Running::node(&data);
    let said = refused(&data, &["doctor"]);
    let checks = distsoc(&data, &["doctor"]);
    let checks = String::from_utf8_lossy(&checks.stdout).into_owned();
    assert!(checks.contains("free some space on it"), "{checks} {said}");
    fill(&rest);
    for (place, id) in posts.iter().enumerate() {
        json(&data, &["delete", id]);
        if place % 8 == 0 {
            fill(&rest);
        }
    }
    // And that holds.
    node.kill();
    fill(&rest);
    let _node = Running::node(&data);
    for id in &posts {
        let said = refused(&data, &["delete", id]);
        assert!(said.contains("not stored here"), "{said}");
    }
    println!("TOLD done");
}

#[test]
fn a_node_starts_and_deletes_on_a_disk_without_a_free_byte() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        return child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "a_node_starts_and_deletes_on_a_disk_without_a_free_byte";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told: Vec<String> = lines
        .map(Result::unwrap)
        .filter_map(|line| line.split_once("TOLD ").map(|(_, told)| told.to_owned()))
        .collect();
    assert!(child.wait().unwrap().success());
    // Some systems let nobody mount anything; everywhere else it must have come to its end.
    match told[0].as_str() {
        "no disk" => println!("nothing was tested: this system lets nobody mount a disk"),
        told => assert_eq!(told, "done"),
    }
}
