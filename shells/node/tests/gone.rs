//! An author is gone for good: whoever follows them afterwards gets what they posted from those who keep it.

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

#[test]
fn posts_and_pictures_outlive_their_author() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let [author, holder, newcomer] = [0, 1, 2].map(|number| dirs[number].path());
    let (mut at_author, _at_holder) = (Running::node(author), Running::node(holder));
    let place = connect_string(author);
    json(holder, &["follow", &place]);
    let picture = author.join("picture.png");
    // 1.5 MB: what does not repeat cannot be packed.
    let byte = |place: u32| (place.wrapping_mul(2_654_435_761) >> 24) as u8;
    let bytes = (0..1_500_000).map(byte).collect();
    let noise = image::RgbImage::from_raw(1_000, 500, bytes).unwrap();
    noise.save(&picture).unwrap();
    assert!(std::fs::metadata(&picture).unwrap().len() > 1_000_000);
    let picture = picture.to_str().unwrap();
    let post = |args: &[&str]| {
        let posted = json(author, args);
        posted["post_id"].as_str().unwrap().to_owned()
    };
    let posts = [
        post(&["post", "only words"]),
        post(&["post", "look", "--picture", picture, "--alt", "stripes"]),
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
