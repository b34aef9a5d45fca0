//! What must always hold. A node is looked at after each of its frames: cheap facts every time, its peers and map whenever
//! connections changed. The network as a whole is looked at now and then, and thoroughly once it is calm.

use crate::host::Host;
use crate::map_truth::NEWS_US;
use crate::queue::HostNumber;
use crate::simulation::{Simulation, Truth};
use crate::transport::{EndState, split};
use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::io::{Durability, Slot, Write};
use distsoc_engine::limits;
use distsoc_engine::node::Node;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::world::authors::{Author, AuthorIndex};
use distsoc_engine::world::files::{FileIndex, KeepFloor, Wanted};
use distsoc_engine::world::map::{DiscoveryMap, entries_of};
use distsoc_engine::world::peers::{Link, Peer, Peers};
use distsoc_engine::world::storage::Storage;

/// A person's call is answered within this, whatever the disk does: a dial tries 8 addresses of 4 s.
const ANSWER_US_MAX: u64 = 60_000_000;
/// What two ends think of each other may differ for as long as a close is under way.
const AGREE_US: u64 = 5_000_000;

/// Up to so many nodes are looked at after every frame.
const WATCHED_MAX: usize = 200;

/// What a node thinks of one of its peers.
fn up_peers(host: &Host) -> Vec<(NodeId, &Link, &Peer)> {
    let Some(node) = host.node() else {
        return Vec::new();
    };
    let world = node.world();
    let pair = |(id, entity)| Some((id, world.get::<Link>(entity)?, world.get::<Peer>(entity)?));
    world.resource::<Peers>().up().filter_map(pair).collect()
}

impl Simulation {
    /// A node after a frame. `thorough` where its connections may have changed. Up to [`WATCHED_MAX`] nodes all are watched; of more,
    /// as many frames as that makes.
    pub fn check_frame(&mut self, number: HostNumber, thorough: bool) {
        let sampled = (self.hosts.len() / WATCHED_MAX).max(1) as u64;
        if self.counts.frames.is_multiple_of(sampled) {
            self.check_node(number, thorough);
        }
    }

    /// A node as it is now.
    fn check_node(&mut self, number: HostNumber, thorough: bool) {
        if let Err(what) = self.node_is_sound(number, thorough) {
            self.violate(Some(number), what);
        }
    }

    fn node_is_sound(&self, number: HostNumber, thorough: bool) -> Result<(), String> {
        let host = &self.hosts[number as usize];
        let Some(node) = host.node() else {
            return Ok(());
        };
        let world = node.world();
        let profile = NodeProfile::of(host.kind);
        let peers = world.resource::<Peers>();
        let bounds = [
            (
                "peers that are up",
                peers.up_count(),
                profile.slots() + profile.visits_max,
            ),
            (
                "connections",
                peers.link_count(),
                profile.slots() + profile.visits_max + limits::GREETINGS_MAX,
            ),
            (
                "map entries",
                world.resource::<DiscoveryMap>().counts().total(),
                profile.map_entries_max,
            ),
            (
                "stored posts",
                world.resource::<FileIndex>().len(),
                profile.files_max,
            ),
            (
                "wanted posts",
                world.resource::<Wanted>().len(),
                limits::WANTED_POSTS_MAX,
            ),
            (
                "authors",
                world.resource::<AuthorIndex>().len(),
                2 * limits::FOLLOWS_MAX,
            ),
            (
                "batches under way",
                world.resource::<Storage>().in_flight.len(),
                limits::PERSIST_IN_FLIGHT_MAX + 1,
            ),
        ];
        for (what, count, bound) in bounds {
            if count > bound {
                return Err(format!("{count} {what}, more than {bound}"));
            }
        }
        if thorough {
            self.peers_are_sound(host)
        } else {
            Ok(())
        }
    }

