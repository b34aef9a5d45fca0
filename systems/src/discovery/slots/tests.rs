//! Seats: how many of which kind, who gives way to whom.

use super::*;
use distsoc_engine::domain::Distance;
use distsoc_engine::world::wide::WideSwap;

const OWN: NodeId = NodeId::from_bytes([0; 32]);
const SOCIAL: Place = Place {
    slot: Slot::Social,
    role: None,
};
const VISIT: Place = Place {
    slot: Slot::Visit,
    role: None,
};
const LATER_MS: u64 = limits::INCUMBENT_SAFE_MS;

fn wide(role: WideRole) -> Place {
    Place {
        slot: Slot::Wide,
        role: Some(role),
    }
}

/// Ids whose distance to the own one grows with the number.
fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn incumbent(number: u8, place: Place, worth: Worth) -> Incumbent {
    Incumbent {
        node: node(number),
        link: LinkId(u64::from(number)),
        place,
        worth,
        is_anchor: false,
        dialled: true,
        network: None,
        is_stranger: false,
        up_since_ms: 0,
    }
}

fn full(worth: Worth) -> Vec<Incumbent> {
    let social = (1..11).map(|number| incumbent(number, SOCIAL, worth));
    let anchors = (11..13).map(|number| Incumbent {
        is_anchor: true,
        ..incumbent(number, wide(WideRole::Diverse), Worth::Anybody)
    });
    social.chain(anchors).collect()
}

fn challenger(worth: Worth) -> Challenger {
    Challenger {
        node: node(99),
        purpose: Purpose::Social,
        worth,
        is_anchor: false,
        dialled: false,
        network: None,
    }
}

fn rules(profile: &NodeProfile) -> Rules<'_> {
    Rules {
        own: OWN,
        profile,
        swap_allowed: true,
        swap: None,
        yields: None,
        size: 1.0,
        now_ms: LATER_MS,
    }
}

/// Seats challengers one after the other, as long as there is a free slot.
fn seated(profile: &NodeProfile, challengers: impl Iterator<Item = Challenger>) -> Vec<Incumbent> {
    let mut seated: Vec<Incumbent> = Vec::new();
    for challenger in challengers {
        if let Seat::Free(place) = rules(profile).seat(challenger, &seated) {
            seated.push(Incumbent {
                node: challenger.node,
                is_anchor: challenger.is_anchor,
                dialled: challenger.dialled,
                network: challenger.network,
                ..incumbent(1, place, challenger.worth)
            });
        }
    }
    seated
}

fn count(seated: &[Incumbent], place: Place) -> usize {
    seated.iter().filter(|one| one.place == place).count()
}

fn strangers(purpose: Purpose, dialled: bool) -> impl Iterator<Item = Challenger> {
    (1..120).map(move |number| Challenger {
        node: node(number),
        purpose,
        dialled,
        ..challenger(Worth::Anybody)
    })
}

#[test]
fn strangers_fill_the_social_slots_and_half_of_the_diverse_ones() {
    let desktop = NodeProfile::of(ProfileKind::Desktop);
    let seated_there = seated(&desktop, strangers(Purpose::Social, false));
    let diverse = wide(WideRole::Diverse);
    assert_eq!(
        (count(&seated_there, SOCIAL), count(&seated_there, diverse)),
        (81, 4)
    );
    let mobile = NodeProfile::of(ProfileKind::Mobile);
    let mut seated_there = seated(&mobile, strangers(Purpose::Wide, true));
    assert_eq!(
        (count(&seated_there, SOCIAL), count(&seated_there, diverse)),
        (10, 0)
    );
    let anchor = Challenger {
        is_anchor: true,
        dialled: true,
        ..challenger(Worth::Anybody)
    };
    for _ in 0..2 {
        assert_eq!(
            rules(&mobile).seat(anchor, &seated_there),
            Seat::Free(diverse)
        );
        seated_there.push(Incumbent {
            is_anchor: true,
            ..incumbent(50, diverse, Worth::Anybody)
        });
    }
    assert_eq!(rules(&mobile).seat(anchor, &seated_there), Seat::Full);
}

#[test]
fn ring_and_fingers_are_half_dialled_and_half_accepted() {
    let desktop = NodeProfile::of(ProfileKind::Desktop);
    for (purpose, role, each) in [
        (Purpose::Ring, WideRole::Ring, 2),
        (Purpose::Finger, WideRole::Finger, 4),
    ] {
        let both = strangers(purpose, true).chain(strangers(purpose, false));
        let there = seated(&desktop, both);
        let dialled = there
            .iter()
            .filter(|one| one.place == wide(role) && one.dialled);
        assert_eq!(
            (dialled.count(), count(&there, wide(role))),
            (each, 2 * each)
        );
        assert_eq!(
            count(&there, SOCIAL),
            81,
            "who asks for more is like anybody"
        );
    }
}

