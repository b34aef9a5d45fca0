//! PROTOCOL section 7, author_recent_posts: a newer list of a kept author is verified in full before it counts, whoever
//! brought it. What it names and is not here is wanted.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{
    EventList, NodeId, RecentPosts, RecentPostsHead, Verified, check_time,
};
use distsoc_engine::io::{LinkId, ReadId, ReadQuery, ReadResult, StorageTrouble, Write};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::wire::PostNotification;
use distsoc_engine::world::authors::{
    HostCandidates, ListRechecks, ListUpdate, ListUpdates, PostOffer, PostOffers, PullRequests,
    PullWish, PullsDue, Succession,
};
use distsoc_engine::world::deletions::Deletions;
use distsoc_engine::world::files::{Archive, KeepFloor, Wanted};
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::keepers::{Keepers, ListNews};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences};
use distsoc_engine::world::storage::Storage;
use std::collections::BTreeMap;

/// Updates that wait for the stored list of their author.
#[derive(Resource, Debug, Default)]
struct Waiting(BTreeMap<ReadId, ListUpdate>);

/// What an update is before any disk is asked.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The events are the whole list.
    Whole,
    /// They go before the stored list.
    NeedsStored,
    /// True as far as they go, but some before them were missed.
    Gap,
    /// Not newer, or not believable.
    Refused(Refusal),
}

fn first_look(
    known: Option<&RecentPostsHead>,
    head: &RecentPostsHead,
    newest: &EventList,
    now: Now,
) -> Verdict {
    if let Err(refusal) = check_time(head.updated_at_ms, now) {
        return Verdict::Refused(refusal);
    }
    if let Some(known) = known
        && let Err(refusal) = head.supersedes(known)
    {
        return Verdict::Refused(refusal);
    }
    let lacking = head
        .seq
        .events_since(known.map(|known| known.seq), head.count as usize);
    match known {
        _ if newest.len() == head.count as usize => Verdict::Whole,
        Some(_) if newest.len() >= lacking => Verdict::NeedsStored,
        _ => Verdict::Gap,
    }
}

/// A notification is an update of a list, and maybe a post.
fn take_notifications(
    mut arrivals: ResMut<Arrivals<PostNotification>>,
    mut updates: ResMut<ListUpdates>,
    mut offers: ResMut<PostOffers>,
) {
    for arrival in arrivals.take() {
        let PostNotification { head, newest, post } = arrival.packet;
        if let Some(post) = post {
            offers.0.push(PostOffer {
                from: arrival.link,
                post,
            });
        }
        updates.0.push(ListUpdate {
            from: arrival.link,
            head,
            newest,
            is_pulled: false,
        });
    }
}

fn judge_updates(
    now: Res<Now>,
    storage: Res<Storage>,
    mut updates: ResMut<ListUpdates>,
    mut waiting: ResMut<Waiting>,
    mut pulls: ResMut<PullRequests>,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
    mut candidates: ResMut<HostCandidates>,
    mut succession: ResMut<Succession>,
    mut files: FilesOfAuthors,
) {
    for update in std::mem::take(&mut updates.0) {
        let node = update.head.author;
        if node == files.archive.own() {
            succession.hints.insert(update.from);
            continue;
        }
        let author = files.archive.author(&node);
        let Some(author) = author.filter(|author| author.is_kept()) else {
            candidates.heard(node);
            offences.note(update.from, Refusal::NotKept, "PostNotification");
            continue;
        };
        if !storage.takes_more() {
            offences.note(update.from, Refusal::Full, "PostNotification");
            continue;
        }
        let verdict = first_look(author.head.as_ref(), &update.head, &update.newest, *now);
        if let Some(known) = author.head.clone() {
            files.compare(known, &update.head, &mut outbox);
        }
        match verdict {
            Verdict::Refused(Refusal::Stale) => {
                files.confirm(node, &update.head, *now, &mut outbox);
                offences.note(update.from, Refusal::Stale, "RecentPosts");
            }
            Verdict::Refused(refusal) => offences.note(update.from, refusal, "RecentPosts"),
            // Whoever was asked for all that is lacking and left some out is not asked again first.
            Verdict::Gap if update.is_pulled => pulls.wish(
                node,
                PullWish::Whole {
                    not_from: Some(update.from),
                },
            ),
            Verdict::Gap => pulls.wish(node, PullWish::Newer),
            Verdict::Whole => match RecentPosts::verify(update.head, update.newest) {
                Ok(list) => files.adopt(list, update.from, *now, &mut outbox),
                Err(refusal) => {
                    pulls.wish(
                        node,
                        PullWish::Whole {
                            not_from: Some(update.from),
                        },
                    );
                    offences.note(update.from, refusal, "RecentPosts");
                }
            },
            Verdict::NeedsStored if waiting.0.len() >= limits::LIST_UPDATES_WAITING_MAX => {
                offences.note(update.from, Refusal::Full, "RecentPosts");
            }
            Verdict::NeedsStored => {
                let read = outbox.read(ReadQuery::RecentPosts(node));
                waiting.0.insert(read, update);
            }
        }
    }
}

