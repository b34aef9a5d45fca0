//! Blobs that come and go.

use super::*;
use distsoc_engine::domain::Cut;
use distsoc_engine::entropy::Entropy;

const SHARE: u64 = 8 * 1024 * 1024;

fn blob_of(length: usize, seed: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|place| (place / 11) as u8).collect();
    let head = seed.to_be_bytes();
    let head_bytes = head.len().min(length);
    bytes[..head_bytes].copy_from_slice(&head[4 - head_bytes..]);
    bytes
}

fn slices_of(bytes: &[u8]) -> Vec<Verified<Slice>> {
    Cut::new(bytes).unwrap().slices().collect()
}

fn store(blobs: &Blobs, slices: &[Verified<Slice>]) -> bool {
    let slices: Vec<_> = slices.iter().collect();
    blobs.store(&slices).iter().all(Result::is_ok)
}

#[test]
fn what_was_stored_is_there_after_a_start_and_what_was_forgotten_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    let [whole, partial, gone] = [(300_000, 1), (500_000, 2), (5, 3)];
    let of = |(length, seed)| slices_of(&blob_of(length, seed));
    let (whole, mut partial, gone) = (of(whole), of(partial), of(gone));
    partial.retain(|slice| ![2, 5].contains(&slice.number()));
    for slices in [&whole, &partial, &gone] {
        assert!(store(&blobs, slices));
    }
    let forgotten = gone[0].blob().hash;
    blobs.forget(&[forgotten]).unwrap();
    let (used, before) = (blobs.used_bytes(), blobs.stored());
    blobs.flush().unwrap();
    drop(blobs);
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    assert_eq!((blobs.stored(), blobs.used_bytes()), (before, used));
    let of = |slices: &[Verified<Slice>]| {
        let hash = slices[0].blob().hash;
        let mut stored = blobs.stored().into_iter();
        stored
            .find(|one| one.hash == hash)
            .map_or_else(Vec::new, |one| one.slices)
    };
    assert_eq!(of(&whole), std::iter::once(0..5).collect::<Vec<_>>());
    assert_eq!(of(&partial), vec![0..2, 3..5, 6..8]);
    assert_eq!(of(&gone), Vec::new());
    for slice in whole.iter().chain(&partial) {
        let there = blobs.get(&slice.blob().hash, slice.number()).unwrap();
        assert_eq!(there.as_deref(), Some(&slice.bytes()[..]));
    }
    let hash = partial[0].blob().hash;
    assert_eq!(blobs.run_of(&hash, 3, 10).unwrap().len(), 2);
    assert_eq!(blobs.run_of(&hash, 2, 10).unwrap().len(), 0);
    assert_eq!(blobs.get(&forgotten, 0).unwrap(), None);
}

#[test]
fn a_blob_takes_as_many_bytes_as_is_said_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    let mut said = 0;
    for length in [
        1, 4_080, 4_081, 16_384, 16_385, 65_536, 65_537, 131_072, 500_001,
    ] {
        let slices = slices_of(&blob_of(length, length as u32));
        assert!(store(&blobs, &slices));
        said += slices[0].blob().disk_bytes();
        assert_eq!(blobs.used_bytes(), said, "{length}");
    }
}

/// The files of random blobs that come and go never pass their share, and room that was freed is used again.
#[test]
fn the_files_never_pass_their_share_and_freed_room_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    let locks = blobs.file_bytes();
    let most = SHARE * SHELVES as u64 + locks;
    let mut entropy = Entropy::from_seed([7; 32]);
    let mut there: Vec<BlobHash> = Vec::new();
    let mut stored_bytes = 0u64;
    for number in 0..400u32 {
        let length = 1 + entropy.below(if number % 5 == 0 { 4_000_000 } else { 200_000 });
        let slices = slices_of(&blob_of(length as usize, number));
        while !store(&blobs, &slices) {
            assert!(blobs.file_bytes() <= most);
            assert!(!there.is_empty(), "a blob has room in an empty store");
            let place = entropy.below(there.len() as u64) as usize;
            let hash = there.swap_remove(place);
            blobs.forget(&[hash]).unwrap();
        }
        assert!(blobs.file_bytes() <= most);
        stored_bytes += length;
        there.push(slices[0].blob().hash);
    }
    assert!(stored_bytes > most, "enough to fill it");
    assert!(blobs.used_bytes() <= blobs.room_bytes());
    // Down to nothing, and full again.
    blobs.forget(&there).unwrap();
    assert_eq!((blobs.used_bytes(), blobs.stored().len()), (0, 0));
    let mut filled = 0;
    for seed in 0..200 {
        let slices = slices_of(&blob_of(1_000_000, seed));
        if !store(&blobs, &slices) {
            break;
        }
        filled += 1_000_000;
    }
    assert!(filled * 100 > most * 80, "{filled} of {most}");
    assert!(blobs.file_bytes() <= most);
}

