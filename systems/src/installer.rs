//! How a feature enters the frame: in the order of installation, so that the order is never ambiguous.

use bevy_ecs::prelude::*;
use bevy_ecs::schedule::IntoScheduleConfigs;
use bevy_ecs::system::ScheduleSystem;
use distsoc_engine::io::Restored;
use distsoc_engine::schedule::Phase;

/// A system's place within its phase.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Turn(Phase, u32);

/// What a feature's `install` works on.
pub struct Installer<'a> {
    /// For its resources and what it restores.
    pub world: &'a mut World,
    /// What the disk held; a feature takes what is its own.
    pub restored: Restored,
    schedule: &'a mut Schedule,
    turns: u32,
}

impl<'a> Installer<'a> {
    pub(crate) fn new(
        world: &'a mut World,
        schedule: &'a mut Schedule,
        restored: Restored,
    ) -> Self {
        Self {
            world,
            restored,
            schedule,
            turns: 0,
        }
    }

    /// Adds a system to a phase, after everything that was added to it before.
    pub fn add<M>(&mut self, phase: Phase, system: impl IntoScheduleConfigs<ScheduleSystem, M>) {
        let turn = Turn(phase, self.turns);
        let earlier = (0..self.turns).map(|number| Turn(phase, number));
        let mut config = system.into_configs().in_set(phase).in_set(turn);
        for before in earlier {
            config = config.after(before);
        }
        self.schedule.add_systems(config);
        self.turns += 1;
    }
}
