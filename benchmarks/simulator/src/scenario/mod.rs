//! A scenario: what a TOML file says about a swarm, its network, its people and what goes wrong. Everything has a default,
//! unknown fields are errors, and [`Scenario::check`] says in one sentence what does not make sense.

mod check;

use distsoc_engine::profile::{NodeProfile, ProfileKind};
use serde::Deserialize;

/// Nodes of one run, at most: as many as there are distinct /24 networks to give them.
pub const NODES_MAX: usize = 4_000_000;
/// Virtual time of one run, at most: 30 days.
pub const DURATION_S_MAX: u64 = 30 * 24 * 60 * 60;
/// Longest time between two frames of a node that has something to do, ms.
pub const FRAME_MS_MAX: u64 = 100;

/// A whole scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, for reports.
    pub name: String,
    /// What it is for, for readers.
    #[serde(default)]
    pub about: String,
    /// How many nodes there are at the start; `--nodes` changes it.
    pub nodes: usize,
    /// How many of them, the first ones, are anchors that everybody is told of.
    #[serde(default = "three")]
    pub anchors: usize,
    /// How long it runs, virtual seconds.
    pub duration_s: u64,
    /// The seeds that a whole pass over the scenario uses; `--seed` chooses another.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    /// The nodes start at random times within this.
    #[serde(default = "ten")]
    pub start_within_s: u64,
    /// A frame begins on a whole multiple of this, ms, so that what comes in meanwhile shares it and more nodes run side by
    /// side. Packets wait half of it on average.
    #[serde(default = "one")]
    pub frame_ms: u64,
    /// Anchors answer for whoever has left its record with them.
    #[serde(default = "yes")]
    pub directory: bool,
    /// Shares of profiles among those that are no anchors.
    #[serde(default)]
    pub profiles: Profiles,
    /// How packets travel.
    #[serde(default)]
    pub network: Network,
    /// How fast disks are.
    #[serde(default)]
    pub disk: Disk,
    /// How wrong clocks are.
    #[serde(default)]
    pub clock: Clock,
    /// What people do.
    #[serde(default)]
    pub persons: Persons,
    /// People whom many follow.
    #[serde(default)]
    pub popular: Popular,
    /// What goes wrong, and when.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What must hold at the end besides the invariants.
    #[serde(default)]
    pub expect: Expect,
}

fn yes() -> bool {
    true
}
fn three() -> usize {
    3
}
fn one() -> u64 {
    1
}
fn ten() -> u64 {
    10
}
fn one_seed() -> Vec<u64> {
    vec![1]
}

/// Shares of profiles, in any unit.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profiles {
    /// Machines that are mostly on.
    pub desktop: u32,
    /// Phones.
    pub mobile: u32,
}

impl Default for Profiles {
    fn default() -> Self {
        Self {
            desktop: 100,
            mobile: 0,
        }
    }
}

/// How packets travel.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// One-way latency of a pair of nodes, drawn once from this range, ms.
    pub latency_ms: [u64; 2],
    /// Added to every stream at random, up to this, ms: streams overtake each other by it.
    pub jitter_ms: u64,
    /// Datagrams lost in a million; a loss costs a stream one and a half round trips.
    pub loss_per_million: u32,
    /// Uplink of each node, kbit/s; 0 for as much as it wants.
    pub uplink_kbit_s: u64,
    /// How many nodes in a hundred are behind NAT: they dial, nobody dials them. Anchors never are.
    pub nat_percent: u32,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            latency_ms: [10, 80],
            jitter_ms: 5,
            loss_per_million: 0,
            uplink_kbit_s: 0,
            nat_percent: 0,
        }
    }
}

/// How fast disks are, and how large.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// A read, ms.
    pub read_ms: [u64; 2],
    /// A durable commit, ms.
    pub commit_ms: [u64; 2],
    /// What is written behind is committed this late, ms; at most [`distsoc_engine::limits::WRITE_BEHIND_MS_MAX`].
    pub write_behind_ms: [u64; 2],
    /// Bytes that everything on a disk may take; where not said, what the profile says.
    pub budget_bytes: Budgets,
}

/// One budget for all, or some by profile.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub enum Budgets {
    /// For all.
    All(u64),
    /// By profile.
    ByProfile(BudgetByProfile),
}

/// A budget for some profiles, bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetByProfile {
    /// Desktops.
    pub desktop: Option<u64>,
    /// Mobiles.
    pub mobile: Option<u64>,
    /// Anchors.
    pub anchor: Option<u64>,
}

impl Disk {
    /// The budget of a node with this profile, bytes.
    #[must_use]
    pub fn budget_of(&self, kind: ProfileKind) -> u64 {
        let said = match (self.budget_bytes, kind) {
            (Budgets::All(bytes), _) => Some(bytes),
            (Budgets::ByProfile(by), ProfileKind::Desktop) => by.desktop,
            (Budgets::ByProfile(by), ProfileKind::Mobile) => by.mobile,
            (Budgets::ByProfile(by), ProfileKind::Anchor) => by.anchor,
        };
        said.unwrap_or_else(|| NodeProfile::of(kind).file_budget_bytes)
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            read_ms: [0, 2],
            commit_ms: [1, 15],
            write_behind_ms: [200, 2_000],
            budget_bytes: Budgets::ByProfile(BudgetByProfile::default()),
        }
    }
}