    fn peers_are_sound(&self, host: &Host) -> Result<(), String> {
        let Some(node) = host.node() else {
            return Ok(());
        };
        let world = node.world();
        let profile = NodeProfile::of(host.kind);
        let up = up_peers(host);
        if up.len() != world.resource::<Peers>().up_count() {
            return Err("a peer that is up lacks its connection".into());
        }
        let in_slot = |slot| up.iter().filter(|(_, _, peer)| peer.slot == slot).count();
        let slots = [
            (Slot::Social, profile.social_slots),
            (Slot::Wide, profile.wide_slots),
            (Slot::Visit, profile.visits_max),
        ];
        for (slot, bound) in slots {
            if in_slot(slot) > bound {
                return Err(format!(
                    "{} {} peers, more than {bound}",
                    in_slot(slot),
                    slot.name()
                ));
            }
        }
        let (map, entries) = (world.resource::<DiscoveryMap>(), entries_of(world));
        if map.find(&host.node_id(), entries).is_some() {
            return Err("its own id stands on its map".into());
        }
        for (id, link, peer) in &up {
            if *id == host.node_id() || link.node != *id {
                return Err(format!("{} is up as {}", link.node.short(), id.short()));
            }
            let hop = map
                .find(id, entries)
                .and_then(|row| entries[row as usize].hop());
            if (peer.slot == Slot::Visit) == (hop == Some(1)) {
                return Err(format!(
                    "{} is a {} peer and the map does not agree",
                    id.short(),
                    peer.slot.name()
                ));
            }
        }
        let derived = map.derive(entries.len());
        let from_scratch = (derived.hop_2.count(), derived.hop_3.count());
        if from_scratch != (map.counts().hop_2, map.counts().hop_3) {
            return Err(format!(
                "the map says {:?}, and its reporters {from_scratch:?}",
                map.counts()
            ));
        }
        if map.counts().hop_1 != up.len() - in_slot(Slot::Visit) {
            return Err(format!(
                "{} map entries for {} peers",
                map.counts().hop_1,
                up.len()
            ));
        }
        Ok(())
    }

    /// What a node hands to its disk: posts of itself and of kept authors only, each one that its author made.
    pub fn check_writes(&mut self, number: HostNumber, writes: &[Write], durability: Durability) {
        self.check_deletions(number, writes);
        self.check_versions(number, writes);
        let own = self.hosts[number as usize].node_id();
        for write in writes {
            let Write::Post { post, .. } = write else {
                continue;
            };
            let (id, author) = (post.id(), post.body().author);
            if author == own && durability == Durability::Durable {
                self.truth.insert(
                    id,
                    Truth {
                        author,
                        at_us: self.now_us,
                    },
                );
                continue;
            }
            let kept = author == own || self.keeps(number, &author);
            if !kept {
                self.violate(
                    Some(number),
                    format!("stores a post of {}, whom it does not keep", author.short()),
                );
            }
            if !self.is_genuine(id, author, || post.bytes().clone().verify().is_ok()) {
                self.violate(
                    Some(number),
                    format!(
                        "stores {}, which {} never wrote",
                        id.short(),
                        author.short()
                    ),
                );
            }
        }
    }

    fn keeps(&self, number: HostNumber, author: &NodeId) -> bool {
        let Some(node) = self.hosts[number as usize].node() else {
            return false;
        };
        let world = node.world();
        let entity = world.resource::<AuthorIndex>().get(author);
        entity
            .and_then(|entity| world.get::<Author>(entity))
            .is_some_and(Author::is_kept)
    }

    fn is_genuine(&mut self, id: PostId, author: NodeId, verifies: impl FnOnce() -> bool) -> bool {
        match self.truth.get(&id) {
            Some(truth) => truth.author == author,
            None if self.genuine.contains(&id) => true,
            None => verifies() && self.genuine.insert(id),
        }
    }

    /// Before a start: whatever its person was told is durable lies on the disk.
    pub fn check_survivors(&mut self, number: HostNumber) {
        let host = &self.hosts[number as usize];
        let lost = host.acknowledged.iter().find(|(id, _)| {
            let listed = host
                .disk
                .list_of(&host.node_id())
                .is_some_and(|list| list.iter().any(|event| event.id == *id));
            !(listed && host.disk.holds(id))
        });
        if let Some((id, _)) = lost {
            let what = format!("the acknowledged post {} is lost", id.short());
            self.violate(Some(number), what);
        }
        let host = &self.hosts[number as usize];
        let is_back = |id: &&PostId| {
            let is_deleted = host.disk.is_deleted(&host.node_id(), id);
            host.disk.holds(id) || !is_deleted
        };
        if let Some(id) = host.taken_back.iter().find(is_back) {
            let what = format!("the deletion of {} is lost", id.short());
            self.violate(Some(number), what);
        }
        let followed: Vec<NodeId> = self.hosts[number as usize].disk.followed().collect();
        let forgotten = self.hosts[number as usize]
            .follows
            .iter()
            .find(|other| !followed.contains(&self.hosts[**other as usize].node_id()));
        if let Some(other) = forgotten {
            let what = format!("the acknowledged follow of node {other} is lost");
            self.violate(Some(number), what);
        }
    }

