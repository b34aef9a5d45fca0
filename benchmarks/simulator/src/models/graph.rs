//! A social network of any size that is nowhere stored: who is linked to whom follows from keyed permutations, so that every link is
//! one from both of its ends, and two billion nodes take no memory (PROTOCOL section 15: 200-node communities; 50 links inside, 31 to near
//! communities, 20 wide).

use distsoc_engine::domain::{NodeId, finger_bits};

/// A node by its place among people: communities are neighbours of neighbours.
pub type Person = u64;

const COMMUNITY: u64 = 200;
const INSIDE: u64 = 50;
const NEAR: u64 = 31;
/// Near communities are among so many.
const NEAR_COMMUNITIES: u64 = 256;

/// A cheap hash of numbers; nothing here is hidden from anybody.
#[must_use]
pub fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A keyed permutation of the numbers below `count`, and back.
#[derive(Clone, Copy, Debug)]
struct Permutation {
    count: u64,
    half_bits: u32,
    key: u64,
}

impl Permutation {
    const ROUNDS: u64 = 4;

    fn new(count: u64, key: u64) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        Self {
            count,
            half_bits: bits.div_ceil(2).max(1),
            key,
        }
    }

    fn round(&self, half: u64, round: u64) -> u64 {
        mix(self.key ^ round, half) & ((1 << self.half_bits) - 1)
    }

    fn apply(&self, mut number: u64) -> u64 {
        loop {
            let mask = (1 << self.half_bits) - 1;
            let (mut left, mut right) = (number >> self.half_bits, number & mask);
            for round in 0..Self::ROUNDS {
                (left, right) = (right, left ^ self.round(right, round));
            }
            number = left << self.half_bits | right;
            if number < self.count {
                return number;
            }
        }
    }

    fn invert(&self, mut number: u64) -> u64 {
        loop {
            let mask = (1 << self.half_bits) - 1;
            let (mut left, mut right) = (number >> self.half_bits, number & mask);
            for round in (0..Self::ROUNDS).rev() {
                (left, right) = (right ^ self.round(left, round), left);
            }
            number = left << self.half_bits | right;
            if number < self.count {
                return number;
            }
        }
    }
}

/// What the 20 wide slots are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wide {
    /// Nothing: there are none.
    None,
    /// Anybody at all.
    Random,
    /// PROTOCOL section 6: 4 neighbours in the order of ids, 8 fingers, 8 diverse.
    Guided,
}

/// The network.
#[derive(Clone, Debug)]
pub struct Graph {
    /// How many nodes.
    pub nodes: u64,
    wide: Wide,
    /// Near communities at log-uniform distances instead.
    log_uniform: bool,
    by_id: Permutation,
    matchings: Vec<Permutation>,
    seed: u64,
}

impl Graph {
    /// A network of whole communities, about as large as asked for.
    #[must_use]
    pub fn new(nodes: u64, wide: Wide, log_uniform: bool, seed: u64) -> Self {
        // A matching pairs all of an even number.
        let nodes = (nodes / (2 * COMMUNITY)).max(1) * 2 * COMMUNITY;
        let random = match wide {
            Wide::None => 0,
            Wide::Random => 20,
            Wide::Guided => 8,
        };
        let matching = |number: u64| Permutation::new(nodes, mix(seed, 100 + number));
        Self {
            nodes,
            wide,
            log_uniform,
            by_id: Permutation::new(nodes, mix(seed, 1)),
            matchings: (0..random).map(matching).collect(),
            seed,
        }
    }

    /// The width of the cell of ids that holds one node.
    fn spacing(&self) -> u64 {
        u64::MAX / self.nodes
    }

    fn id_at(&self, rank: u64) -> u64 {
        let spacing = self.spacing();
        rank * spacing + mix(self.seed ^ 2, rank) % spacing
    }

    /// The first 8 bytes of a node's id.
    #[must_use]
    pub fn id_bits(&self, person: Person) -> u64 {
        self.id_at(self.by_id.apply(person))
    }

    /// How many ids lie between those of two nodes.
    #[must_use]
    pub fn ranks_between(&self, a: Person, b: Person) -> u64 {
        self.by_id.apply(a).abs_diff(self.by_id.apply(b))
    }

    /// Those whose ids are so many places at most from a node's, in the order of ids.
    #[must_use]
    pub fn around(&self, person: Person, places: u64) -> Vec<Person> {
        let rank = self.by_id.apply(person);
        let ranks = rank.saturating_sub(places)..=(rank + places).min(self.nodes - 1);
        let others = ranks.filter(|other| *other != rank);
        others.map(|other| self.by_id.invert(other)).collect()
    }

