//! Real distsoc nodes in virtual time, over a virtual network and virtual disks.
//!
//! The same [`distsoc_engine::node::Node`] as in production, with the same rules, thousands of them side by side; every byte passes
//! the same admission. What always holds: a run is a function of its scenario and one seed, and two runs of the same
//! give the same hash, on any machine, on any number of cores and in any build profile.

pub mod cargo;
pub mod chance;
pub mod checks;
pub mod delivery;
pub mod dials;
pub mod disk;
pub mod faults;
pub mod file_checks;
pub mod fingerprint;
pub mod frames;
pub mod host;
mod liars;
pub mod map_truth;
pub mod models;
pub mod persons;
pub mod puppet;
pub mod queue;
pub mod report;
pub mod scenario;
pub mod simulation;
pub mod slots;
pub mod streams;
pub mod traffic;
pub mod transport;
