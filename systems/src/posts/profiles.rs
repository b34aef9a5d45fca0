//! PROTOCOL section 9: who people say they are. A profile goes to every connection when it changes and when a connection
//! comes up; those of kept authors are stored.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{
    Bio, ConnectString, Name, Profile, ProfileBody, Signed, check_time, next_seq,
};
use distsoc_engine::io::{BatchId, Call, CallError, CallId, Notice, Reply, Write};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::ProfileUpdate;
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::world::authors::{Author, AuthorsView, KeptProfiles, Succession};
use distsoc_engine::world::identity::{Identity, OwnProfile};
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences, Peer, PeerChanges, Peers, peers_changed};

/// Changes of the own profile that wait for the disk.
#[derive(Resource, Debug, Default)]
struct Changing(Vec<(BatchId, CallId, Profile)>);

#[derive(Debug)]
struct Change {
    name: Option<Name>,
    bio: Option<Bio>,
    anchors: Option<Vec<ConnectString>>,
}

/// The next version of a profile; the first one needs a name.
fn changed(
    known: Option<&ProfileBody>,
    change: Change,
    identity: &Identity,
    now: Now,
) -> Result<ProfileBody, &'static str> {
    let name = change.name.or_else(|| known.map(|body| body.name.clone()));
    let anchors = match change.anchors {
        Some(anchors) => Bounded::new(anchors).map_err(|_| "a profile lists at most 4 anchors")?,
        None => known.map(|body| body.anchors.clone()).unwrap_or_default(),
    };
    let bio = change.bio.or_else(|| known.map(|body| body.bio.clone()));
    Ok(ProfileBody {
        author: identity.node_id(),
        seq: next_seq(known.map(|body| body.seq), now),
        name: name.ok_or("a profile needs a name first")?,
        bio: bio.unwrap_or_else(|| Bio::new("").expect("an empty bio is one")),
        avatar: known.and_then(|body| body.avatar),
        anchors,
    })
}

fn take_changes(
    now: Res<Now>,
    identity: Res<Identity>,
    own: Res<OwnProfile>,
    succession: Res<Succession>,
    mut inbox: ResMut<Inbox>,
    mut changing: ResMut<Changing>,
    mut outbox: ResMut<Outbox>,
) {
    let calls = inbox.take_calls(|call| match call {
        Call::SetProfile { name, bio, anchors } => Some(Change {
            name: name.clone(),
            bio: bio.clone(),
            anchors: anchors.clone(),
        }),
        _ => None,
    });
    for (call, change) in calls {
        if let Err(refused) = succession.check() {
            outbox.reply(call, Err(refused));
            continue;
        }
        let newest = changing
            .0
            .last()
            .map(|(_, _, profile)| profile)
            .or(own.0.as_ref());
        match changed(newest.map(|profile| &**profile), change, &identity, *now) {
            Ok(body) => {
                let profile = Signed::sign(body, identity.secret());
                let batch = outbox.store_durable(vec![Write::Profile(profile.clone())]);
                changing.0.push((batch, call, profile));
            }
            Err(reason) => outbox.reply(call, Err(CallError::Refused(reason))),
        }
    }
}

fn publish(
    identity: Res<Identity>,
    mut inbox: ResMut<Inbox>,
    mut own: ResMut<OwnProfile>,
    mut changing: ResMut<Changing>,
    mut outbox: ResMut<Outbox>,
    peers: Query<&Link, With<Peer>>,
) {
    if changing.0.is_empty() {
        return;
    }
    let ends = inbox.take_batches(|batch| {
        let index = changing
            .0
            .iter()
            .position(|(waiting, _, _)| *waiting == batch)?;
        Some(changing.0.remove(index))
    });
    for ((_, call, profile), result) in ends {
        match result {
            Ok(()) => {
                for link in &peers {
                    let profile = profile.clone();
                    outbox.send(link.id, &ProfileUpdate { profile }.into());
                }
                own.0 = Some(profile);
                outbox.notify(Notice::Profile {
                    node: identity.node_id(),
                });
                outbox.reply(call, Ok(Reply::Done));
            }
            Err(trouble) => outbox.reply(call, Err(CallError::Storage(trouble))),
        }
    }
}

fn introduce(own: Res<OwnProfile>, changes: Res<PeerChanges>, mut outbox: ResMut<Outbox>) {
    let Some(profile) = &own.0 else { return };
    for (_, link, _) in changes.came_up() {
        let profile = profile.clone();
        outbox.send(link, &ProfileUpdate { profile }.into());
    }
}

fn learn(
    now: Res<Now>,
    peers: Res<Peers>,
    authors: AuthorsView,
    mut arrivals: ResMut<Arrivals<ProfileUpdate>>,
    mut offences: ResMut<Offences>,
    mut profiles: ResMut<KeptProfiles>,
    mut outbox: ResMut<Outbox>,
    mut up: Query<(&Link, &mut Peer)>,
) {
    for arrival in arrivals.take() {
        let profile = arrival.packet.profile;
        let Some((link, mut peer)) = peers
            .up_behind(arrival.link)
            .and_then(|entity| up.get_mut(entity).ok())
        else {
            continue;
        };
        let verdict = match (profile.author == link.node, &peer.person) {
            (false, _) => Err(Refusal::WrongAuthor),
            (true, Some(known)) => {
                check_time(profile.seq, *now).and_then(|()| profile.supersedes(known))
            }
            (true, None) => check_time(profile.seq, *now),
        };
        if let Err(refusal) = verdict {
            offences.note(arrival.link, refusal, "ProfileUpdate");
            continue;
        }
        peer.person = Some(profile.clone());
        let is_kept = authors.get(&link.node).is_some_and(Author::is_kept);
        if is_kept {
            // An old one, from before the connection went, is no fault: the peer is told nothing of what is known here.
            let _ = profiles.keep(profile, *now, &mut outbox);
        }
        outbox.notify(Notice::Profile { node: link.node });
    }
}

/// The person's own profile, and those of peers.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let profile = frame.restored.own_profile.take();
    frame.world.insert_resource(OwnProfile(profile));
    frame.world.insert_resource(Changing::default());
    frame.on(Occasions::BATCH, Phase::Ingest, publish);
    frame.on(Occasions::CALL, Phase::Judge, take_changes);
    frame.on(Occasions::packet(&ProfileUpdate::SPEC), Phase::Judge, learn);
    frame.due(peers_changed, Phase::Emit, introduce);
}