fn advance_stored(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut waiting: ResMut<Waiting>,
    mut pulls: ResMut<PullRequests>,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
    mut files: FilesOfAuthors,
) {
    for (update, result) in inbox.take_reads(|read| waiting.0.remove(&read)) {
        let node = update.head.author;
        match advanced(&update, result) {
            Ok(list) => files.adopt(list, update.from, *now, &mut outbox),
            Err(Refusal::Stale) => offences.note(update.from, Refusal::Stale, "RecentPosts"),
            Err(refusal) => {
                // Somebody else is asked for the whole list first (section 7).
                pulls.wish(
                    node,
                    PullWish::Whole {
                        not_from: Some(update.from),
                    },
                );
                offences.note(update.from, refusal, "RecentPosts");
            }
        }
    }
}

fn advanced(
    update: &ListUpdate,
    result: Result<ReadResult, StorageTrouble>,
) -> Result<Verified<RecentPosts>, Refusal> {
    let Ok(ReadResult::RecentPosts(Some(stored))) = result else {
        return Err(Refusal::ListMismatch);
    };
    let stored = RecentPosts::verify(stored.head, stored.list)?;
    RecentPosts::advance(Some(&stored), update.head.clone(), &update.newest)
}

/// Authors, and what is here or missing of their files.
#[derive(bevy_ecs::system::SystemParam)]
struct FilesOfAuthors<'w, 's> {
    archive: Archive<'w, 's>,
    wanted: ResMut<'w, Wanted>,
    deletions: ResMut<'w, Deletions>,
    floor: Res<'w, KeepFloor>,
    rechecks: ResMut<'w, ListRechecks>,
    news: ResMut<'w, ListNews>,
    keepers: ResMut<'w, Keepers>,
    pulls_due: ResMut<'w, PullsDue>,
    links: Query<'w, 's, &'static Link>,
}

impl FilesOfAuthors<'_, '_> {
    /// A verified list that is newer than the one here: stored, and what it lacks is wanted.
    fn adopt(&mut self, list: Verified<RecentPosts>, from: LinkId, now: Now, outbox: &mut Outbox) {
        let node = list.head().author;
        let Some(author) = self.archive.author(&node) else {
            return;
        };
        // Another update of the same author may have been adopted while this one waited for the disk.
        let known = author.head.as_ref();
        if known.is_some_and(|known| list.head().supersedes(known).is_err()) {
            return;
        }
        for write in self.archive.bury(&list, &mut self.deletions) {
            outbox.store(write);
        }
        let lacking = self.archive.lacking(&list, &self.deletions, &self.floor);
        let Some(mut author) = self.archive.author_mut(&node) else {
            return;
        };
        author.head = Some(list.head().clone());
        author.checked_at_ms = now.wall_ms;
        if !self.wanted.want(&mut author, lacking) {
            self.rechecks.0.insert(node);
        }
        if !author.missing.is_empty() {
            self.pulls_due.0.at(node, now.mono_ms);
        }
        let bringer = self.links.iter().find(|link| link.id == from);
        let bringer = bringer.map(|link| link.node);
        if let Some(bringer) = bringer {
            self.keepers.saw(node, bringer);
        }
        self.news.0.push((node, bringer));
        outbox.store(Write::RecentPosts {
            head: list.head().clone(),
            list: list.list().clone(),
        });
        outbox.store(Write::Checked {
            author: node,
            checked_at_ms: now.wall_ms,
        });
    }

