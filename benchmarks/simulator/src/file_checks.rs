//! What must hold of files: no disk is above its budget, what an author took back stays gone, and no list goes back to an older version.

use crate::queue::HostNumber;
use crate::simulation::Simulation;
use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::io::{DiskUsage, Write};
use std::collections::BTreeSet;

impl Simulation {
    /// What a node hands to its disk: slices alone, and no post that its author took back, nor a blob of one.
    pub fn check_deletions(&mut self, number: HostNumber, writes: &[Write]) {
        let slices = writes
            .iter()
            .filter(|write| matches!(write, Write::Slice(_)))
            .count();
        if slices > 0 && slices < writes.len() {
            self.violate(
                Some(number),
                "hands in slices among other writes".to_owned(),
            );
        }
        let mut deleted: BTreeSet<(NodeId, PostId)> = BTreeSet::new();
        for write in writes {
            let disk = &self.hosts[number as usize].disk;
            let what = match write {
                Write::Deletion(deletion) => {
                    deleted.insert((deletion.author, deletion.post));
                    continue;
                }
                Write::Post { post, .. } => {
                    let (author, id) = (post.body().author, post.id());
                    let is_gone = deleted.contains(&(author, id)) || disk.is_deleted(&author, &id);
                    is_gone.then(|| format!("stores {}, which was taken back", id.short()))
                }
                Write::Slice(slice) => disk
                    .is_taken_back(&slice.blob().hash)
                    .then(|| format!("stores {slice:?} of a post that was taken back")),
                _ => None,
            };
            if let Some(what) = what {
                self.violate(Some(number), what);
            }
        }
    }

    /// What a node hands to its disk: no list that is older than the one there.
    pub fn check_versions(&mut self, number: HostNumber, writes: &[Write]) {
        let mut forgotten = BTreeSet::new();
        for write in writes {
            match write {
                Write::ForgetAuthor(author) => drop(forgotten.insert(*author)),
                Write::RecentPosts { head, .. } if !forgotten.contains(&head.author) => {
                    let disk = &self.hosts[number as usize].disk;
                    let known = disk.version_of(&head.author);
                    if known.is_some_and(|known| head.seq < known) {
                        let author = head.author.short();
                        self.violate(Some(number), format!("rolls the list of {author} back"));
                    }
                }
                _ => {}
            }
        }
    }

    /// A disk after a commit: within both shares of its budget, unless it shrinks.
    pub fn check_disk(&mut self, number: HostNumber) {
        let usage = self.hosts[number as usize].disk.usage();
        if is_above(&usage) && !usage.is_shrinking {
            self.violate(
                Some(number),
                format!("its disk is above its budget: {usage:?}"),
            );
        }
    }
}