    /// The network as a whole, at any time.
    pub fn survey(&mut self) {
        for number in 0..self.hosts.len() as HostNumber {
            self.check_node(number, true);
            let host = &self.hosts[number as usize];
            if !host.is_on() {
                continue;
            }
            let late = |asked: &&crate::host::Asked| {
                self.now_us > asked.at_us + ANSWER_US_MAX * host.disk.slowness.max(1)
            };
            if let Some(asked) = host.asked.values().find(late) {
                let what = format!(
                    "{:?} has no answer after {} s",
                    asked.what,
                    ANSWER_US_MAX / 1_000_000
                );
                self.violate(Some(number), what);
            }
        }
        let settled_us = self
            .last_fault_us
            .max(self.scenario.start_within_s * 1_000_000);
        if self.hosts.len() <= WATCHED_MAX && self.now_us >= settled_us + 2 * NEWS_US {
            self.check_maps();
        }
    }

    /// Every map beside the true graph, where the scenario expects the two to fit.
    pub fn check_maps(&mut self) {
        let Some(most) = self.scenario.expect.map_wrong_per_million_max else {
            return;
        };
        let truth = self.map_truth();
        if truth.wrong_per_million() > most {
            self.violate(None, format!("the maps are wrong: {truth:?}"));
        }
    }

    /// The network once it is calm: both ends of each pair agree, everything acknowledged is on its disk and intact, and
    /// whoever is connected to somebody they follow has all of their posts.
    pub fn check_calm(&mut self) {
        self.survey();
        for number in 0..self.hosts.len() as HostNumber {
            if let Err(what) = self.ends_agree(number) {
                self.violate(Some(number), what);
            }
            self.check_survivors(number);
            self.check_rows(number);
            self.check_feed(number);
        }
    }

    fn ends_agree(&self, number: HostNumber) -> Result<(), String> {
        let host = &self.hosts[number as usize];
        for (id, link, _) in up_peers(host) {
            let (key, side) = split(link.id);
            let Some(connection) = self.connections.get(key) else {
                return Err(format!("{} is up on a connection that is none", id.short()));
            };
            let end = &connection.ends[1 - side];
            let fresh = self.now_us
                < end
                    .last_arrival_us
                    .max(connection.ends[side].last_arrival_us)
                    + AGREE_US;
            let doubtful = !self.carries(connection) || end.state != EndState::Open;
            if fresh || doubtful {
                continue;
            }
            let other = &self.hosts[end.host as usize];
            let Some(other_node) = other.node() else {
                continue;
            };
            let world = other_node.world();
            let theirs = world
                .resource::<Peers>()
                .by_node(&host.node_id())
                .and_then(|entity| world.get::<Link>(entity));
            match theirs {
                Some(theirs) if split(theirs.id).0 == key => {}
                Some(_) => {
                    return Err(format!(
                        "it and node {} hold different connections",
                        end.host
                    ));
                }
                None => return Err(format!("node {} is up here, not the other way", end.host)),
            }
        }
        Ok(())
    }

    fn check_rows(&mut self, number: HostNumber) {
        let rows: Vec<(PostId, NodeId, bool)> = self.hosts[number as usize]
            .disk
            .posts()
            .map(|row| {
                let intact = row.bytes.id() == row.file.id;
                let author = row.bytes.decode().map(|body| body.author);
                (
                    row.file.id,
                    row.file.author,
                    intact && author == Ok(row.file.author),
                )
            })
            .collect();
        for (id, author, intact) in rows {
            let known = self.genuine.contains(&id)
                || self
                    .truth
                    .get(&id)
                    .is_some_and(|truth| truth.author == author);
            if !intact || !known {
                self.violate(
                    Some(number),
                    format!(
                        "the stored post {} is not what {} wrote",
                        id.short(),
                        author.short()
                    ),
                );
            }
        }
    }