    /// Two heads with one number are remembered with their author, whichever counts (open question 4).
    fn compare(&mut self, known: RecentPostsHead, head: &RecentPostsHead, outbox: &mut Outbox) {
        let is_equivocal = known.seq == head.seq && known.root != head.root;
        let author = self.archive.author_mut(&known.author);
        let Some(mut author) = author.filter(|author| is_equivocal && !author.is_equivocal) else {
            return;
        };
        author.is_equivocal = true;
        outbox.store(Write::Equivocation(Box::new([known, head.clone()])));
    }

    /// The same head again says that it is still the newest.
    fn confirm(&mut self, node: NodeId, head: &RecentPostsHead, now: Now, outbox: &mut Outbox) {
        let Some(mut author) = self.archive.author_mut(&node) else {
            return;
        };
        let same = author.head.as_ref().is_some_and(|known| known == head);
        // Not written for every peer that says the same.
        if same && now.wall_ms > author.checked_at_ms + limits::FOLLOW_PULL_MS / 4 {
            author.checked_at_ms = now.wall_ms;
            outbox.store(Write::Checked {
                author: node,
                checked_at_ms: now.wall_ms,
            });
        }
    }
}

/// Lists of kept authors.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Waiting::default());
    frame.on(Occasions::READ, Phase::Ingest, advance_stored);
    frame.on(
        Occasions::packet(&PostNotification::SPEC),
        Phase::Judge,
        take_notifications,
    );
    frame.due(
        |glance| at_once_if(!glance.at::<ListUpdates>().0.is_empty()),
        Phase::Judge,
        judge_updates,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::crypto::Secret;
    use distsoc_engine::domain::{Event, EventKind, PostId};

    fn version(count: u32, now_ms: u64) -> Verified<RecentPosts> {
        let secret = Secret::from_seed(&[1; 32]);
        let mut list = None;
        for number in 1..=count {
            let event = Event {
                id: PostId::from_bytes([number as u8; 32]),
                created_at_s: number,
                kind: EventKind::Public,
            };
            list = Some(RecentPosts::append(
                list.as_ref(),
                event,
                7,
                now_ms,
                &secret,
            ));
        }
        list.expect("at least one event")
    }

    const NOW: Now = Now {
        mono_ms: 0,
        wall_ms: 1_000_000,
    };

    #[test]
    fn what_an_update_needs_is_seen_from_its_head() {
        let (old, new) = (version(3, 1), version(5, 1));
        let look = |known: Option<&Verified<RecentPosts>>, events| {
            first_look(
                known.map(|list| list.head()),
                new.head(),
                &new.list().newest(events),
                NOW,
            )
        };
        assert_eq!(look(None, 5), Verdict::Whole);
        assert_eq!(look(None, 2), Verdict::Gap);
        assert_eq!(look(Some(&old), 1), Verdict::Gap);
        assert_eq!(look(Some(&old), 2), Verdict::NeedsStored);
        assert_eq!(look(Some(&new), 5), Verdict::Refused(Refusal::Stale));
    }

    #[test]
    fn a_head_from_the_future_is_refused() {
        let future = version(1, NOW.wall_ms + limits::FUTURE_MS_MAX + 1);
        let verdict = first_look(None, future.head(), future.list(), NOW);
        assert_eq!(verdict, Verdict::Refused(Refusal::FutureTimestamp));
        let near = version(1, NOW.wall_ms + limits::FUTURE_MS_MAX);
        assert_eq!(
            first_look(None, near.head(), near.list(), NOW),
            Verdict::Whole
        );
    }
}
