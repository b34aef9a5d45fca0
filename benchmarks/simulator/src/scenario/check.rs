//! What a scenario may say.

use super::{DURATION_S_MAX, FRAME_MS_MAX, Fault, FaultKind, NODES_MAX, Scenario, ScenarioError};
use distsoc_engine::limits;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// No time in a scenario is longer, ms: sums of a few of them stay far from the end of numbers.
const SPAN_MS_MAX: u64 = 1_000 * DAY_MS;
/// Bytes of a picture: a simulated machine keeps all of it in memory.
const PICTURE_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Scenario {
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
            (
                "persons.picture_bytes",
                self.persons.picture_bytes.map(|bytes| bytes as u64),
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
            || self.persons.text_bytes[1] > limits::POST_TEXT_BYTES_MAX
        {
            return wrong("persons.text_bytes must lie between 1 and 16384".into());
        }
        if self.persons.picture_bytes[0] == 0
            || self.persons.picture_bytes[1] > PICTURE_BYTES_MAX
            || self.persons.pictures_percent > 100
        {
            return wrong(
                "persons.picture_bytes must lie between 1 and 4194304, pictures_percent goes to 100"
                    .into(),
            );
        }
        if self.popular.authors > self.nodes - self.anchors || self.popular.followers_percent > 100
        {
            return wrong(
                "popular.authors must fit beside the anchors, followers_percent goes to 100".into(),
            );
        }
        let behind_ms_max = limits::WRITE_BEHIND_MS_MAX;
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
        if self.expect.connected_percent > 100
            || self.expect.delivered_per_mille > 1000
            || self.expect.came_per_mille > 1000
            || self.expect.pictures_per_mille > 1000
        {
            return wrong(
                "expect.connected_percent goes to 100, delivered_per_mille, came_per_mille and pictures_per_mille to 1000"
                    .into(),
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
            FaultKind::Budget if fault.by <= 0 => {
                return wrong("budget takes `by`, bytes".into());
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
