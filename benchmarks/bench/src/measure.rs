//! Rounds, medians, and the memory of this process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// The system's allocator, with a count of the bytes that live.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

#[allow(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; this one only counts"
)]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promises, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promises, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size, Relaxed);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises, passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that are allocated in this process.
pub(crate) fn live_bytes() -> usize {
    LIVE.load(Relaxed)
}

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

/// The same where each case counts its own items, and runs once unmeasured in each of its turns: what the case before left in
/// the caches does not count.
pub(crate) fn interleaved_warm(
    rounds: usize,
    cases: &mut [(usize, &mut dyn FnMut())],
) -> Vec<Vec<f64>> {
    let mut samples = vec![Vec::with_capacity(rounds); cases.len()];
    for _ in 0..rounds {
        for ((items, case), samples) in cases.iter_mut().zip(&mut samples) {
            case();
            let start = Instant::now();
            case();
            samples.push(start.elapsed().as_nanos() as f64 / *items as f64);
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
