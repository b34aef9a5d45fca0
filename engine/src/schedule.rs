//! The order of a frame: `Ingest → Judge → Plan → Emit` (ARCHITECTURE, "A frame").

use bevy_ecs::prelude::*;
use bevy_ecs::schedule::{LogLevel, ScheduleBuildSettings, ScheduleLabel, SingleThreadedExecutor};

/// The parts of a frame, in order.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// What came in reaches the world: connections, Hellos, results of reads.
    Ingest,
    /// Packets and calls are judged and change the world.
    Judge,
    /// What the node does by itself: dial, pull, evict.
    Plan,
    /// What is to be stored and announced leaves.
    Emit,
}

/// The one schedule.
#[derive(ScheduleLabel, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame;

/// An empty frame: single-threaded, phases in order, ambiguous order an error.
#[must_use]
pub fn frame() -> Schedule {
    let mut schedule = Schedule::new(Frame);
    schedule.set_executor(SingleThreadedExecutor::new());
    schedule.set_build_settings(ScheduleBuildSettings {
        ambiguity_detection: LogLevel::Error,
        ..ScheduleBuildSettings::default()
    });
    schedule.configure_sets((Phase::Ingest, Phase::Judge, Phase::Plan, Phase::Emit).chain());
    schedule
}
