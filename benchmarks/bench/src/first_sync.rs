//! First sync (FIGURES, "Files"): a real node that follows 500 authors comes to one that keeps their 10,000 posts, over real QUIC
//! and LMDB; beside the same bytes in one stream and the same rows in one commit.

use crate::folder;
use crate::map::Lmdb;
use crate::measure::Figure;
use crate::raw::RawStream;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{ConnectString, PostId, RecentPosts, SignedPost, Verified};
use distsoc_engine::io::{Call, Reply, Status};
use distsoc_engine::profile::ProfileKind;
use distsoc_host::Host;
use distsoc_net::runtime::{block_on, sleep, spawn};
use std::path::Path;
use std::time::{Duration, Instant};

const AUTHORS: usize = 500;
const POSTS_EACH: usize = 20;
const POSTS: usize = AUTHORS * POSTS_EACH;
const TEXT_BYTES: usize = 300;
/// Posts of the first screen.
const SCREEN: usize = 50;
/// What is looked at how often.
const LOOK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(90);

struct Author {
    secret: Secret,
    posts: Vec<SignedPost>,
    list: Verified<RecentPosts>,
}

/// Authors who write in turns.
fn authors() -> Vec<Author> {
    let begun_ms = folder::wall_ms() - 30 * 24 * 60 * 60 * 1000;
    let author = |number: usize| {
        let secret = folder::secret(number as u16);
        let post = |turn: usize| {
            let at_ms = begun_ms + (turn * AUTHORS + number) as u64 * 60_000;
            let mut text = format!("{turn} of {number} ");
            text.extend(std::iter::repeat_n('x', TEXT_BYTES - text.len()));
            folder::post(&secret, at_ms, &text, &[])
        };
        let posts: Vec<SignedPost> = (0..POSTS_EACH).map(post).collect();
        let list = folder::list(&secret, &posts);
        Author {
            secret,
            posts,
            list,
        }
    };
    (0..AUTHORS).map(author).collect()
}

/// The newest of all, newest first.
fn newest(authors: &[Author]) -> Vec<PostId> {
    let mut posts: Vec<&SignedPost> = authors.iter().flat_map(|author| &author.posts).collect();
    posts.sort_unstable_by_key(|post| std::cmp::Reverse((post.body().created_at_ms, post.id())));
    posts.iter().take(SCREEN).map(|post| post.id()).collect()
}

fn make_holder(dir: &Path, authors: &[Author]) {
    let mut batches = Vec::new();
    for author in authors {
        let mut writes = vec![folder::follow(author.secret.node_id())];
        writes.extend(folder::store_list(&author.list));
        writes.extend(author.posts.iter().map(folder::store_post));
        batches.push(writes);
    }
    folder::make(dir, &folder::secret(10_000), batches);
}

/// When what was there, seconds since the dial.
#[derive(Debug, Default)]
struct Synced {
    /// A connection.
    up: f64,
    /// All lists.
    lists: f64,
    /// Any post in the committed feed.
    first: f64,
    /// The 50 newest of all in the committed feed.
    screen: f64,
    /// All taken in by the node.
    taken: f64,
    /// All committed, so in the feed.
    durable: f64,
}

async fn status(host: &Host) -> Status {
    match host.call(Call::Status).await {
        Ok(Reply::Status(status)) => status,
        other => panic!("a node tells its status: {other:?}"),
    }
}

/// Those of these posts, from the first on that is not committed.
async fn not_committed(host: &Host, posts: Vec<PostId>) -> Vec<PostId> {
    let looked_up = host.view(move |view| {
        for (place, id) in posts.iter().enumerate() {
            if view.post(*id)?.is_none() {
                return Ok(posts[place..].to_vec());
            }
        }
        Ok(Vec::new())
    });
    looked_up.await.expect("posts")
}

async fn sync(holder: &Host, follower: &Host, newest: &[PostId], all: &[PostId]) -> Synced {
    let begun = Instant::now();
    let seconds = || begun.elapsed().as_secs_f64();
    let place = ConnectString::at(holder.node_id(), holder.listen());
    let dialling = {
        let follower = follower.clone();
        spawn(async move { follower.call(Call::Connect(place)).await })
    };
    let mut synced = Synced::default();
    let (mut screen, mut rest) = (newest.to_vec(), all.to_vec());
    while synced.durable == 0.0 {
        assert!(begun.elapsed() < PATIENCE, "a sync ends: {synced:?}");
        sleep(LOOK).await;
        if synced.first == 0.0 {
            let page = follower.view(|view| view.feed(None, 1)).await;
            if !page.expect("a feed").entries.is_empty() {
                synced.first = seconds();
            }
        }
        if synced.screen == 0.0 {
            screen = not_committed(follower, screen).await;
            if screen.is_empty() {
                synced.screen = seconds();
            }
        }
        if synced.taken == 0.0 {
            let status = status(follower).await;
            for (at, is_so) in [
                (&mut synced.up, status.peers_social > 0),
                (
                    &mut synced.lists,
                    status.posts + status.posts_wanted == POSTS,
                ),
                (&mut synced.taken, status.posts == POSTS),
            ] {
                if is_so && *at == 0.0 {
                    *at = seconds();
                }
            }
            if synced.taken == 0.0 {
                continue;
            }
        }
        rest = not_committed(follower, rest).await;
        if rest.is_empty() {
            synced.durable = seconds();
        }
    }
    let page = follower.view(|view| view.feed(None, SCREEN)).await;
    let shown = page.expect("a feed").entries.into_iter();
    assert!(shown.map(|entry| entry.id).eq(newest.iter().copied()));
    assert!(dialling.await.is_ok(), "the holder answers");
    synced
}

