//! Rounds, medians, and the memory of this process.

use std::time::Instant;

/// One measured figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) unit: &'static str,
    /// What FIGURES asks for, where it does.
    pub(crate) goal: Option<&'static str>,
}

impl Figure {
    /// Median, 10th and 90th percentile of samples.
    pub(crate) fn of(name: impl Into<String>, unit: &'static str, mut samples: Vec<f64>) -> Self {
        assert!(!samples.is_empty(), "a figure needs samples");
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize];
        Self {
            name: name.into(),
            median: at(0.5),
            low: at(0.1),
            high: at(0.9),
            unit,
            goal: None,
        }
    }

    pub(crate) fn goal(mut self, goal: &'static str) -> Self {
        self.goal = Some(goal);
        self
    }

    pub(crate) fn to_line(&self) -> String {
        let goal = self
            .goal
            .map(|goal| format!("   goal {goal}"))
            .unwrap_or_default();
        let Self {
            name,
            median,
            low,
            high,
            unit,
            ..
        } = self;
        format!("  {name:<58} {median:>10.2} {unit:<6} [{low:.2} .. {high:.2}]{goal}")
    }

    pub(crate) fn to_json(&self, benchmark: &str) -> String {
        serde_json::json!({
            "benchmark": benchmark, "name": self.name, "median": self.median, "p10": self.low, "p90": self.high,
            "unit": self.unit, "goal": self.goal,
        })
        .to_string()
    }
}

/// Runs every case once a round, in turn, and gives the nanoseconds per item of each round.
pub(crate) fn interleaved(
    rounds: usize,
    items: usize,
    cases: &mut [&mut dyn FnMut()],
) -> Vec<Vec<f64>> {
    let mut samples = vec![Vec::with_capacity(rounds); cases.len()];
    for round in 0..=rounds {
        for (case, samples) in cases.iter_mut().zip(&mut samples) {
            let start = Instant::now();
            case();
            // The first round warms up.
            if round > 0 {
                samples.push(start.elapsed().as_nanos() as f64 / items as f64);
            }
        }
    }
    samples
}

/// Anonymous memory of this process, bytes.
pub(crate) fn anonymous_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap_or("0 kB");
    line.trim()
        .trim_end_matches(" kB")
        .parse::<f64>()
        .unwrap_or_default()
        * 1024.0
}
