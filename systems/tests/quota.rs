//! PROTOCOL section 7, quota, by whole nodes: what goes when the disk is nearly full, what comes by then, and room for uploads.

mod table;

use distsoc_engine::domain::{Cut, PostId};
use distsoc_engine::io::{Call, CallError, DiskUsage, Input, Reply, StorageTrouble};
use distsoc_engine::profile::ProfileKind::Desktop;
use distsoc_engine::wire::{FileRequest, PullSyncRequest};
use table::Table;
use table::files::{holds_whole, picture, post_with, profile, stage, town};

#[test]
fn the_disk_is_nearly_full_and_what_is_worth_least_goes() {
    let mut table = town(0, 3);
    table.follow(1, 2);
    let ids: Vec<PostId> = (0..50)
        .map(|number| table.post(2, &format!("post {number}")))
        .collect();
    let own = table.post(1, "my own");
    table.pass(60_000);
    assert!(ids.iter().all(|id| table.seats[1].posts.contains_key(id)));
    assert_eq!(
        table.call(
            1,
            Call::Pin {
                post: ids[7],
                is_pinned: true
            }
        ),
        Ok(Reply::Done)
    );
    table.seats[1]
        .inputs
        .push_back(Input::Disk(nearly_full(99_000)));
    table.settle();
    let posts = &table.seats[1].posts;
    let gone: Vec<usize> = (0..50)
        .filter(|place| !posts.contains_key(&ids[*place]))
        .collect();
    // 9 kB lack, in pages of 4 KiB; all are worth the same, so the smaller ids go.
    assert_eq!(gone.len(), 3, "{gone:?}");
    assert!(posts.contains_key(&ids[7]) && posts.contains_key(&own));
    let mut sorted = ids.clone();
    sorted.retain(|id| *id != ids[7]);
    sorted.sort_unstable();
    assert!(gone.iter().all(|place| sorted[..3].contains(&ids[*place])));
    let Ok(Reply::Storage(view)) = table.call(1, Call::Storage { preview: 5 }) else {
        panic!("no view");
    };
    let next: Vec<PostId> = view.next_to_go.iter().map(|next| next.post).collect();
    assert_eq!(next, sorted[3..8]);
    assert!(view.own.all > 0 && view.pinned_bytes > 0 && view.followed_bytes > 0);
    let Ok(Reply::Kept(kept)) = table.call(1, Call::ExplainPost(sorted[5])) else {
        panic!("no explanation");
    };
    assert_eq!(kept.rank, Some(2));
    let Ok(Reply::Kept(kept)) = table.call(1, Call::ExplainPost(own)) else {
        panic!("no explanation");
    };
    assert_eq!((kept.rank, kept.worth), (None, None));
}

fn nearly_full(row_bytes: u64) -> DiskUsage {
    DiskUsage {
        budget_bytes: 400_000,
        row_bytes,
        row_room_bytes: 100_000,
        blob_room_bytes: 300_000,
        ..DiskUsage::default()
    }
}

/// Seat 1 loves a post with a picture by each of two authors, which all others keep as well; something happens; then its disk is nearly
/// full. Gives back the post that stays, since they are worth the same, and how many requests for parts of it were sent since.
fn one_of_two_loved_posts_stays(
    table: &mut Table,
    happens: impl FnOnce(&mut Table),
) -> (PostId, usize) {
    let mut loved = Vec::new();
    for author in [2, 3] {
        for seat in [1, 2, 3, 4].into_iter().filter(|seat| *seat != author) {
            table.follow(seat, author);
        }
        let blob = stage(table, author, &picture(400_000, author as u8));
        let post = post_with(table, author, blob).expect("it is staged");
        table.pass(60_000);
        let heart = Call::Heart { post, given: true };
        assert_eq!(table.call(1, heart), Ok(Reply::Done));
        assert!(copies_seen(table, post) > 0, "it came from somebody");
        loved.push(post);
    }
    table.pass(60_000);
    happens(table);
    let before = table.requests[&FileRequest::SPEC.code];
    let usage = nearly_full(95_100);
    table.seats[1].inputs.push_back(Input::Disk(usage));
    table.settle();
    table.seats[1]
        .inputs
        .push_back(Input::Disk(nearly_full(85_000)));
    table.settle();
    loved.sort_unstable();
    assert!(!table.seats[1].posts.contains_key(&loved[0]));
    assert!(table.seats[1].posts.contains_key(&loved[1]));
    table.pass(60 * 60_000);
    let asked = table.requests[&FileRequest::SPEC.code] - before;
    (loved[1], asked)
}

