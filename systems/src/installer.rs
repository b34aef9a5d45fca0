//! How a feature enters the frame: in the order of installation.

use bevy_ecs::prelude::*;
use distsoc_engine::io::Restored;
use distsoc_engine::schedule::{Frame, Occasions, Phase};

/// What a feature's `install` works on.
pub struct Installer<'a> {
    /// For its resources and what it restores.
    pub world: &'a mut World,
    /// What the disk held; a feature takes what is its own.
    pub restored: Restored,
    frame: &'a mut Frame,
}

impl<'a> Installer<'a> {
    pub(crate) fn new(world: &'a mut World, frame: &'a mut Frame, restored: Restored) -> Self {
        Self {
            world,
            restored,
            frame,
        }
    }

    /// Adds a system to a phase, after everything that was added to it before.
    pub fn add<M>(&mut self, phase: Phase, system: impl IntoSystem<(), (), M>) {
        self.frame.add(self.world, phase, None, system);
    }

    /// Adds a system that only takes what came in: without it, it has no turn.
    pub fn on<M>(
        &mut self,
        occasions: Occasions,
        phase: Phase,
        system: impl IntoSystem<(), (), M>,
    ) {
        self.frame.add(self.world, phase, Some(occasions), system);
    }
}