/// Rows of the follower's two large tables, as long as they are there.
fn rows(authors: &[Author]) -> Vec<(PostId, u64, Vec<u8>)> {
    let posts = authors.iter().flat_map(|author| &author.posts);
    let row = |post: &SignedPost| {
        let mut row = vec![0; 113];
        row.extend_from_slice(&post.bytes().body);
        (post.id(), post.body().created_at_ms, row)
    };
    posts.map(row).collect()
}

fn feed_key(at_ms: u64, id: &PostId) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&at_ms.to_be_bytes());
    key[8..].copy_from_slice(id.as_bytes());
    key
}

/// All rows in one durable commit of LMDB.
fn lmdb_commit(rows: &[(PostId, u64, Vec<u8>)]) -> f64 {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let lmdb = Lmdb::durable(dir.path());
    let begun = Instant::now();
    let mut write = lmdb.env.write_txn().expect("a transaction");
    for (id, at_ms, row) in rows {
        let mut put = |key: &[u8], row: &[u8]| lmdb.rows.put(&mut write, key, row);
        put(id.as_bytes(), row).expect("a row");
        put(&feed_key(*at_ms, id), &row[..32]).expect("a row");
    }
    write.commit().expect("a commit");
    begun.elapsed().as_secs_f64()
}

/// And of SQLite.
fn sqlite_commit(rows: &[(PostId, u64, Vec<u8>)]) -> f64 {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut connection = rusqlite::Connection::open(dir.path().join("posts")).expect("a file");
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536;
             CREATE TABLE posts(id BLOB PRIMARY KEY, row BLOB) WITHOUT ROWID;
             CREATE TABLE feed(key BLOB PRIMARY KEY, author BLOB) WITHOUT ROWID;",
        )
        .expect("SQL");
    let begun = Instant::now();
    let transaction = connection.transaction().expect("SQL");
    {
        let mut post = transaction
            .prepare("INSERT INTO posts VALUES(?, ?)")
            .expect("SQL");
        let mut feed = transaction
            .prepare("INSERT INTO feed VALUES(?, ?)")
            .expect("SQL");
        for (id, at_ms, row) in rows {
            post.execute((&id.as_bytes()[..], row)).expect("SQL");
            let key = feed_key(*at_ms, id);
            feed.execute((&key[..], &row[..32])).expect("SQL");
        }
    }
    transaction.commit().expect("SQL");
    begun.elapsed().as_secs_f64()
}

/// A first sync of 10,000 posts by 500 authors.
pub(crate) fn posts(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 3 } else { 11 };
    let authors = authors();
    let newest = newest(&authors);
    let posts = authors.iter().flat_map(|author| &author.posts);
    let all: Vec<PostId> = posts.map(SignedPost::id).collect();
    let rows = rows(&authors);
    let content: Vec<u8> = rows.iter().flat_map(|(_, _, row)| row.clone()).collect();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let holder_dir = dir.path().join("holder");
    make_holder(&holder_dir, &authors);
    let raw = RawStream::of(content);
    let mut samples: [Vec<f64>; 10] = Default::default();
    block_on(async {
        let holder = folder::start(&holder_dir, ProfileKind::Desktop);
        for round in 0..=rounds {
            let own = folder::secret(20_000 + round as u16);
            let dir = dir.path().join(format!("follower {round}"));
            let follows = authors
                .iter()
                .map(|author| folder::follow(author.secret.node_id()));
            folder::make(&dir, &own, vec![follows.collect()]);
            let begun = Instant::now();
            let bytes = raw.fetch().await;
            let raw_s = begun.elapsed().as_secs_f64();
            assert!(bytes > POSTS * TEXT_BYTES, "{bytes}");
            let (lmdb_s, sqlite_s) = (lmdb_commit(&rows), sqlite_commit(&rows));
            let follower = folder::start(&dir, ProfileKind::Desktop);
            let synced = sync(&holder, &follower, &newest, &all).await;
            follower.stop().await;
            // The first round warms up.
            if round > 0 {
                let floor = raw_s + lmdb_s;
                let of = [
                    synced.durable,
                    synced.screen,
                    synced.first,
                    synced.taken,
                    raw_s,
                    lmdb_s,
                    sqlite_s,
                    floor,
                    synced.up,
                    synced.lists,
                ];
                for (samples, value) in samples.iter_mut().zip(of) {
                    samples.push(value * 1000.0);
                }
            }
        }
        holder.stop().await;
    });
    let over = samples[0].iter().zip(&samples[7]);
    let over = over.map(|(ours, floor)| ours / floor).collect();
    let [
        durable,
        screen,
        first,
        taken,
        raw,
        lmdb,
        sqlite,
        _,
        up,
        lists,
    ] = samples;
    vec![
        Figure::of(
            "10,000 posts: verified, durable, in the feed",
            "ms",
            durable,
        )
        .goal("≤ 300"),
        Figure::of("10,000 posts: the 50 newest in the feed", "ms", screen).goal("≤ 100"),
        Figure::of("10,000 posts: connected", "ms", up),
        Figure::of("10,000 posts: all 500 lists verified", "ms", lists),
        Figure::of("10,000 posts: the first in the feed", "ms", first),
        Figure::of("10,000 posts: the last taken in", "ms", taken),
        Figure::of("the same bytes in one raw stream, cold", "ms", raw),
        Figure::of("the same rows in one commit of LMDB", "ms", lmdb),
        Figure::of("the same rows in one commit of SQLite", "ms", sqlite),
        Figure::of("10,000 posts: over raw stream and LMDB commit", "×", over),
    ]
}