/// Copies of a post that count at seat 1.
fn copies_seen(table: &mut Table, post: PostId) -> u8 {
    match table.call(1, Call::ExplainPost(post)) {
        Ok(Reply::Kept(kept)) => kept.worth.expect("it is another's").0.copies,
        other => panic!("{other:?}"),
    }
}

/// What is worth much goes for its copies only once two holders have shown that they have it still.
#[test]
fn holders_are_asked_again_before_what_is_worth_much_goes_for_its_copies() {
    let mut table = town(0, 5);
    let (stays, asked) = one_of_two_loved_posts_stays(&mut table, |_| ());
    assert!((2..=4).contains(&asked), "{asked} were asked");
    assert!(copies_seen(&mut table, stays) >= 2, "they have it");
}

/// More files in doubt than a frame looks at: what goes in the end is still the least worth of all.
#[test]
fn whoever_doubts_many_files_lets_the_least_worth_go_all_the_same() {
    let mut table = town(0, 5);
    for seat in [1, 3, 4] {
        table.follow(seat, 2);
    }
    let mut loved = Vec::new();
    for number in 0..24 {
        let post = table.post(2, &format!("loved {number}"));
        table.pass(10_000);
        let heart = Call::Heart { post, given: true };
        assert_eq!(table.call(1, heart), Ok(Reply::Done));
        assert!(copies_seen(&mut table, post) > 0);
        loved.push(post);
    }
    let usage = nearly_full(95_100);
    table.seats[1].inputs.push_back(Input::Disk(usage));
    table.pass(1_000);
    loved.sort_unstable();
    let posts = &table.seats[1].posts;
    let gone: Vec<PostId> = loved
        .iter()
        .filter(|id| !posts.contains_key(*id))
        .copied()
        .collect();
    assert!(!gone.is_empty() && gone.len() < loved.len());
    assert_eq!(gone, loved[..gone.len()]);
}

/// Copies that cannot be proved are none.
#[test]
fn whoever_has_it_no_more_counts_no_more() {
    let mut table = town(0, 5);
    let lose = |table: &mut Table| {
        for seat in [0, 2, 3, 4] {
            table.seats[seat].slices.clear();
        }
    };
    let (stays, asked) = one_of_two_loved_posts_stays(&mut table, lose);
    assert!((1..=4).contains(&asked), "{asked} were asked");
    assert_eq!(copies_seen(&mut table, stays), 0);
}

/// A picture of one's own that has no room gets it: what is worth least of others goes, before the upload is refused.
#[test]
fn what_is_worth_least_makes_room_for_an_upload() {
    let mut table = town(0, 3);
    table.follow(1, 2);
    let of_other = picture(400_000, 1);
    let blob = stage(&mut table, 2, &of_other);
    let id = post_with(&mut table, 2, blob).expect("it is staged");
    table.pass(60_000);
    assert!(holds_whole(&table, 1, &of_other));
    let usage = DiskUsage {
        budget_bytes: 4_000_000,
        row_room_bytes: 1_000_000,
        blob_bytes: 900_000,
        blob_room_bytes: 1_000_000,
        ..DiskUsage::default()
    };
    table.seats[1].inputs.push_back(Input::Disk(usage));
    for (length, stays) in [(50_000, true), (200_000, false)] {
        let own = picture(length, 2);
        let cut = Cut::new(&own).expect("a length within bounds");
        let staged = Call::Stage(cut.slices().collect());
        let staged = table.try_call(1, staged, 60_000);
        assert_eq!(staged, Ok(Reply::Done));
        assert!(holds_whole(&table, 1, &own));
        assert_eq!(table.seats[1].posts.contains_key(&id), stays, "{length}");
        assert_eq!(holds_whole(&table, 1, &of_other), stays, "{length}");
    }
}

/// Rows that fill their share and do not go: what has no room is not asked for again and again.
#[test]
fn what_has_no_room_among_the_rows_is_not_pulled_again_and_again() {
    let mut table = town(0, 3);
    table.follow(1, 2);
    table.seats[1]
        .inputs
        .push_back(Input::Disk(nearly_full(100_000)));
    table.settle();
    let long = "x".repeat(6_000);
    let id = table.post(2, &long);
    table.pass(1_000);
    let pulls = |table: &Table| table.requests[&PullSyncRequest::SPEC.code];
    let before = pulls(&table);
    table.pass(60_000);
    assert!(pulls(&table) < before + 5, "{}", pulls(&table) - before);
    assert!(!table.seats[1].posts.contains_key(&id));
    table.seats[1]
        .inputs
        .push_back(Input::Disk(nearly_full(50_000)));
    table.pass(60_000);
    assert!(table.seats[1].posts.contains_key(&id), "there is room now");
}

