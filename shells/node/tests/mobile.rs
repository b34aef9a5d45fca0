//! A phone: what it may keep by default, that it keeps to what was chosen, and that another choice counts at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use distsoc_engine::profile::{NodeProfile, ProfileKind};
use harness::{Running, distsoc, eventually, json};
use std::path::Path;

/// The least that can be chosen.
const BUDGET_BYTES: u64 = 64_000_000;
/// Of each picture, about: nine of them are more than the budget has room for.
const PICTURE_BYTES: u32 = 9_000_000;

fn mobile(dir: &Path) -> Running {
    let args = ["run", "--profile", "mobile", "--listen", "127.0.0.1:0"];
    let mut running = Running::start(dir, &args);
    running.wait_ready();
    running
}

fn number(dir: &Path, field: &str) -> u64 {
    json(dir, &["storage"])[field].as_u64().unwrap()
}

fn choose(dir: &Path, budget: u64) {
    json(dir, &["storage", "--budget", &budget.to_string()]);
    eventually("the budget is another", || {
        number(dir, "budget_bytes") == budget
    });
}

/// Posts a picture that cannot be packed and is like no other.
fn post(dir: &Path, which: u32) -> String {
    let file = dir.join("picture.png");
    let byte = |place: u32| (place.wrapping_mul(2_654_435_761).rotate_left(which) >> 24) as u8;
    let bytes = (0..PICTURE_BYTES).map(byte).collect();
    let noise = image::RgbImage::from_raw(3_000, PICTURE_BYTES / 9_000, bytes).unwrap();
    noise.save(&file).unwrap();
    let file = file.to_str().unwrap();
    let posted = json(dir, &["post", "look", "--picture", file, "--alt", "noise"]);
    posted["post_id"].as_str().unwrap().to_owned()
}

/// Whether a post is here with its picture; it may go while this is asked.
fn is_whole(dir: &Path, post: &str) -> bool {
    let output = distsoc(dir, &["--json", "explain", post]);
    let said = serde_json::from_slice(&output.stdout);
    said.is_ok_and(|said: serde_json::Value| said["missing_bytes"] == 0)
}

#[test]
fn a_phone_keeps_to_its_budget_which_can_be_changed_while_it_runs() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [phone, author] = [0, 1].map(|number: usize| dirs[number].path());
    let (at_phone, _at_author) = (mobile(phone), Running::node(author));
    assert_eq!(json(phone, &["status"])["profile"], "mobile");
    let default = NodeProfile::of(ProfileKind::Mobile).file_budget_bytes;
    assert_eq!(default, 1_000_000_000, "PROTOCOL section 3");
    assert_eq!(number(phone, "budget_bytes"), default);

    choose(phone, BUDGET_BYTES);
    let place = json(author, &["id"])["connect"].clone();
    json(phone, &["follow", place.as_str().unwrap()]);
    let mut posts: Vec<String> = (0..9).map(|which| post(author, which)).collect();
    let whole = |posts: &[String]| posts.iter().filter(|id| is_whole(phone, id)).count();
    eventually("what has room arrives", || {
        assert!(number(phone, "disk_bytes") <= BUDGET_BYTES);
        whole(&posts) >= 3
    });
    let before = whole(&posts);
    assert!(before < posts.len(), "they are larger than the budget");

    choose(phone, 3 * BUDGET_BYTES);
    for which in 9..12 {
        let id = post(author, which);
        eventually("there is room for it", || is_whole(phone, &id));
        posts.push(id);
    }
    // One of those may have gone meanwhile, and comes back.
    eventually("there is room for all of them", || {
        whole(&posts) >= before + 3
    });

    choose(phone, BUDGET_BYTES);
    eventually("it shrinks to what was chosen", || {
        number(phone, "disk_bytes") <= BUDGET_BYTES
    });
    assert!(whole(&posts) < posts.len(), "something made room");
    assert_eq!(at_phone.interrupt("-TERM"), Some(0));
    let _at_phone = mobile(phone);
    assert_eq!(number(phone, "budget_bytes"), BUDGET_BYTES, "it was chosen");
}