/// Of two connections between the same nodes the newer has the older's place, whichever side dialled it.
#[test]
fn there_are_no_more_fingers_than_places_on_whichever_side_they_are() {
    let mobile = NodeProfile::of(ProfileKind::Mobile);
    let fingers = [1, 2].map(|number| incumbent(number, wide(WideRole::Finger), Worth::Anybody));
    for dialled in [false, true] {
        let comes = Challenger {
            purpose: Purpose::Finger,
            dialled,
            ..challenger(Worth::Anybody)
        };
        let seat = rules(&mobile).seat(comes, &fingers);
        assert_eq!(seat, Seat::Free(SOCIAL));
    }
}

#[test]
fn a_closer_neighbour_takes_the_place_of_the_farthest() {
    let desktop = NodeProfile::of(ProfileKind::Desktop);
    let ring = [30, 60].map(|number| incumbent(number, wide(WideRole::Ring), Worth::Anybody));
    let comes = |number: u8| Challenger {
        node: node(number),
        purpose: Purpose::Ring,
        dialled: true,
        ..challenger(Worth::Anybody)
    };
    let rules = rules(&desktop);
    assert_eq!(rules.seat(comes(20), &ring), Seat::InsteadOf(ring[1]));
    assert_eq!(rules.seat(comes(90), &ring), Seat::Free(SOCIAL));
    // Two that have been there for a day stay.
    let later = Rules {
        now_ms: limits::RING_OLD_MS,
        ..rules
    };
    assert_eq!(later.seat(comes(20), &ring), Seat::Free(SOCIAL));
    let third = Incumbent {
        dialled: false,
        ..incumbent(40, wide(WideRole::Ring), Worth::Anybody)
    };
    let with_third = [ring[0], ring[1], third];
    assert_eq!(later.seat(comes(20), &with_third), Seat::InsteadOf(ring[1]));
}

#[test]
fn ids_ground_around_this_one_get_one_ring_slot() {
    let desktop = NodeProfile::of(ProfileKind::Desktop);
    let ground = (1..100u8).map(|number| {
        let mut id = [0; 32];
        id[31] = number;
        Challenger {
            node: NodeId::from_bytes(id),
            purpose: Purpose::Ring,
            ..challenger(Worth::Anybody)
        }
    });
    let honest = (1..4u8).map(|number| Challenger {
        node: node(number << 5),
        purpose: Purpose::Ring,
        ..challenger(Worth::Anybody)
    });
    let there = seated(&desktop, ground.chain(honest));
    let is_near = |one: &&Incumbent| OWN.distance(&one.node) < Distance::between(&OWN, &node(1));
    let ring = there.iter().filter(|one| one.place == wide(WideRole::Ring));
    assert_eq!(ring.clone().filter(is_near).count(), 1);
    assert_eq!(ring.count(), 2);
}

#[test]
fn wide_peers_are_of_different_networks() {
    let desktop = NodeProfile::of(ProfileKind::Desktop);
    let of = |text: &str, purpose| Challenger {
        node: node(7),
        purpose,
        network: Network::of(text.parse().unwrap()),
        ..challenger(Worth::Anybody)
    };
    let mut there = seated(&desktop, std::iter::once(of("8.8.1.1", Purpose::Ring)));
    assert_eq!(there[0].place, wide(WideRole::Ring));
    for purpose in [Purpose::Ring, Purpose::Finger, Purpose::Wide] {
        let seat = rules(&desktop).seat(of("8.8.200.1", purpose), &there);
        assert_eq!(seat, Seat::Free(SOCIAL), "{purpose:?}");
    }
    there[0].network = None;
    let seat = rules(&desktop).seat(of("8.8.200.1", Purpose::Finger), &there);
    assert_eq!(seat, Seat::Free(wide(WideRole::Finger)));
}

#[test]
fn the_chosen_one_takes_the_place_it_was_chosen_for() {
    let mobile = NodeProfile::of(ProfileKind::Mobile);
    let all = full(Worth::Followed);
    let swap = WideSwap {
        comes: node(99),
        leaves: node(12),
    };
    let rules = Rules {
        swap: Some(swap),
        ..rules(&mobile)
    };
    let seat = rules.seat(challenger(Worth::Anybody), &all);
    assert_eq!(seat, Seat::InsteadOf(all[11]));
    let other = Challenger {
        node: node(98),
        ..challenger(Worth::Anybody)
    };
    assert_eq!(rules.seat(other, &all), Seat::Full);
}

#[test]
fn the_least_diverse_gives_way_to_who_chose_this_node() {
    let desktop = NodeProfile::of(ProfileKind::Desktop);
    let mut all = seated(&desktop, strangers(Purpose::Social, false));
    let yields = all[84].node;
    let rules = Rules {
        yields: Some(yields),
        ..rules(&desktop)
    };
    let chooses = Challenger {
        purpose: Purpose::Wide,
        network: Network::of("8.8.1.1".parse().unwrap()),
        ..challenger(Worth::Anybody)
    };
    assert_eq!(rules.seat(chooses, &all), Seat::InsteadOf(all[84]));
    assert_eq!(rules.seat(challenger(Worth::Anybody), &all), Seat::Full);
    all[83].network = chooses.network;
    assert_eq!(rules.seat(chooses, &all), Seat::Full);
}

