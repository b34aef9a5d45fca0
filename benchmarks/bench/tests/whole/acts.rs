//! What may happen, in any order.

use distsoc_engine::io::StorageTrouble;
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// An author posts a few times.
    Publish {
        author: usize,
        posts: u8,
        letters: u16,
        /// Bytes of a blob for each of them.
        blob: Option<u32>,
        /// And one that there was before.
        shared: Option<u16>,
        /// Written so many days ago.
        days: u16,
    },
    /// An author posts so often that only the list tells of it.
    Burst {
        author: usize,
        posts: u16,
        letters: u16,
        days: u16,
    },
    /// The person posts.
    Own {
        letters: u16,
        blob: Option<u32>,
        shared: Option<u16>,
    },
    /// A picture that no post may ever name.
    Stage(u32),
    DeleteOwn(u16),
    Delete {
        author: usize,
        at: u16,
    },
    Follow(usize),
    Unfollow(usize),
    /// Somebody gives a heart or takes it back, and a peer brings it.
    Heart {
        person: usize,
        reporter: usize,
        author: usize,
        at: u16,
    },
    /// Everybody does, for one post.
    Applause {
        author: usize,
        at: u16,
    },
    /// Somebody whom nobody knows gives one.
    StrangersHeart {
        reporter: usize,
        author: usize,
        at: u16,
    },
    OwnHeart {
        author: usize,
        at: u16,
    },
    Pin {
        author: usize,
        at: u16,
    },
    Pass {
        ms: u32,
    },
    Jump {
        hours: u32,
    },
    Budget(u64),
    Restart,
    /// What is on its way to the disk is lost.
    Crash,
    Disconnect(usize),
    Silence(usize),
    /// A peer asks the node for a blob.
    Ask {
        peer: usize,
        at: u16,
    },
    /// The disk takes nothing of the next batches.
    Refuse {
        batches: u8,
        trouble: StorageTrouble,
    },
}

use crate::cloud::{AUTHORS, PEERS};

/// The least and the most that everything on the disk may take.
pub(crate) const BUDGETS: std::ops::Range<u64> = 16_000_000..28_000_000;

fn blob() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![
        2 => Just(None),
        2 => (1..70_000u32).prop_map(Some),
        4 => (70_000..900_000u32).prop_map(Some),
        1 => (900_000..2_500_000u32).prop_map(Some),
    ]
}

fn shared() -> impl Strategy<Value = Option<u16>> {
    prop::option::weighted(0.15, any::<u16>())
}

fn days() -> impl Strategy<Value = u16> {
    prop_oneof![3 => Just(0u16), 2 => 0..20u16, 2 => 0..2_000u16]
}

/// Acts; those of a troubled disk only where it may refuse.
pub(crate) fn acts(refuses: bool) -> impl Strategy<Value = Vec<Act>> {
    let author = 0..AUTHORS;
    let publish = (
        author.clone(),
        1..9u8,
        0..6_000u16,
        blob(),
        shared(),
        days(),
    );
    let publish = publish.prop_map(
        |(author, posts, letters, blob, shared, days)| Act::Publish {
            author,
            posts,
            letters,
            blob,
            shared,
            days,
        },
    );
    let burst = (author.clone(), 20..250u16, 0..9_000u16, days());
    let burst = burst.prop_map(|(author, posts, letters, days)| Act::Burst {
        author,
        posts,
        letters,
        days,
    });
    let own = (0..6_000u16, blob(), shared());
    let own = own.prop_map(|(letters, blob, shared)| Act::Own {
        letters,
        blob,
        shared,
    });
    let at = any::<u16>();
    let heart = (0..PEERS, 0..PEERS, author.clone(), at);
    let heart = heart.prop_map(|(person, reporter, author, at)| Act::Heart {
        person,
        reporter,
        author,
        at,
    });
    let of = (author.clone(), any::<u16>());
    let by = (0..PEERS, author.clone(), any::<u16>());
    let strangers = by.prop_map(|(reporter, author, at)| Act::StrangersHeart {
        reporter,
        author,
        at,
    });
    let trouble = prop_oneof![Just(StorageTrouble::Full), Just(StorageTrouble::Failed)];
    let refuse = (1..12u8, trouble).prop_map(move |(batches, trouble)| match refuses {
        true => Act::Refuse { batches, trouble },
        false => Act::Pass { ms: 10_000 },
    });
    let hours = prop_oneof![1..100u32, 1..2_000u32, 1..12_000u32];
    let budget = prop_oneof![4 => BUDGETS, 1 => BUDGETS.end..64_000_000];
    let act = prop_oneof![
        14 => publish,
        5 => burst,
        5 => own,
        1 => (1..900_000u32).prop_map(Act::Stage),
        2 => any::<u16>().prop_map(Act::DeleteOwn),
        3 => of.clone().prop_map(|(author, at)| Act::Delete { author, at }),
        4 => author.clone().prop_map(Act::Follow),
        2 => author.prop_map(Act::Unfollow),
        5 => heart,
        3 => of.clone().prop_map(|(author, at)| Act::Applause { author, at }),
        1 => strangers,
        2 => of.clone().prop_map(|(author, at)| Act::OwnHeart { author, at }),
        3 => of.prop_map(|(author, at)| Act::Pin { author, at }),
        5 => (1..200_000u32).prop_map(|ms| Act::Pass { ms }),
        4 => hours.prop_map(|hours| Act::Jump { hours }),
        3 => budget.prop_map(Act::Budget),
        1 => Just(Act::Restart),
        2 => Just(Act::Crash),
        1 => (0..PEERS).prop_map(Act::Disconnect),
        1 => (0..PEERS).prop_map(Act::Silence),
        3 => (0..PEERS, any::<u16>()).prop_map(|(peer, at)| Act::Ask { peer, at }),
        4 => refuse,
    ];
    prop::collection::vec(act, 30..70)
}
