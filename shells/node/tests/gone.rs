//! An author is gone for good: whoever follows them gets what they posted from those who keep it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Running, eventually, json};
use std::path::Path;

fn connect_string(dir: &Path) -> String {
    json(dir, &["id"])["connect"].as_str().unwrap().to_owned()
}

/// Whether a post is here with all of its pictures.
fn is_whole(dir: &Path, post: &str) -> bool {
    let feed = json(dir, &["feed"]);
    let entries = feed.as_array().unwrap();
    let is_here = entries.iter().any(|entry| entry["post_id"] == post);
    is_here && json(dir, &["explain", post])["missing_bytes"] == 0
}

/// A picture of 1.5 MB: what does not repeat cannot be packed.
fn picture(dir: &Path) -> String {
    let file = dir.join("picture.png");
    let byte = |place: u32| (place.wrapping_mul(2_654_435_761) >> 24) as u8;
    let bytes = (0..1_500_000).map(byte).collect();
    let noise = image::RgbImage::from_raw(1_000, 500, bytes).unwrap();
    noise.save(&file).unwrap();
    assert!(std::fs::metadata(&file).unwrap().len() > 1_000_000);
    file.to_str().unwrap().to_owned()
}

fn post(dir: &Path, args: &[&str]) -> String {
    let posted = json(dir, &[&["post"], args].concat());
    posted["post_id"].as_str().unwrap().to_owned()
}

#[test]
fn posts_and_pictures_outlive_their_author() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let [author, holder, newcomer] = [0, 1, 2].map(|number| dirs[number].path());
    let (mut at_author, _at_holder) = (Running::node(author), Running::node(holder));
    let place = connect_string(author);
    json(holder, &["follow", &place]);
    let picture = picture(author);
    let posts = [
        post(author, &["only words"]),
        post(author, &["look", "--picture", &picture, "--alt", "stripes"]),
    ];
    for id in &posts {
        eventually("who follows the author has it", || is_whole(holder, id));
    }
    at_author.kill();
    let _at_newcomer = Running::node(newcomer);
    json(newcomer, &["connect", &connect_string(holder)]);
    let id = place.split_once('@').unwrap().0;
    json(newcomer, &["follow", id]);
    for id in &posts {
        eventually("a holder gives it", || is_whole(newcomer, id));
    }
}

/// The author and one who follows them are processes of their own among the nodes of a devnet, so that each can end alone.
#[test]
fn in_a_devnet_whoever_followed_or_follows_gets_all_of_an_author_who_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().join("net");
    let mut devnet = Running::start(&net, &["devnet", "--nodes", "6", "--empty"]);
    let lines = devnet.wait_ready();
    let connect = lines[0]["connect"].as_str().unwrap();
    let [holder, other_holder, newcomer] =
        [2, 3, 6].map(|number: u32| net.join(number.to_string()));
    let [author, away] = ["author", "away"].map(|name| dir.path().join(name));
    let (mut at_author, at_away) = (Running::node(&author), Running::node(&away));
    for dir in [&author, &away] {
        json(dir, &["connect", connect]);
    }
    let place = connect_string(&author);
    for follower in [&holder, &other_holder, &away] {
        json(follower, &["follow", &place]);
    }
    let first = post(&author, &["only words"]);
    for follower in [&holder, &other_holder, &away] {
        eventually("who follows the author has it", || {
            is_whole(follower, &first)
        });
    }
    // One of them misses what comes now, and comes back when the author is gone.
    assert_eq!(at_away.interrupt("-TERM"), Some(0));
    let picture = picture(dir.path());
    let second = post(
        &author,
        &["look", "--picture", &picture, "--alt", "stripes"],
    );
    for follower in [&holder, &other_holder] {
        eventually("who follows the author has it", || {
            is_whole(follower, &second)
        });
    }
    at_author.kill();
    std::fs::remove_dir_all(&author).unwrap();
    let id = place.split_once('@').unwrap().0;
    json(&newcomer, &["follow", id]);
    let _at_away = Running::node(&away);
    for (who, dir) in [("a newcomer", &newcomer), ("who was away", &away)] {
        for post in [&first, &second] {
            eventually(&format!("{who} has it"), || is_whole(dir, post));
        }
    }
}