#[test]
fn a_challenger_must_beat_the_weakest_by_the_margin() {
    let profile = NodeProfile::of(ProfileKind::Mobile);
    let rules = rules(&profile);
    let strangers = full(Worth::Anybody);
    let taken = rules.seat(challenger(Worth::Followed), &strangers);
    assert_eq!(taken, Seat::InsteadOf(strangers[0]));
    let equal = rules.seat(challenger(Worth::Anybody), &strangers);
    assert_eq!(equal, Seat::Full);
    let friends = full(Worth::Followed);
    assert_eq!(
        rules.seat(challenger(Worth::Followed), &friends),
        Seat::Full
    );
}

#[test]
fn a_third_of_the_social_peers_are_cover_however_many_are_followed() {
    for kind in ProfileKind::ALL {
        let profile = NodeProfile::of(kind);
        let related = (1..120).map(|number| Challenger {
            node: node(number),
            ..challenger(Worth::Followed)
        });
        let mut there = seated(&profile, related.chain(strangers(Purpose::Social, true)));
        let is_related = |one: &&Incumbent| one.place == SOCIAL && one.worth == Worth::Followed;
        let related_max = profile.social_slots - profile.social_slots / 3;
        assert_eq!(there.iter().filter(is_related).count(), related_max);
        assert_eq!(count(&there, SOCIAL), profile.social_slots);
        // Whoever is worth more takes the place of somebody one has to do with, or none.
        let seat = rules(&profile).seat(challenger(Worth::Followed), &there);
        assert_eq!(seat, Seat::Full);
        let place = there.iter().position(|one| is_related(&one)).unwrap();
        there[place].worth = Worth::SyncPartner;
        let seat = rules(&profile).seat(challenger(Worth::Followed), &there);
        assert!(matches!(seat, Seat::InsteadOf(one) if one.worth < Worth::Followed));
    }
}

#[test]
fn incumbents_are_safe_for_ten_minutes_but_strangers_who_dialled_in_are_not() {
    let profile = NodeProfile::of(ProfileKind::Mobile);
    let early = Rules {
        now_ms: LATER_MS - 1,
        ..rules(&profile)
    };
    let mut all = full(Worth::Anybody);
    assert_eq!(early.seat(challenger(Worth::Followed), &all), Seat::Full);
    all[7].is_stranger = true;
    let seat = early.seat(challenger(Worth::Followed), &all);
    assert_eq!(seat, Seat::InsteadOf(all[7]));
}

#[test]
fn swaps_are_rare_and_visits_bounded() {
    let profile = NodeProfile::of(ProfileKind::Mobile);
    let all = full(Worth::Anybody);
    let rarely = Rules {
        swap_allowed: false,
        ..rules(&profile)
    };
    assert_eq!(rarely.seat(challenger(Worth::Followed), &all), Seat::Full);
    let visitor = Challenger {
        purpose: Purpose::Visit,
        ..challenger(Worth::Anybody)
    };
    assert_eq!(rules(&profile).seat(visitor, &all), Seat::Free(VISIT));
    let visits: Vec<Incumbent> = (0..8)
        .map(|number| incumbent(number, VISIT, Worth::Anybody))
        .collect();
    assert_eq!(rules(&profile).seat(visitor, &visits), Seat::Full);
    let swaps = Swaps {
        last_ms: Some(1000),
        ..Swaps::default()
    };
    let (before, after) = (
        1000 + limits::SWAP_PAUSE_MS - 1,
        1000 + limits::SWAP_PAUSE_MS,
    );
    assert!(!swaps.allowed(before) && swaps.allowed(after));
}

#[test]
fn of_two_that_cross_both_sides_keep_the_same() {
    let (small, large) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
    let by_small = |own: &NodeId, since_ms| Rival {
        dialled: own == &small,
        since_ms,
    };
    let by_large = |own: &NodeId, since_ms| Rival {
        dialled: own == &large,
        since_ms,
    };
    for (own, peer) in [(small, large), (large, small)] {
        // Whichever a side sees first, the one dialled by the smaller id stays.
        assert!(newer_stays(
            &own,
            &peer,
            by_large(&own, 0),
            by_small(&own, 5)
        ));
        assert!(!newer_stays(
            &own,
            &peer,
            by_small(&own, 0),
            by_large(&own, 5)
        ));
        // A newer one by the same dialler replaces the older, and so does one that does not cross.
        assert!(newer_stays(
            &own,
            &peer,
            by_small(&own, 0),
            by_small(&own, 5)
        ));
        assert!(newer_stays(
            &own,
            &peer,
            by_large(&own, 0),
            by_large(&own, 5)
        ));
        assert!(newer_stays(
            &own,
            &peer,
            by_small(&own, 0),
            by_large(&own, CROSSING_MS)
        ));
    }
}
