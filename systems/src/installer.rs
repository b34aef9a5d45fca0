//! How a feature enters the frame: in the order of installation.

use bevy_ecs::prelude::*;
use distsoc_engine::io::Restored;
use distsoc_engine::schedule::{Due, Frame, Occasions, Phase, Turns};

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

    /// Adds a system to a phase, after everything that was added to it before. It runs in every frame: for those that have a reason in
    /// nearly every one, and those whose condition would look at as much as they do.
    pub fn add<M>(&mut self, phase: Phase, system: impl IntoSystem<(), (), M>) {
        self.add_in(Turns::All, phase, system);
    }

    /// Adds a system that only takes what came in: without it, it has no turn.
    pub fn on<M>(
        &mut self,
        occasions: Occasions,
        phase: Phase,
        system: impl IntoSystem<(), (), M>,
    ) {
        self.add_in(Turns::On(occasions), phase, system);
    }

    /// Adds a system that waits for a time, or for what others leave: it has its turn where the condition says that it is due.
    pub fn due<M>(&mut self, due: Due, phase: Phase, system: impl IntoSystem<(), (), M>) {
        self.add_in(Turns::Due(due), phase, system);
    }

    /// Adds a system that takes what came in, and has other reasons.
    pub fn on_or_due<M>(
        &mut self,
        occasions: Occasions,
        due: Due,
        phase: Phase,
        system: impl IntoSystem<(), (), M>,
    ) {
        self.add_in(Turns::OnOrDue(occasions, due), phase, system);
    }

    fn add_in<M>(&mut self, turns: Turns, phase: Phase, system: impl IntoSystem<(), (), M>) {
        self.frame.add(self.world, phase, turns, system);
    }
}
