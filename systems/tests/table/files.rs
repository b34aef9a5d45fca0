//! Towns whose people post pictures.

use super::Table;
use distsoc_engine::domain::{BlobRef, Cut, MediaDescription, PostId, PostText};
use distsoc_engine::io::{Call, CallError, Reply};
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::profile::ProfileKind::{self, Anchor, Desktop};

pub fn profile(kind: ProfileKind, hosted_min: usize) -> NodeProfile {
    NodeProfile {
        hosted_min,
        ..NodeProfile::of(kind)
    }
}

/// An anchor and some desktops, all connected to it and each other.
pub fn town(hosted_min: usize, count: usize) -> Table {
    let mut profiles = vec![profile(Anchor, 0)];
    profiles.extend((1..count).map(|_| profile(Desktop, hosted_min)));
    let mut table = Table::with_profiles(&profiles, &[0]);
    table.pass(60_000);
    table
}

pub fn picture(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|place| (place / 13) as u8 ^ seed).collect()
}

pub fn stage(table: &mut Table, seat: usize, bytes: &[u8]) -> BlobRef {
    let cut = Cut::new(bytes).expect("a length within bounds");
    let staged = table.call(seat, Call::Stage(cut.slices().collect()));
    assert_eq!(staged, Ok(Reply::Done));
    cut.blob()
}

pub fn post_with(table: &mut Table, seat: usize, blob: BlobRef) -> Result<PostId, CallError> {
    let what = Call::Post {
        text: PostText::new("look").expect("a text"),
        parent: None,
        media: vec![(blob, MediaDescription::new("a picture").expect("a text"))],
    };
    match table.call(seat, what)? {
        Reply::Posted(id) => Ok(id),
        other => panic!("{other:?}"),
    }
}

pub fn holds_whole(table: &Table, seat: usize, bytes: &[u8]) -> bool {
    let cut = Cut::new(bytes).expect("a length within bounds");
    cut.slices().all(|slice| {
        let key = (cut.blob().hash, slice.number());
        table.seats[seat].slices.get(&key) == Some(slice.bytes())
    })
}