    fn check_feed(&mut self, number: HostNumber) {
        let host = &self.hosts[number as usize];
        let is_full = |node: &Node| node.world().resource::<KeepFloor>().least.is_some();
        let has_room = !host.node().is_some_and(is_full);
        if host.disk.trouble.is_some() || host.disk.slowness > 1 || !has_room {
            return;
        }
        let calm_us = limits::REQUEST_TIMEOUT_MS * 1000 * 3;
        for (id, _, peer) in up_peers(host) {
            let Some(other) = self.numbers.get(&id).copied() else {
                continue;
            };
            let settled_us = host.at_us(peer.up_since_ms) + calm_us;
            if !host.follows.contains(&other) || self.now_us < settled_us {
                continue;
            }
            let author = &self.hosts[other as usize];
            let missing = author
                .acknowledged
                .iter()
                .filter(|(post, _)| !host.delivery.let_go.contains(post))
                .find(|(post, at_us)| self.now_us > at_us + calm_us && !host.disk.holds(post));
            if let Some((post, _)) = missing {
                let knows = self.what_is_known(number, id, *post);
                let what = format!(
                    "node {other} is followed and connected, and its post {} never came: {knows}",
                    post.short()
                );
                self.violate(Some(number), what);
                return;
            }
        }
    }

    /// How far a node has come with somebody's post, for whoever looks into why it is not there.
    fn what_is_known(&self, number: HostNumber, author: NodeId, post: PostId) -> String {
        let host = &self.hosts[number as usize];
        let Some(node) = host.node() else {
            return "off".into();
        };
        let world = node.world();
        let entity = world.resource::<AuthorIndex>().get(&author);
        let known = entity.and_then(|entity| world.get::<Author>(entity));
        let known_seq = known
            .and_then(|author| author.head.as_ref())
            .map(|head| head.seq);
        let listed = host
            .disk
            .list_of(&author)
            .is_some_and(|list| list.iter().any(|event| event.id == post));
        format!(
            "listed {listed}, wanted {}, missing {:?}, indexed {}, list at {known_seq:?}, checked {:?} ms ago",
            world.resource::<Wanted>().author_of(&post).is_some(),
            known.map(|author| author.missing.iter().any(|missing| missing.id == post)),
            world.resource::<FileIndex>().contains(&post),
            known.map(|author| host
                .now(self.now_us)
                .wall_ms
                .saturating_sub(author.checked_at_ms)),
        )
    }

    /// Pairs of a follower and a picture that should and did arrive whole, where both machines run: (arrived, all).
    #[must_use]
    pub fn pictures_delivered(&self) -> (u64, u64) {
        let (mut arrived, mut all) = (0, 0);
        for host in self.hosts.iter().filter(|host| host.is_on()) {
            let followed = host.follows.iter();
            let authors = followed.map(|other| &self.hosts[*other as usize]);
            for (_, picture) in authors
                .filter(|author| author.is_on())
                .flat_map(|author| &author.pictures)
            {
                all += 1;
                arrived += u64::from(host.disk.holds_blob(picture));
            }
        }
        (arrived, all)
    }

    /// Pairs of a follower and a post, where both machines run: those where it is here, those where it ever came, and all.
    #[must_use]
    pub fn delivered(&self) -> (u64, u64, u64) {
        let (mut arrived, mut came, mut all) = (0, 0, 0);
        for host in self.hosts.iter().filter(|host| host.is_on()) {
            for author in host
                .follows
                .iter()
                .map(|other| &self.hosts[*other as usize])
            {
                if author.is_on() {
                    let posts = author.acknowledged.iter().map(|(id, _)| id);
                    all += posts.len() as u64;
                    came += posts.clone().filter(|id| host.delivery.had(id)).count() as u64;
                    arrived += posts.filter(|id| host.disk.holds(id)).count() as u64;
                }
            }
        }
        (arrived, came, all)
    }
}
