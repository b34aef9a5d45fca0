//! Example people: who they are, whom they follow, what they say.

use super::Member;
use crate::exit::Exit;
use distsoc_engine::domain::{NodeId, PostText};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{Call, Reply};
use distsoc_net::runtime;
use std::time::Duration;

const NAMES: [&str; 24] = [
    "Ada", "Bela", "Chidi", "Dunya", "Emre", "Fatou", "Goro", "Hana", "Ivo", "Jun", "Kaya", "Lars",
    "Mira", "Nilo", "Oya", "Pavel", "Quinn", "Rosa", "Sami", "Tove", "Uma", "Vito", "Wen", "Yara",
];

const SAYINGS: [&str; 16] = [
    "The kettle and I agree: it is still morning.",
    "Found a bench with a view of two rivers.",
    "Does anybody have a good recipe for plum cake?",
    "Today I understood Fourier series. Tomorrow I will doubt it.",
    "The neighbour's cat has moved in. Nobody was asked.",
    "Rain on a tin roof, the best radio programme.",
    "I walked home instead of waiting for the bus. Recommended.",
    "Looking for people to sing with on Thursdays.",
    "My grandmother's radio works again after thirty years.",
    "New glasses. The trees have leaves!",
    "We planted six apple trees. See you in five years.",
    "Somebody left a box of books at the station. I have a book now.",
    "The bread turned out well this time.",
    "Which mountain would you climb again?",
    "I fixed the bicycle and now it makes another noise.",
    "Moonrise over the harbour, worth going out for.",
];

/// Follows of each person.
const FOLLOWS: usize = 5;
/// Pause between two posts anywhere in the network.
const PAUSE_MS: u64 = 4_000;

/// The name of the person at a node.
pub(super) fn name(number: usize) -> String {
    let name = NAMES[(number - 1) % NAMES.len()];
    match (number - 1) / NAMES.len() {
        0 => name.to_owned(),
        generation => format!("{name} {}", generation + 1),
    }
}

/// Whom the person at an index follows: a fixed pattern, so that everybody is followed by somebody.
fn follows_of(index: usize, people: usize) -> Vec<usize> {
    let mut follows: Vec<usize> = (1..=FOLLOWS)
        .map(|step| (index + step * step) % people)
        .collect();
    follows.sort_unstable();
    follows.dedup();
    follows.retain(|other| *other != index);
    follows
}

/// People follow each other, say something, and go on saying things.
pub(super) async fn live(
    members: &[Member],
    authors: &[NodeId],
    seed: [u8; 32],
) -> Result<(), Exit> {
    let mut entropy = Entropy::from_seed(seed);
    for (index, member) in members.iter().enumerate() {
        let has_follows = matches!(member.host.call(Call::Follows).await, Ok(Reply::Follows(all)) if !all.is_empty());
        if has_follows {
            continue;
        }
        for other in follows_of(index, members.len()) {
            let follow = Call::Follow {
                node: authors[other],
                place: None,
            };
            member.host.call(follow).await.map_err(Exit::failed)?;
        }
    }
    for member in members {
        say_something(member, &mut entropy).await;
    }
    loop {
        runtime::sleep(Duration::from_millis(PAUSE_MS)).await;
        let index = entropy.below(members.len() as u64) as usize;
        say_something(&members[index], &mut entropy).await;
    }
}

async fn say_something(member: &Member, entropy: &mut Entropy) {
    let saying = SAYINGS[entropy.below(SAYINGS.len() as u64) as usize];
    let text = PostText::new(saying).expect("example sayings are posts");
    // A full disk or a stop ends it; the display shows what the node says about that.
    let _ = member
        .host
        .call(Call::Post {
            text,
            parent: None,
            media: Vec::new(),
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_follows_and_is_followed() {
        for people in [2, 3, 12, 40, 200] {
            let mut followed = vec![false; people];
            for index in 0..people {
                let follows = follows_of(index, people);
                assert!(!follows.is_empty() && !follows.contains(&index));
                follows.iter().for_each(|other| followed[*other] = true);
            }
            assert!(followed.iter().all(|followed| *followed), "{people}");
        }
    }
}
