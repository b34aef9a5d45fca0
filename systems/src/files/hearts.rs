//! PROTOCOL sections 7 and 9, hearts: the person's own are durable before anybody hears of them; those of others are kept with posts
//! that are stored here, where somebody known gave them.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{Heart, HeartBody, NodeId, PostId, Signed, check_time, next_seq};
use distsoc_engine::io::{BatchId, Call, CallError, CallId, Reply, Write};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::HeartRecord;
use distsoc_engine::world::authors::{Author, ListHints, Succession};
use distsoc_engine::world::files::Archive;
use distsoc_engine::world::hearts::HeartOffers;
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::keepers::Swarm;
use distsoc_engine::world::map::MapView;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{EveryPeer, Offences};
use distsoc_engine::world::storage::Storage;
use std::collections::BTreeMap;

/// Own hearts that wait for the disk.
#[derive(Resource, Debug, Default)]
struct Giving(BTreeMap<BatchId, (CallId, Heart)>);

fn give(
    now: Res<Now>,
    identity: Res<Identity>,
    succession: Res<Succession>,
    archive: Archive,
    mut inbox: ResMut<Inbox>,
    mut giving: ResMut<Giving>,
    mut outbox: ResMut<Outbox>,
) {
    let wishes = inbox.take_calls(|call| match call {
        Call::Heart { post, given } => Some((*post, *given)),
        _ => None,
    });
    for (call, (post, given)) in wishes {
        if let Err(refused) = succession.check() {
            outbox.reply(call, Err(refused));
            continue;
        }
        let Some(file) = archive.get(&post) else {
            let missing = CallError::NotFound("that post is not stored here");
            outbox.reply(call, Err(missing));
            continue;
        };
        let person = identity.node_id();
        let known = archive.hearts.of(&post, &person);
        if known.is_some_and(|word| word.is_given) == given {
            // It is so already.
            outbox.reply(call, Ok(Reply::Done));
            continue;
        }
        let body = HeartBody {
            person,
            author: file.row.author,
            post,
            seq: next_seq(known.map(|word| word.seq), *now),
            given: u8::from(given),
        };
        let heart = Signed::sign(body, identity.secret());
        let batch = outbox.store_durable(vec![Write::Heart(heart.clone())]);
        giving.0.insert(batch, (call, heart));
    }
}

fn publish(
    identity: Res<Identity>,
    mut inbox: ResMut<Inbox>,
    mut giving: ResMut<Giving>,
    mut archive: Archive,
    hints: ListHints,
    mut outbox: ResMut<Outbox>,
    mut everybody: EveryPeer,
) {
    if giving.0.is_empty() {
        return;
    }
    for ((call, heart), result) in inbox.take_batches(|batch| giving.0.remove(&batch)) {
        if let Err(trouble) = result {
            outbox.reply(call, Err(CallError::Storage(trouble)));
            continue;
        }
        // The post may have gone meanwhile: then it is said all the same, to those who keep it.
        let taken = archive.hearts.take(&heart, Some(identity.node_id()));
        judge_again(&mut archive, &heart, taken.unwrap_or_default());
        let list_seq = hints.version(&heart.author, archive.author(&heart.author));
        everybody.send(&HeartRecord { heart, list_seq }.into(), &mut outbox);
        outbox.reply(call, Ok(Reply::Done));
    }
}

/// Who is known well enough for their heart to be kept: kept authors, and nodes on the map near by. Keys are free, places there are not.
#[derive(bevy_ecs::system::SystemParam)]
struct KnownPersons<'w, 's> {
    map: MapView<'w, 's>,
}

impl KnownPersons<'_, '_> {
    fn knows(&self, archive: &Archive, person: &NodeId) -> bool {
        if archive.author(person).is_some_and(Author::is_kept) {
            return true;
        }
        let entries = self.map.entries();
        let row = self.map.map.find(person, entries);
        let hop = row.and_then(|row| entries[row as usize].hop());
        hop.is_some_and(|hop| hop <= 2)
    }
}

fn take_in(
    now: Res<Now>,
    identity: Res<Identity>,
    storage: Res<Storage>,
    mut arrivals: ResMut<Arrivals<HeartRecord>>,
    mut offers: ResMut<HeartOffers>,
    known: KnownPersons,
    mut archive: Archive,
    swarm: Swarm,
    mut hints: ListHints,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
) {
    if arrivals.is_empty() && offers.0.is_empty() {
        return;
    }
    let pushed = arrivals.take().into_iter();
    let pushed = pushed.map(|arrival| {
        (
            arrival.link,
            arrival.packet.heart,
            Some(arrival.packet.list_seq),
        )
    });
    let pulled = std::mem::take(&mut offers.0).into_iter();
    let pulled = pulled.map(|(link, heart)| (link, heart, None));
    for (link, heart, list_seq) in pushed.chain(pulled).collect::<Vec<_>>() {
        let reporter = swarm.behind(link);
        let judged = match heart.person == identity.node_id() {
            true => Err(Refusal::Stale),
            false if !storage.takes_more() => Err(Refusal::Full),
            false => judge(&archive, &known, &heart, *now),
        };
        let taken = judged.and_then(|()| archive.hearts.take(&heart, reporter));
        match taken {
            Ok(changed) => {
                judge_again(&mut archive, &heart, changed);
                outbox.store(Write::Heart(heart.clone()));
                if let Some(seq) = list_seq {
                    let (author, by) = (heart.author, Some(heart.person));
                    let known = archive.author(&author);
                    if let Some(reporter) = reporter {
                        hints.hear(author, known, seq, (link, reporter));
                    }
                    let list_seq = hints.version(&author, known);
                    let packet = HeartRecord { heart, list_seq }.into();
                    swarm.relay(&author, &packet, [reporter, by], &mut outbox);
                }
            }
            Err(Refusal::Stale) => {
                // By another peer it may count now.
                let (post, person) = (&heart.post, &heart.person);
                let changed = reporter.map(|by| archive.hearts.count_by(post, person, by));
                judge_again(&mut archive, &heart, changed.unwrap_or_default());
                offences.note(link, Refusal::Stale, "HeartRecord");
            }
            Err(refusal) => offences.note(link, refusal, "HeartRecord"),
        }
    }
}

/// What hearts that count changed.
fn judge_again(archive: &mut Archive, heart: &Heart, changed: Vec<PostId>) {
    if changed.is_empty() {
        return;
    }
    for post in changed {
        archive.judge_file(&post, None);
    }
    archive.judge_author(&heart.author);
}

fn judge(archive: &Archive, known: &KnownPersons, heart: &Heart, now: Now) -> Result<(), Refusal> {
    let file = archive.get(&heart.post).ok_or(Refusal::NotKept)?;
    if file.row.author != heart.author {
        return Err(Refusal::WrongAuthor);
    }
    check_time(heart.seq, now)?;
    // A heart is never older than what it is for.
    if heart.seq / 1000 < u64::from(file.row.created_at_s) {
        return Err(Refusal::OutOfRange);
    }
    match known.knows(archive, &heart.person) {
        true => Ok(()),
        false => Err(Refusal::NotKept),
    }
}

/// Hearts.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Giving::default());
    frame.on(Occasions::BATCH, Phase::Ingest, publish);
    frame.on(Occasions::CALL, Phase::Judge, give);
    let mut brought = Occasions::packet(&HeartRecord::SPEC);
    brought.add(Occasions::RESPONSE);
    frame.on(brought, Phase::Judge, take_in);
}