fn is_above(usage: &DiskUsage) -> bool {
    usage.file_bytes > usage.budget_bytes
        || usage.row_bytes > usage.row_room_bytes
        || usage.blob_bytes > usage.blob_room_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::host::secret_of;
    use crate::scenario::Scenario;
    use distsoc_engine::crypto::Secret;
    use distsoc_engine::domain::{
        BlobRef, Content, Cut, Deletion, DeletionBody, Event, EventKind, PostBody, PostText,
        PublicContent, RecentPosts, SignedPost, Verified,
    };
    use distsoc_engine::io::{BatchId, Durability, GoodPeer};
    use distsoc_engine::wire::codec::Bounded;

    fn simulation() -> Simulation {
        let text = "name = \"one\"\nnodes = 1\nanchors = 0\nduration_s = 5";
        Simulation::new(Scenario::parse(text).expect("a sound scenario"), 3)
    }

    fn author() -> Secret {
        secret_of(3, 7)
    }

    fn post(blobs: Vec<BlobRef>) -> SignedPost {
        let body = PostBody {
            author: author().node_id(),
            created_at_ms: 1_800_000_000_000,
            content: Content::Public(PublicContent {
                text: PostText::new("hello").expect("a short text"),
                parent: None,
                descriptions: Bounded::default(),
            }),
            blobs: Bounded::truncated(blobs),
        };
        SignedPost::sign(body, &author()).expect("a sound post")
    }

    fn stored(post: &SignedPost) -> Write {
        Write::Post {
            post: Box::new(post.clone()),
            arrived_ms: 0,
        }
    }

    fn deletion(post: PostId) -> Write {
        let body = DeletionBody {
            author: author().node_id(),
            post,
            seq: 1,
        };
        Write::Deletion(Deletion::sign(body, &author()))
    }

    fn version(known: Option<&Verified<RecentPosts>>, id: PostId) -> Verified<RecentPosts> {
        let event = Event {
            id,
            created_at_s: 1_800_000_000,
            kind: EventKind::Public,
        };
        RecentPosts::append(known, event, 5, 1_800_000_000_000, &author())
    }

    fn list(version: &Verified<RecentPosts>) -> Write {
        Write::RecentPosts {
            head: version.head().clone(),
            list: version.list().clone(),
        }
    }

    /// What the checks say of writes that come after others.
    fn verdict(before: Vec<Write>, writes: &[Write]) -> Option<String> {
        let mut simulation = simulation();
        simulation.hosts[0].disk.hand_in(BatchId(1), before, 10);
        simulation.check_deletions(0, writes);
        simulation.check_versions(0, writes);
        simulation.violation.map(|violation| violation.what)
    }

    #[test]
    fn what_was_taken_back_is_not_stored_again() {
        let picture = vec![5; 1000];
        let cut = Cut::new(&picture).expect("a length within bounds");
        let (plain, shown) = (post(Vec::new()), post(vec![cut.blob()]));
        let slice = Write::Slice(cut.slices().next().expect("one"));
        assert_eq!(
            verdict(vec![stored(&shown)], std::slice::from_ref(&slice)),
            None
        );
        let is_noticed = |before: Vec<Write>, writes: &[Write]| {
            verdict(before, writes).is_some_and(|what| what.contains("taken back"))
        };
        assert!(is_noticed(vec![deletion(plain.id())], &[stored(&plain)]));
        assert!(is_noticed(
            Vec::new(),
            &[deletion(plain.id()), stored(&plain)]
        ));
        let mut simulation = simulation();
        let disk = &mut simulation.hosts[0].disk;
        disk.hand_in(BatchId(1), vec![stored(&shown)], 10);
        disk.hand_in(BatchId(2), vec![deletion(shown.id())], 10);
        simulation.check_deletions(0, &[slice]);
        assert!(simulation.violation.is_some());
    }

    #[test]
    fn slices_travel_alone() {
        let cut_of = vec![5; 1000];
        let cut = Cut::new(&cut_of).expect("a length within bounds");
        let slice = Write::Slice(cut.slices().next().expect("one"));
        let mixed = verdict(Vec::new(), &[slice, stored(&post(Vec::new()))]);
        assert!(mixed.is_some_and(|what| what.contains("among other writes")));
    }

    #[test]
    fn a_list_that_goes_back_is_noticed() {
        let ids = [1, 2].map(|number| PostId::from_bytes([number; 32]));
        let old = version(None, ids[0]);
        let new = version(Some(&old), ids[1]);
        assert_eq!(verdict(vec![list(&old)], &[list(&new)]), None);
        let back = verdict(vec![list(&new)], &[list(&old)]);
        assert!(back.is_some_and(|what| what.contains("back")));
        let gone = Write::ForgetAuthor(author().node_id());
        assert_eq!(verdict(vec![list(&new)], &[gone, list(&old)]), None);
    }

    #[test]
    fn a_share_that_is_passed_is_noticed() {
        let fits = DiskUsage {
            budget_bytes: 100,
            file_bytes: 100,
            row_bytes: 25,
            row_room_bytes: 25,
            blob_bytes: 75,
            blob_room_bytes: 75,
            is_shrinking: false,
        };
        assert!(!is_above(&fits));
        for passed in [
            DiskUsage {
                file_bytes: 101,
                ..fits
            },
            DiskUsage {
                row_bytes: 26,
                ..fits
            },
            DiskUsage {
                blob_bytes: 76,
                ..fits
            },
        ] {
            assert!(is_above(&passed), "{passed:?}");
        }
        // A disk that shrinks is above for a while.
        let mut simulation = simulation();
        let peers = (0..20).map(|number| {
            Write::GoodPeer(GoodPeer {
                node: NodeId::from_bytes([number; 32]),
                addresses: Vec::new(),
                is_anchor: false,
                last_up_ms: 0,
            })
        });
        let disk = &mut simulation.hosts[0].disk;
        *disk = Disk::new(1 << 20);
        disk.hand_in(BatchId(1), peers.collect(), 10);
        disk.commit(10);
        disk.keep_to(1 << 14, 20);
        disk.commit(20);
        assert!(is_above(&disk.usage()));
        simulation.check_disk(0);
        assert_eq!(simulation.violation, None);
    }

    #[test]
    fn posts_of_people_who_are_not_kept_and_forged_ones_are_noticed() {
        let mut simulation = simulation();
        let write = stored(&post(Vec::new()));
        simulation.check_writes(0, &[write], Durability::WriteBehind);
        let noticed = simulation.violation.expect("nobody is kept here");
        assert!(noticed.what.contains("does not keep"), "{}", noticed.what);
    }
}