#[test]
fn a_smaller_share_is_kept_to_once_there_is_little_enough() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    let mut hashes = Vec::new();
    for seed in 0..70 {
        let slices = slices_of(&blob_of(1_000_000, seed));
        assert!(store(&blobs, &slices));
        hashes.push(slices[0].blob().hash);
    }
    let before = blobs.file_bytes();
    let share = SHARE / 2;
    blobs.set_share(share).unwrap();
    assert!(!blobs.is_within());
    while blobs.shrink().unwrap() == Shrunk::Step {}
    assert!(!blobs.is_within(), "there is more than fits");
    // Whatever was forgotten from: what is left is moved to where there is room.
    let more = slices_of(&blob_of(30, 1_000));
    for hash in &hashes[..35] {
        blobs.forget(&[*hash]).unwrap();
    }
    let shrunk = loop {
        match blobs.shrink().unwrap() {
            Shrunk::Step => {}
            other => break other,
        }
    };
    assert_eq!(shrunk, Shrunk::Done);
    assert!(blobs.is_within());
    assert!(blobs.file_bytes() <= share * SHELVES as u64 + 12 * 16_384);
    assert!(before > share * SHELVES as u64);
    assert!(store(&blobs, &more));
    drop(blobs);
    let blobs = Blobs::open(dir.path(), share).unwrap();
    assert_eq!(blobs.stored().len(), 36);
    for (hash, seed) in hashes.iter().zip(0..).skip(35) {
        let slices = slices_of(&blob_of(1_000_000, seed));
        let there = blobs.run_of(hash, 0, 100).unwrap();
        assert!(slices.iter().map(|slice| slice.bytes()).eq(&there));
    }
    blobs.set_share(SHARE).unwrap();
    assert!(blobs.is_within());
}

#[test]
fn a_slice_on_two_shelves_is_kept_on_one() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    let slices = slices_of(&blob_of(200_000, 1));
    assert!(store(&blobs, &slices));
    let used = blobs.used_bytes();
    let hash = slices[0].blob().hash;
    let from = blobs.state().index.shelf_of(&hash, 1).unwrap();
    let other = &blobs.shelves[usize::from((from + 1) % SHELVES as u8)];
    assert!(other.take(&[], &hash, 1, slices[1].bytes()).unwrap());
    drop(blobs);
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    assert_eq!(blobs.used_bytes(), used);
    // The other goes with the next commit there, and a start needs none.
    assert!(blobs.has_gone());
    blobs.flush().unwrap();
    drop(blobs);
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    assert!(!blobs.has_gone());
    assert_eq!(
        blobs.run_of(&hash, 0, 100).unwrap().len(),
        slices.len(),
        "each is there once"
    );
    blobs.forget(&[hash]).unwrap();
    blobs.flush().unwrap();
    drop(blobs);
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    assert_eq!((blobs.stored().len(), blobs.used_bytes()), (0, 0));
}

/// What is forgotten takes no room, costs no commit of its own, and never goes with what came after it.
#[test]
fn what_is_forgotten_goes_with_the_next_that_comes() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    let [first, second] = [1, 2].map(|seed| slices_of(&blob_of(600_000, seed)));
    let hash = first[0].blob().hash;
    assert!(store(&blobs, &first));
    blobs.forget(&[hash]).unwrap();
    assert_eq!((blobs.used_bytes(), blobs.stored().len()), (0, 0));
    assert_eq!(blobs.get(&hash, 0).unwrap(), None);
    assert!(blobs.has_gone());
    // A crash brings it back, whole.
    drop(blobs);
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    assert_eq!(blobs.run_of(&hash, 0, 100).unwrap().len(), first.len());
    // In part again before it went, and then another on every shelf.
    blobs.forget(&[hash]).unwrap();
    assert!(store(&blobs, &first[3..5]));
    for seed in 10..40 {
        assert!(store(&blobs, &slices_of(&blob_of(600_000, seed))));
    }
    assert!(store(&blobs, &second));
    assert!(!blobs.has_gone());
    let (used, before) = (blobs.used_bytes(), blobs.stored());
    drop(blobs);
    let blobs = Blobs::open(dir.path(), SHARE).unwrap();
    assert_eq!((blobs.stored(), blobs.used_bytes()), (before, used));
    assert_eq!(blobs.run_of(&hash, 3, 100).unwrap().len(), 2);
    assert_eq!(blobs.get(&hash, 2).unwrap(), None);
}
