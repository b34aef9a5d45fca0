//! What can be wrong with a disk: full, read-only, damaged. Each has its own sentence, and nothing acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a child tells its parent")]

mod shelf;

use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{Heart, HeartBody, NodeId, PostId, Signed, SignedPost};
use distsoc_engine::io::{BatchId, Durability, Input, StorageTrouble, Write};
use distsoc_persistence::Fault;
use proptest::prelude::*;
use shelf::{child_dir, follow, open, own, persist, post, start_child, write_post};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Lines that a child printed under a key.
fn told(test: &str, dir: &Path) -> Vec<(String, String)> {
    let mut child = start_child(test, dir);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines
        .map(Result::unwrap)
        .filter_map(|line| {
            let (_, rest) = line.split_once("TOLD ")?;
            let (key, value) = rest.split_once(' ')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect();
    let status = child.wait().unwrap();
    assert!(status.success(), "the child of {test}: {status}");
    told
}

#[allow(unsafe_code, reason = "std offers no limits of a process")]
fn limit_file_size(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: the pointer is to a value that lives through the call; the handler is none of ours.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}

/// A file that may not grow any more is how a full disk looks to a process.
fn full_disk_child(dir: &Path) {
    let (store, restored, receive) = open(dir).unwrap();
    assert!(restored.files.is_empty());
    limit_file_size(1 << 20);
    let mut kept: Vec<PostId> = Vec::new();
    let mut refused = Vec::new();
    for number in 0..200 {
        let post = post(&own(), &"x".repeat(15_000), number);
        match persist(&store, &receive, number, vec![write_post(&post)]) {
            Ok(()) => {
                println!("TOLD kept {}", post.id());
                kept.push(post.id());
            }
            Err(trouble) => refused.push(trouble),
        }
    }
    assert!(kept.len() > 10, "{} were kept", kept.len());
    assert!(
        refused
            .iter()
            .all(|trouble| *trouble == StorageTrouble::Full),
        "{refused:?}"
    );
    assert!(refused.len() > 100);
    for id in &kept {
        assert!(store.view().post(*id).unwrap().is_some(), "reads go on");
    }
    store.close();
}

#[test]
fn a_full_disk_refuses_writes_and_keeps_what_it_took() {
    if let Some(dir) = child_dir() {
        return full_disk_child(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let told = told(
        "a_full_disk_refuses_writes_and_keeps_what_it_took",
        dir.path(),
    );
    let (store, restored, receive) = open(dir.path()).unwrap();
    let there: BTreeSet<String> = restored
        .files
        .iter()
        .map(|file| file.id.to_string())
        .collect();
    assert!(told.len() > 10);
    assert!(told.iter().all(|(_, id)| there.contains(id)));
    let late = post(&own(), "room again", 5_000);
    persist(&store, &receive, 5_000, vec![write_post(&late)]).unwrap();
}

fn no_space_child(dir: &Path) {
    limit_file_size(0);
    let Err(fault) = open(dir) else {
        panic!("it opened");
    };
    println!("TOLD fault {fault}");
    assert!(matches!(fault, Fault::Full { .. }), "{fault:?}");
}

#[test]
fn a_start_without_any_space_says_so() {
    if let Some(dir) = child_dir() {
        return no_space_child(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let told = told("a_start_without_any_space_says_so", &dir.path().join("new"));
    assert!(told[0].1.contains("is full: free some space"), "{told:?}");
}

#[allow(unsafe_code, reason = "std offers no way to give rights away")]
fn give_rights_away() {
    // SAFETY: no pointers.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setuid(65_534), 0);
        }
    }
}

fn read_only_child(dir: &Path) {
    give_rights_away();
    let Err(fault) = open(dir) else {
        panic!("it opened");
    };
    println!("TOLD fault {fault}");
    assert!(matches!(fault, Fault::ReadOnly { .. }), "{fault:?}");
}

#[test]
fn a_read_only_folder_says_so() {
    use std::os::unix::fs::PermissionsExt;
    if let Some(dir) = child_dir() {
        return read_only_child(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (store, ..) = open(&data).unwrap();
    store.close();
    drop(store);
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(dir.path(), 0o755);
    for (path, mode) in [
        ("db/data.mdb", 0o444),
        ("db/lock.mdb", 0o444),
        ("lock", 0o444),
        ("db", 0o555),
        ("", 0o555),
    ] {
        set(&data.join(path), mode);
    }
    let told = told("a_read_only_folder_says_so", &data);
    set(&data, 0o755);
    set(&data.join("db"), 0o755);
    assert!(
        told[0]
            .1
            .contains("cannot be written: check its permissions"),
        "{told:?}"
    );
}

fn stored(dir: &Path, count: u64) {
    let (store, _, receive) = open(dir).unwrap();
    for number in 0..count {
        let post = post(&own(), &format!("{number} {}", "y".repeat(3_000)), number);
        persist(&store, &receive, number, vec![write_post(&post)]).unwrap();
    }
    store.close();
}

/// The file ends before its own tables do: at no length does that end the process, and it is never taken for sound.
fn truncated_child(dir: &Path) {
    match open(dir) {
        Err(Fault::Foreign { .. } | Fault::Corrupt { .. }) => println!("TOLD open refused"),
        Err(other) => panic!("{other:?}"),
        Ok((store, restored, _)) => {
            let damaged = restored
                .files
                .iter()
                .any(|file| !matches!(store.view().post(file.id), Ok(Some(_))));
            let feed = store.view().feed(None, 1_000);
            println!(
                "TOLD open damaged-{damaged}-{}",
                feed.is_ok_and(|page| page.entries.len() == 100)
            );
        }
    }
}

#[test]
fn a_database_cut_short_never_ends_the_process() {
    if let Some(dir) = child_dir() {
        return truncated_child(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), 100);
    let path = dir.path().join("db/data.mdb");
    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for share in [3, 20, 45, 70, 95] {
        let length = whole.len() * share / 100 / 4_096 * 4_096;
        std::fs::write(&path, &whole[..length]).unwrap();
        let told = told("a_database_cut_short_never_ends_the_process", dir.path());
        refused += u32::from(told[0].1 == "refused");
        assert_ne!(
            told[0].1, "damaged-false-true",
            "{share} % of it was taken for all"
        );
    }
    assert!(refused > 0);
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(open(dir.path()).unwrap().1.files.len(), 100);
}

/// Damage within the file: some sentence, or nothing where the damage hit nothing that is used; never a crash.
#[test]
fn garbage_in_a_row_names_its_table() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open(dir.path()).unwrap();
    let friend = Secret::from_seed(&[2; 32]).node_id();
    persist(
        &store,
        &receive,
        1,
        vec![
            follow(friend),
            write_post(&post(&own(), "a marked text", 1)),
        ],
    )
    .unwrap();
    store.close();
    drop(store);
    let path = dir.path().join("db/data.mdb");
    let mut bytes = std::fs::read(&path).unwrap();
    // The relationship's row is two CBOR values behind the followed id; the tag byte of its array is broken.
    let at = bytes
        .windows(32)
        .rposition(|window| window == friend.as_bytes())
        .unwrap();
    bytes[at + 32] ^= 0xff;
    std::fs::write(&path, &bytes).unwrap();
    let fault = open(dir.path()).err().unwrap();
    assert!(fault.to_string().contains("'relationships'"), "{fault}");
}

fn heart(person: &Secret, post: &SignedPost) -> Heart {
    let body = HeartBody {
        person: person.node_id(),
        author: post.body().author,
        post: post.id(),
        seq: 5,
        given: 1,
    };
    Signed::sign(body, person)
}

/// What can be learned again is left out where it is damaged; what is one's own stops the start.
#[test]
fn a_damaged_row_of_another_is_left_out_and_an_own_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open(dir.path()).unwrap();
    let friend = Secret::from_seed(&[2; 32]);
    let post = post(&friend, "a text", 1);
    let hearts = [heart(&friend, &post), heart(&own(), &post)];
    let mut writes: Vec<Write> = hearts.iter().cloned().map(Write::Heart).collect();
    writes.push(write_post(&post));
    persist(&store, &receive, 1, writes).unwrap();
    store.close();
    drop(store);
    let path = dir.path().join("db/data.mdb");
    let damage = |person: &Secret| {
        let mut bytes = std::fs::read(&path).unwrap();
        let key = [*post.id().as_bytes(), *person.node_id().as_bytes()].concat();
        let places = bytes.windows(64).enumerate();
        let places: Vec<usize> = places
            .filter(|(_, window)| *window == key)
            .map(|(place, _)| place)
            .collect();
        for place in places {
            // In the id of whoever signed it, which the row's key has too.
            bytes[place + 64 + 20] ^= 1;
        }
        std::fs::write(&path, &bytes).unwrap();
    };
    damage(&friend);
    let (store, restored, _) = open(dir.path()).unwrap();
    let expected = hearts[1..]
        .iter()
        .map(|heart| ((**heart).clone(), heart.hash()));
    assert_eq!(restored.hearts, expected.collect::<Vec<_>>());
    assert_eq!(restored.files.len(), 1);
    store.close();
    drop(store);
    damage(&own());
    let fault = open(dir.path()).err().unwrap();
    assert!(fault.to_string().contains("'hearts'"), "{fault}");
}

#[derive(Clone, Debug)]
enum Step {
    /// A post of one of four authors at a time arrives.
    Arrive(u8, u16),
    /// One of them is followed, or not any more.
    Follow(u8, bool),
    /// The feed is read in pages of this size, and is what a plain list says.
    Read(u8),
}

#[test]
fn without_its_key_a_database_gets_no_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = open(dir.path()).unwrap();
    store.close();
    let made = distsoc_persistence::secret::create(dir.path(), &[7; 32]);
    assert!(matches!(made, Err(Fault::BadKeyFile { .. })), "{made:?}");
    assert!(!distsoc_persistence::secret::path(dir.path()).exists());
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4u8, any::<u16>()).prop_map(|(author, at)| Step::Arrive(author, at)),
        2 => (1..4u8, any::<bool>()).prop_map(|(author, on)| Step::Follow(author, on)),
        1 => (1..20u8).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_are_what_a_plain_list_says(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let (store, _, receive) = open(dir.path()).unwrap();
        let authors: Vec<Secret> = (0..4).map(|number| Secret::from_seed(&[number + 1; 32])).collect();
        let mut model: BTreeMap<(u64, PostId), NodeId> = BTreeMap::new();
        let mut followed: BTreeSet<NodeId> = BTreeSet::from([own().node_id()]);
        let (mut batch, mut last) = (0, Step::Read(5));
        for step in steps.into_iter().chain([Step::Read(3)]) {
            batch += 1;
            match &step {
                Step::Arrive(author, at) => {
                    let author = &authors[usize::from(*author)];
                    let post = post(author, &format!("{batch}"), u64::from(*at));
                    model.insert((u64::from(*at), post.id()), author.node_id());
                    store.persist(BatchId(batch), vec![write_post(&post)], Durability::WriteBehind);
                }
                Step::Follow(author, on) => {
                    let node = authors[usize::from(*author)].node_id();
                    let write = match on {
                        true => follow(node),
                        false => Write::Relationship { node, relationship: None },
                    };
                    if *on { followed.insert(node) } else { followed.remove(&node) };
                    store.persist(BatchId(batch), vec![write], Durability::WriteBehind);
                }
                Step::Read(size) => {
                    persist(&store, &receive, batch, Vec::new()).unwrap();
                    let expected: Vec<PostId> = model
                        .iter()
                        .rev()
                        .filter(|(_, author)| followed.contains(author))
                        .map(|((_, id), _)| *id)
                        .collect();
                    let (mut seen, mut cursor) = (Vec::new(), None);
                    loop {
                        let page = store.view().feed(cursor, usize::from(*size)).unwrap();
                        prop_assert!(page.entries.len() <= usize::from(*size));
                        seen.extend(page.entries.iter().map(|entry| entry.id));
                        cursor = page.next;
                        if cursor.is_none() {
                            break;
                        }
                    }
                    prop_assert_eq!(seen, expected, "after {:?}", last);
                }
            }
            last = step;
        }
        while let Ok(input) = receive.try_recv() {
            prop_assert!(!matches!(input, Input::PersistFailed(..)));
        }
        store.close();
    }
}