/// How wrong clocks are.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clock {
    /// Each wall clock is off by up to this, either way, ms.
    pub skew_ms: u64,
}

/// What people do.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Persons {
    /// How many random others each follows.
    pub follows: usize,
    /// Whether a follow comes with the place where the person is found.
    pub places: bool,
    /// Whether each sets a name.
    pub profiles: bool,
    /// Posts of each in an hour of virtual time.
    pub posts_per_hour: u32,
    /// Bytes of a post's text.
    pub text_bytes: [usize; 2],
    /// Nobody posts before this.
    pub posts_from_s: u64,
    /// Nobody posts in this last part of the run, so that what was posted can arrive.
    pub quiet_s: u64,
    /// How many posts in a hundred come with a picture.
    pub pictures_percent: u32,
    /// Bytes of a picture.
    pub picture_bytes: [usize; 2],
}

/// People whom many follow: the first ones that are no anchors.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Popular {
    /// How many.
    pub authors: usize,
    /// So many in a hundred of the others follow each, before they follow anybody else.
    pub followers_percent: u32,
    /// Whether anybody else posts.
    pub others_post: bool,
    /// Whether they have phones, and so a place for few of those who follow them.
    pub on_phones: bool,
}

impl Default for Popular {
    fn default() -> Self {
        Self {
            authors: 0,
            followers_percent: 100,
            others_post: true,
            on_phones: false,
        }
    }
}

impl Default for Persons {
    fn default() -> Self {
        Self {
            follows: 4,
            places: true,
            profiles: true,
            posts_per_hour: 12,
            text_bytes: [20, 600],
            posts_from_s: 60,
            quiet_s: 180,
            pictures_percent: 0,
            picture_bytes: [20_000, 200_000],
        }
    }
}

/// Something that goes wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When, virtual seconds.
    pub at_s: u64,
    /// What.
    pub kind: FaultKind,
    /// To how many in a hundred of the nodes that are no anchors.
    pub percent: Option<u32>,
    /// To how many of them.
    pub count: Option<usize>,
    /// To exactly these, anchors allowed.
    pub nodes: Option<Vec<usize>>,
    /// How long it lasts, virtual seconds; a crashed or gone node comes back after it, without it never.
    pub for_s: Option<u64>,
    /// The affected are hit at random times within this.
    #[serde(default)]
    pub within_s: u64,
    /// How much: for `lossy` losses in a million, for `slow-disk` a factor, for `clock-jump` ms (may be negative), for `budget` bytes.
    #[serde(default)]
    pub by: i64,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The machine loses power: what is not on the disk is gone, nobody is told.
    Crash,
    /// The program stops as it should.
    Leave,
    /// New nodes join (`count`).
    Join,
    /// The affected reach only each other.
    Partition,
    /// The affected have no network at all.
    Offline,
    /// Everybody loses this many datagrams (`by`, in a million).
    Lossy,
    /// The disk takes no more writes: no space.
    DiskFull,
    /// Writing fails.
    DiskFailed,
    /// The disk is slower by this factor (`by`).
    SlowDisk,
    /// The wall clock jumps (`by`, ms).
    ClockJump,
    /// The machine gets another address.
    AddressChange,
    /// The node answers searches falsely: it names others that do, and nobody else.
    Lie,
    /// The person gives the node another budget (`by`, bytes).
    Budget,
}

/// What must hold at the end besides the invariants.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// At least so many in a hundred of the running nodes say they are connected or growing.
    pub connected_percent: u32,
    /// At least so many in a thousand of (follower, post) pairs have arrived, both running.
    pub delivered_per_mille: u32,
    /// At least so many in a thousand of the same have arrived at some time, though they may have gone since for lack of room.
    pub came_per_mille: u32,
    /// Whether a fault may make a call of a person fail.
    pub calls_may_fail: bool,
    /// At most so many handshakes for a hundred pairs of nodes; 0 for any number.
    pub handshakes_per_100_pairs_max: u64,
    /// At most so many in a million of what the maps should hold is missing, wrong or too much; `None` for any number.
    pub map_wrong_per_million_max: Option<u64>,
    /// At least so many in a thousand of (follower, picture) pairs have arrived whole, both running.
    pub pictures_per_mille: u32,
    /// Content arrives at nodes that keep its author at most so many times in a thousand of what they need; `None` for any number.
    pub delivery_per_mille_max: Option<u32>,
}

/// Why a scenario cannot be run; [`std::fmt::Display`] is a sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Not TOML of this shape; the text says where.
    #[error("this is not a scenario: {0}")]
    Shape(#[from] toml::de::Error),
    /// The shape is right, the values are not.
    #[error("this scenario cannot be run: {0}")]
    Value(String),
}

impl Scenario {
    /// Reads and checks one.
    ///
    /// # Errors
    /// What does not fit, with its line or its field.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The same with another number of nodes; faults that named single nodes beyond it lose those.
    pub fn resize(&mut self, nodes: usize) {
        self.nodes = nodes;
        self.anchors = self.anchors.min(nodes);
        for fault in &mut self.faults {
            if let Some(named) = &mut fault.nodes {
                named.retain(|node| *node < nodes);
            }
        }
    }

    /// How far apart frames begin, µs.
    #[must_use]
    pub const fn frame_us(&self) -> u64 {
        self.frame_ms * 1_000
    }
}
