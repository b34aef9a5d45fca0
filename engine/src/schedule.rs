//! The order of a frame: `Ingest → Judge → Plan → Emit` (ARCHITECTURE, "A frame").
//!
//! Every system has its turn: phases in order, within a phase as they were added. So there is nothing for a scheduler to work out:
//! bevy's would cost each node half a megabyte for a graph that is a line, and each frame as much again as its systems. Whoever only
//! takes what came in says so ([`Occasions`]), and has its turn in frames in which it came.

use crate::wire::{Code, PacketSpec};
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

/// Kinds of input, as a set: those of a frame, or those that a system is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occasions(u128);

impl Occasions {
    /// Codes of packets are below this ([PROTOCOL section 5](crate::wire)).
    const CODES: u32 = 0x60;
    /// A packet of any type.
    pub const PACKET: Self = Self((1 << Self::CODES) - 1);
    /// A connection or a dial began or ended, or something on one was refused.
    pub const LINK: Self = Self(1 << Self::CODES);
    /// A request ended.
    pub const RESPONSE: Self = Self(1 << (Self::CODES + 1));
    /// A read ended.
    pub const READ: Self = Self(1 << (Self::CODES + 2));
    /// A batch ended.
    pub const BATCH: Self = Self(1 << (Self::CODES + 3));
    /// A person wants something.
    pub const CALL: Self = Self(1 << (Self::CODES + 4));

    /// A packet of this type.
    #[must_use]
    pub const fn packet(spec: &PacketSpec) -> Self {
        Self::code(spec.code)
    }

    /// A packet with this code.
    pub(crate) const fn code(code: Code) -> Self {
        assert!((code as u32) < Self::CODES, "codes are below 0x60");
        Self(1 << code)
    }

    /// Adds these.
    pub fn add(&mut self, more: Self) {
        self.0 |= more.0;
    }

    /// Whether one is in both.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A system that is ready to run.
struct Turn {
    phase: Phase,
    /// Only in frames with one of these; `None`: in every frame.
    on: Option<Occasions>,
    system: BoxedSystem,
    /// It hands in commands, which the next one shall see.
    defers: bool,
}

/// The systems of a node, in the order in which every frame runs them.
#[derive(Default)]
pub struct Frame(Vec<Turn>);

impl Frame {
    /// Adds a system to a phase, after everything that was added to it before; only in frames with one of the occasions, where any are
    /// named.
    pub fn add<M>(
        &mut self,
        world: &mut World,
        phase: Phase,
        on: Option<Occasions>,
        system: impl IntoSystem<(), (), M>,
    ) {
        let mut system: BoxedSystem = Box::new(IntoSystem::into_system(system));
        system.initialize(world);
        let turn = Turn {
            phase,
            on,
            defers: system.has_deferred(),
            system,
        };
        let at = self.0.partition_point(|other| other.phase <= phase);
        self.0.insert(at, turn);
    }

    /// Runs all systems once that have a reason to.
    ///
    /// # Panics
    /// On a bug in the rules: a system whose resources nobody inserted.
    pub fn run(&mut self, world: &mut World, occasions: Occasions) {
        if let Some(check) = world.check_change_ticks() {
            let systems = self.0.iter_mut();
            systems.for_each(|turn| turn.system.check_change_tick(check));
        }
        let due = |turn: &&mut Turn| turn.on.is_none_or(|on| on.meets(occasions));
        for Turn { system, defers, .. } in self.0.iter_mut().filter(due) {
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
        frame.add(&mut world, Phase::Emit, None, says("emit"));
        frame.add(&mut world, Phase::Judge, None, says("judge 1"));
        frame.add(&mut world, Phase::Ingest, None, says("ingest"));
        frame.add(&mut world, Phase::Judge, None, says("judge 2"));
        frame.run(&mut world, Occasions::default());
        let seen = &world.resource::<Seen>().0;
        assert_eq!(*seen, ["ingest", "judge 1", "judge 2", "emit"]);
    }

    #[test]
    fn who_is_there_for_an_occasion_has_no_turn_without_it() {
        let (mut world, mut frame) = (World::new(), Frame::default());
        world.insert_resource(Seen::default());
        let mut on = |occasion, word| {
            frame.add(&mut world, Phase::Judge, Some(occasion), says(word));
        };
        on(Occasions::code(0x5f), "code 5f");
        on(Occasions::PACKET, "packet");
        on(Occasions::LINK, "link");
        on(Occasions::CALL, "call");
        let mut occasions = Occasions::code(0);
        frame.run(&mut world, occasions);
        occasions.add(Occasions::CALL);
        frame.run(&mut world, occasions);
        frame.run(&mut world, Occasions::default());
        assert_eq!(world.resource::<Seen>().0, ["packet", "packet", "call"]);
    }

    #[test]
    fn what_a_system_hands_in_is_there_for_the_next() {
        let (mut world, mut frame) = (World::new(), Frame::default());
        let spawns = |mut commands: Commands| _ = commands.spawn_empty();
        frame.add(&mut world, Phase::Plan, None, |mut commands: Commands| {
            commands.insert_resource(Seen(vec!["handed in"]));
        });
        frame.add(&mut world, Phase::Plan, None, says("next"));
        frame.add(&mut world, Phase::Plan, None, spawns);
        frame.run(&mut world, Occasions::default());
        assert_eq!(world.resource::<Seen>().0, ["handed in", "next"]);
    }
}
