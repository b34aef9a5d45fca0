//! The order of a frame: `Ingest → Judge → Plan → Emit` (ARCHITECTURE, "A frame").
//!
//! Every system has its turn: phases in order, within a phase as they were added. So there is nothing for a scheduler to work out:
//! bevy's would cost each node half a megabyte for a graph that is a line, and each frame as much again as its systems.

use bevy_ecs::prelude::*;
use bevy_ecs::system::{BoxedSystem, RunSystemError};

/// The parts of a frame, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// A system that is ready to run.
struct Turn {
    phase: Phase,
    system: BoxedSystem,
    /// It hands in commands, which the next one shall see.
    defers: bool,
}

/// The systems of a node, in the order in which every frame runs them.
#[derive(Default)]
pub struct Frame(Vec<Turn>);

impl Frame {
    /// Adds a system to a phase, after everything that was added to it before.
    pub fn add<M>(&mut self, world: &mut World, phase: Phase, system: impl IntoSystem<(), (), M>) {
        let mut system: BoxedSystem = Box::new(IntoSystem::into_system(system));
        system.initialize(world);
        let turn = Turn {
            phase,
            defers: system.has_deferred(),
            system,
        };
        let at = self.0.partition_point(|other| other.phase <= phase);
        self.0.insert(at, turn);
    }

    /// Runs all systems once.
    ///
    /// # Panics
    /// On a bug in the rules: a system whose resources nobody inserted.
    pub fn run(&mut self, world: &mut World) {
        if let Some(check) = world.check_change_ticks() {
            let systems = self.0.iter_mut();
            systems.for_each(|turn| turn.system.check_change_tick(check));
        }
        for Turn { system, defers, .. } in &mut self.0 {
            match system.run_without_applying_deferred((), world) {
                Ok(()) => {}
                Err(RunSystemError::Skipped(why)) => panic!("{}: {why}", system.name()),
                Err(RunSystemError::Failed(why)) => panic!("{}: {why}", system.name()),
            }
            if *defers {
                system.apply_deferred(world);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Resource, Default)]
    struct Seen(Vec<&'static str>);

    fn says(word: &'static str) -> impl FnMut(ResMut<Seen>) {
        move |mut seen| seen.0.push(word)
    }

    #[test]
    fn phases_in_order_and_within_a_phase_as_they_were_added() {
        let (mut world, mut frame) = (World::new(), Frame::default());
        world.insert_resource(Seen::default());
        frame.add(&mut world, Phase::Emit, says("emit"));
        frame.add(&mut world, Phase::Judge, says("judge 1"));
        frame.add(&mut world, Phase::Ingest, says("ingest"));
        frame.add(&mut world, Phase::Judge, says("judge 2"));
        frame.run(&mut world);
        let seen = &world.resource::<Seen>().0;
        assert_eq!(*seen, ["ingest", "judge 1", "judge 2", "emit"]);
    }

    #[test]
    fn what_a_system_hands_in_is_there_for_the_next() {
        let (mut world, mut frame) = (World::new(), Frame::default());
        let spawns = |mut commands: Commands| _ = commands.spawn_empty();
        frame.add(&mut world, Phase::Plan, |mut commands: Commands| {
            commands.insert_resource(Seen(vec!["handed in"]));
        });
        frame.add(&mut world, Phase::Plan, says("next"));
        frame.add(&mut world, Phase::Plan, spawns);
        frame.run(&mut world);
        assert_eq!(world.resource::<Seen>().0, ["handed in", "next"]);
    }
}