    /// A node's id.
    #[must_use]
    pub fn id(&self, person: Person) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.id_bits(person).to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    /// About the node whose id is closest.
    #[must_use]
    pub fn closest(&self, id: u64) -> Person {
        let rank = (id / self.spacing()).min(self.nodes - 1);
        let around = [rank.saturating_sub(1), rank, (rank + 1).min(self.nodes - 1)];
        let closest = around
            .into_iter()
            .min_by_key(|rank| self.id_at(*rank) ^ id)
            .expect("three");
        self.by_id.invert(closest)
    }

    /// Among so many people a link to a near community is drawn.
    fn near(&self, link: u64) -> u64 {
        let share = (mix(self.seed ^ 3, link) % 1_000_000) as f64 / 1e6;
        let most = match self.log_uniform {
            // From one community to everybody.
            true => COMMUNITY as f64 * (self.nodes as f64 / COMMUNITY as f64).powf(share),
            false => (COMMUNITY * NEAR_COMMUNITIES) as f64,
        };
        ((most as u64).min(self.nodes) / COMMUNITY).max(2) * COMMUNITY
    }

    /// Everybody a node is linked to.
    pub fn neighbours(&self, person: Person, all: &mut Vec<Person>) {
        all.clear();
        let (community, place) = (person / COMMUNITY, person % COMMUNITY);
        let base = community * COMMUNITY;
        // Inside: a ring whose order and steps differ from community to community.
        let key = mix(self.seed ^ 4, community);
        let inside = Permutation::new(COMMUNITY, key);
        let at = inside.apply(place);
        for link in 0..INSIDE / 2 {
            let step = link * 4 + 1 + key.rotate_right(link as u32) % 4;
            let step = step.min(COMMUNITY / 2 - 1);
            all.push(base + inside.invert((at + step) % COMMUNITY));
            all.push(base + inside.invert((at + COMMUNITY - step) % COMMUNITY));
        }
        for link in 0..NEAR {
            // People in blocks that begin elsewhere for each link, and pairs among those of a block.
            let size = self.near(link);
            let shift = mix(self.seed ^ 5, link) % size;
            let shifted = (person + shift) % self.nodes;
            let first = shifted / size * size;
            let size = size.min(self.nodes - first);
            let pairs = Permutation::new(size, mix(self.seed ^ 6 ^ link, first));
            let partner = pairs.apply(shifted - first) ^ 1;
            if partner < size {
                let other = first + pairs.invert(partner);
                all.push((other + self.nodes - shift) % self.nodes);
            }
        }
        for matching in &self.matchings {
            all.push(matching.invert(matching.apply(person) ^ 1));
        }
        if self.wide == Wide::Guided {
            self.by_order_of_ids(person, all);
        }
        all.sort_unstable();
        all.dedup();
        all.retain(|other| *other != person);
    }

    /// The nearest two on both sides, and eight fingers as nodes draw them. (Those that others draw towards this one would be as many,
    /// at the same distances: four of each are real.)
    fn by_order_of_ids(&self, person: Person, all: &mut Vec<Person>) {
        let rank = self.by_id.apply(person);
        for step in [1, 2] {
            all.push(self.by_id.invert((rank + step) % self.nodes));
            all.push(self.by_id.invert((rank + self.nodes - step) % self.nodes));
        }
        let id = self.id(person);
        for finger in 0..8 {
            let draw = mix(self.seed ^ 6 ^ finger, person);
            let bits = finger_bits(self.nodes as f64, (draw >> 32) as u32);
            let mut random = [0; 32];
            random[..8].copy_from_slice(&mix(draw, 7).to_be_bytes());
            let target = id.sibling(bits, &random);
            let (first, _) = target.as_bytes().split_first_chunk().expect("32 bytes");
            all.push(self.closest(u64::from_be_bytes(*first)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_go_back() {
        for count in [2, 400, 1_000_003] {
            let permutation = Permutation::new(count, 9);
            for number in (0..count).step_by(1 + count as usize / 500) {
                let there = permutation.apply(number);
                assert!(there < count);
                assert_eq!(permutation.invert(there), number);
            }
        }
    }

    #[test]
    fn every_link_is_one_from_both_ends() {
        for log_uniform in [false, true] {
            let graph = Graph::new(2_000_000_000, Wide::Random, log_uniform, 3);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            let mut degrees = 0;
            for sample in 0..200 {
                let person = mix(8, sample) % graph.nodes;
                graph.neighbours(person, &mut ours);
                degrees += ours.len();
                for other in &ours {
                    graph.neighbours(*other, &mut theirs);
                    assert!(theirs.contains(&person), "{person} and {other}");
                }
            }
            assert!((95..=101).contains(&(degrees / 200)), "{degrees}");
        }
    }

    #[test]
    fn the_closest_is_close() {
        let graph = Graph::new(1_000_000, Wide::Guided, false, 3);
        for sample in 0..100 {
            let id = mix(9, sample);
            let found = graph.id_bits(graph.closest(id));
            assert!((found ^ id) < 16 * graph.spacing());
        }
    }
}
