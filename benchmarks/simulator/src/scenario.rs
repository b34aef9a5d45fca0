//! A scenario: what a TOML file says about a swarm, its network, its people and what goes wrong. Everything has a default,
//! unknown fields are errors, and [`Scenario::check`] says in one sentence what does not make sense.

use distsoc_engine::profile::{NodeProfile, ProfileKind};
use serde::Deserialize;

/// Nodes of one run, at most: as many as there are distinct /24 networks to give them.
pub const NODES_MAX: usize = 4_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// No time in a scenario is longer, ms: sums of a few of them stay far from the end of numbers.
const SPAN_MS_MAX: u64 = 1_000 * DAY_MS;
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
    /// How much: for `lossy` losses in a million, for `slow-disk` a factor, for `clock-jump` ms (may be negative).
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
}

/// What must hold at the end besides the invariants.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// At least so many in a hundred of the running nodes say they are connected or growing.
    pub connected_percent: u32,
    /// At least so many in a thousand of (follower, post) pairs have arrived, both running.
    pub delivered_per_mille: u32,
    /// Whether a fault may make a call of a person fail.
    pub calls_may_fail: bool,
    /// At most so many handshakes for a hundred pairs of nodes; 0 for any number.
    pub handshakes_per_100_pairs_max: u64,
    /// At most so many in a million of what the maps should hold is missing, wrong or too much; `None` for any number.
    pub map_wrong_per_million_max: Option<u64>,
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

    /// Checks every value.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let wrong = |text: String| Err(ScenarioError::Value(text));
        if self.nodes == 0 || self.nodes > NODES_MAX {
            return wrong(format!(
                "nodes must be between 1 and {NODES_MAX}, not {}",
                self.nodes
            ));
        }
        if self.anchors > self.nodes {
            return wrong(format!(
                "{} anchors do not fit into {} nodes",
                self.anchors, self.nodes
            ));
        }
        if self.duration_s == 0 || self.duration_s > DURATION_S_MAX {
            return wrong(format!(
                "duration_s must be between 1 and {DURATION_S_MAX}, not {}",
                self.duration_s
            ));
        }
        if !(1..=FRAME_MS_MAX).contains(&self.frame_ms) {
            return wrong(format!(
                "frame_ms must be between 1 and {FRAME_MS_MAX}, not {}",
                self.frame_ms
            ));
        }
        if self.seeds.is_empty() {
            return wrong("seeds must name at least one seed".into());
        }
        if self.profiles.desktop == 0 && self.profiles.mobile == 0 {
            return wrong("profiles must give a share to desktop or mobile".into());
        }
        let ranges = [
            ("network.latency_ms", self.network.latency_ms),
            ("disk.read_ms", self.disk.read_ms),
            ("disk.commit_ms", self.disk.commit_ms),
            ("disk.write_behind_ms", self.disk.write_behind_ms),
            (
                "persons.text_bytes",
                self.persons.text_bytes.map(|bytes| bytes as u64),
            ),
        ];
        for (name, [low, high]) in ranges {
            if low > high {
                return wrong(format!(
                    "{name} must be [smaller, larger], not [{low}, {high}]"
                ));
            }
        }
        if self.persons.text_bytes[0] == 0
            || self.persons.text_bytes[1] > distsoc_engine::limits::POST_TEXT_BYTES_MAX
        {
            return wrong("persons.text_bytes must lie between 1 and 16384".into());
        }
        let behind_ms_max = distsoc_engine::limits::WRITE_BEHIND_MS_MAX;
        if self.disk.write_behind_ms[1] > behind_ms_max {
            return wrong(format!("disk.write_behind_ms may not pass {behind_ms_max}"));
        }
        if self.network.nat_percent > 100 || self.network.loss_per_million > 500_000 {
            return wrong(
                "network.nat_percent goes to 100, network.loss_per_million to 500000".into(),
            );
        }
        let spans_ms = [
            ("network.latency_ms", self.network.latency_ms[1]),
            ("network.jitter_ms", self.network.jitter_ms),
            ("clock.skew_ms", self.clock.skew_ms),
            ("disk.read_ms", self.disk.read_ms[1]),
            ("disk.commit_ms", self.disk.commit_ms[1]),
            ("start_within_s", self.start_within_s.saturating_mul(1000)),
            (
                "persons.posts_from_s",
                self.persons.posts_from_s.saturating_mul(1000),
            ),
        ];
        if let Some((name, _)) = spans_ms.into_iter().find(|(_, ms)| *ms > SPAN_MS_MAX) {
            return wrong(format!("{name} may not pass {} days", SPAN_MS_MAX / DAY_MS));
        }
        if self.expect.connected_percent > 100 || self.expect.delivered_per_mille > 1000 {
            return wrong(
                "expect.connected_percent goes to 100, expect.delivered_per_mille to 1000".into(),
            );
        }
        self.faults
            .iter()
            .enumerate()
            .try_for_each(|(number, fault)| self.check_fault(number + 1, fault))
    }

    fn check_fault(&self, number: usize, fault: &Fault) -> Result<(), ScenarioError> {
        let wrong = |text: String| Err(ScenarioError::Value(format!("fault {number}: {text}")));
        if fault.at_s >= self.duration_s {
            return wrong(format!(
                "at_s {} is not before the end at {}",
                fault.at_s, self.duration_s
            ));
        }
        let targets = [
            fault.percent.is_some(),
            fault.count.is_some(),
            fault.nodes.is_some(),
        ];
        let given = targets.iter().filter(|given| **given).count();
        match fault.kind {
            FaultKind::Lossy if given != 0 || !(0..=500_000).contains(&fault.by) => {
                return wrong(
                    "lossy affects everybody and takes `by`, losses in a million up to 500000"
                        .into(),
                );
            }
            FaultKind::Lossy => {}
            FaultKind::Join if fault.count.is_none() || given != 1 => {
                return wrong("join takes `count`, how many new nodes".into());
            }
            FaultKind::Join => {}
            _ if given != 1 => {
                return wrong("name the affected by one of percent, count, nodes".into());
            }
            FaultKind::SlowDisk if !(1..=10_000).contains(&fault.by) => {
                return wrong("slow-disk takes `by`, a factor between 1 and 10000".into());
            }
            FaultKind::ClockJump if fault.by == 0 => {
                return wrong("clock-jump takes `by`, ms".into());
            }
            _ => {}
        }
        if fault.percent.is_some_and(|percent| percent > 100) {
            return wrong("percent goes to 100".into());
        }
        if fault.count.is_some_and(|count| count > NODES_MAX) {
            return wrong(format!("count goes to {NODES_MAX}"));
        }
        let spans_s = [fault.for_s.unwrap_or(0), fault.within_s];
        if spans_s.iter().any(|s| *s > SPAN_MS_MAX / 1000)
            || fault.kind == FaultKind::ClockJump && fault.by.unsigned_abs() > SPAN_MS_MAX
        {
            let days = SPAN_MS_MAX / DAY_MS;
            return wrong(format!(
                "for_s, within_s and a jump may not pass {days} days"
            ));
        }
        match &fault.nodes {
            Some(nodes) if nodes.is_empty() => wrong("nodes names nobody".into()),
            Some(nodes) if nodes.iter().any(|node| *node >= self.nodes) => {
                wrong(format!("nodes are numbered from 0 to {}", self.nodes - 1))
            }
            _ => Ok(()),
        }
    }
}