/// Slices that had no room are asked for again as soon as the person gives more, not when the pause ends.
#[test]
fn a_raised_budget_ends_the_wait_for_room() {
    let mut table = town(0, 3);
    table.follow(1, 2);
    let bytes = picture(200_000, 1);
    let blob = stage(&mut table, 2, &bytes);
    table.seats[1].has_no_room_for_slices = true;
    let id = post_with(&mut table, 2, blob).expect("it is staged");
    table.pass(5_000);
    assert!(table.seats[1].posts.contains_key(&id));
    table.seats[1].has_no_room_for_slices = false;
    table.pass(1_000);
    assert!(!holds_whole(&table, 1, &bytes), "it waits");
    let usage = DiskUsage {
        budget_bytes: 4_000_000,
        row_room_bytes: 1_000_000,
        blob_room_bytes: 3_000_000,
        ..DiskUsage::default()
    };
    table.seats[1].inputs.push_back(Input::Disk(usage));
    table.pass(3_000);
    assert!(holds_whole(&table, 1, &bytes));
}

/// Seat 1 follows seat 2, and of fifty posts of theirs most had to go. Gives back all of them.
fn overfull() -> (Table, Vec<PostId>) {
    let mut table = town(0, 3);
    table.follow(1, 2);
    let all = (0..50).map(|number| table.post(2, &format!("post {number}")));
    let all = all.collect();
    table.pass(60_000);
    for _ in 0..12 {
        let fuller = Input::Disk(nearly_full(99_000));
        table.seats[1].inputs.push_back(fuller);
        table.settle();
    }
    let kept = table.seats[1].posts.len();
    assert!(kept < 20, "what is worth least goes: {kept} stay");
    (table, all)
}

/// A disk that stays nearly full: what is worth as much as what is kept comes once, and what went does not come again.
#[test]
fn what_is_worth_as_much_comes_into_a_full_node_once() {
    let (mut table, first) = overfull();
    let kept = table.seats[1].posts.len();
    let full = nearly_full(90_000);
    table.seats[1].inputs.push_back(Input::Disk(full));
    let same: Vec<PostId> = (0..8)
        .map(|number| table.post(2, &format!("another {number}")))
        .collect();
    table.pass(60_000);
    let taken = |table: &Table, ids: &[PostId]| {
        let posts = &table.seats[1].posts;
        ids.iter().filter(|id| posts.contains_key(id)).count()
    };
    assert_eq!(taken(&table, &same), same.len());
    table.pass(3 * 60 * 60_000);
    assert_eq!(taken(&table, &first), kept, "what went stays away");
    table.pass(3 * 24 * 60 * 60_000);
    let newer: Vec<PostId> = (0..4)
        .map(|number| table.post(2, &format!("days later {number}")))
        .collect();
    table.pass(60_000);
    assert_eq!(taken(&table, &newer), newer.len());
}

/// After a start what is here is worth no more than what comes, or a full node would take in nothing any more.
#[test]
fn a_full_node_that_started_again_takes_in_what_is_new() {
    let (mut table, _) = overfull();
    let kept: Vec<PostId> = table.seats[1].posts.keys().copied().collect();
    table.restart_on(1, profile(Desktop, 0), nearly_full(92_000));
    table.pass(60_000);
    for id in kept {
        assert_eq!(copies_seen(&mut table, id), 1, "it came from somebody");
    }
    let new: Vec<PostId> = (0..12)
        .map(|number| table.post(2, &format!("after the start {number}")))
        .collect();
    table.pass(60_000);
    let posts = &table.seats[1].posts;
    let taken = new.iter().filter(|id| posts.contains_key(id)).count();
    assert_eq!(taken, new.len());
}

/// What the disk did not take waits for no post, and takes nothing of what may be uploaded.
#[test]
fn an_upload_that_failed_leaves_room_for_the_next() {
    let mut table = town(0, 2);
    let usage = DiskUsage {
        budget_bytes: 4_000_000,
        row_room_bytes: 1_000_000,
        blob_room_bytes: 3_000_000,
        ..DiskUsage::default()
    };
    table.seats[1].inputs.push_back(Input::Disk(usage));
    let upload = |table: &mut Table, seed| {
        let bytes = picture(700_000, seed);
        let cut = Cut::new(&bytes).expect("a length within bounds");
        table.try_call(1, Call::Stage(cut.slices().collect()), 60_000)
    };
    table.seats[1].disk_trouble = Some(StorageTrouble::Full);
    let failed = Err(CallError::Storage(StorageTrouble::Full));
    assert_eq!(upload(&mut table, 1), failed);
    table.seats[1].disk_trouble = None;
    assert_eq!(upload(&mut table, 2), Ok(Reply::Done));
    let over = upload(&mut table, 3);
    assert!(matches!(over, Err(CallError::Refused(why)) if why.contains("no post names yet")));
}
