//! PROTOCOL section 6, cover: connections show nobody whom a person follows.

mod table;

use distsoc_engine::domain::{ConnectString, Name};
use distsoc_engine::io::{Call, Reply, Slot};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::world::authors::KeptProfiles;
use table::{Table, address, connect_string, secret};

const HOUR_MS: u64 = 60 * 60 * 1000;

fn follow_at(table: &mut Table, whom: usize) {
    let (node, place) = (secret(whom).node_id(), Some(connect_string(whom)));
    let done = table.call(0, Call::Follow { node, place });
    assert_eq!(done, Ok(Reply::Done));
}

#[test]
fn who_follows_more_than_may_be_up_does_not_dial_the_others_only_to_send_them_away() {
    let mut kinds = vec![ProfileKind::Mobile];
    kinds.resize(31, ProfileKind::Desktop);
    let mut table = Table::new(&kinds, &[]);
    (1..31).for_each(|whom| follow_at(&mut table, whom));
    table.pass(2 * HOUR_MS);
    let profile = NodeProfile::of(ProfileKind::Mobile);
    let followed_max = profile.social_slots - profile.cover_slots();
    let peers = table.peers(0);
    let shown = peers
        .iter()
        .filter(|peer| peer.followed && peer.slot == Slot::Social && peer.dialled);
    assert!(shown.count() <= followed_max);
    assert!(peers.len() >= followed_max);
    let dials = table.dials_of(0);
    assert!(dials <= 4 * followed_max, "{dials} dials in two hours");
}

#[test]
fn profiles_of_the_kept_send_nobody_into_a_network_of_their_own() {
    let mut table = Table::new(&[ProfileKind::Desktop, ProfileKind::Desktop], &[]);
    let place = connect_string(1);
    assert_eq!(
        table.call(0, Call::Connect(place)),
        Ok(Reply::Connected(secret(1).node_id()))
    );
    let anchors: Vec<ConnectString> = vec![
        ConnectString::at(secret(5).node_id(), ([9, 9, 9, 9], 4000).into()),
        ConnectString::at(secret(6).node_id(), address(6)),
        format!("{}@anchor.example:4000", secret(7).node_id())
            .parse()
            .expect("a connect string with a name"),
    ];
    let change = |anchors| Call::SetProfile {
        name: Some(Name::new("Ada").expect("a name")),
        bio: None,
        anchors: Some(anchors),
    };
    assert_eq!(table.call(1, change(anchors)), Ok(Reply::Done));
    follow_at(&mut table, 1);
    let id = secret(1).node_id();
    let profiles = |table: &Table| {
        let profiles = table.seats[0].node.world().resource::<KeptProfiles>();
        let listed = profiles.get(&id).map(|profile| profile.anchors.len());
        (listed, profiles.anchors_of(&id).count())
    };
    // Others choose what stands in a profile: they send nobody into a network of their own, nor have names looked up.
    assert_eq!(profiles(&table), (Some(3), 1));
}
