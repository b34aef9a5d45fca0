//! Frames: nodes that are due at the same instant run side by side, on all cores; what they bring about is carried out one node
//! after the other, in the order in which their frames were planned. So a run does not depend on how many cores there are.

use crate::cargo::Cargo;
use crate::delivery::Arrived;
use crate::host::{Host, Power};
use crate::queue::HostNumber;
use crate::simulation::Simulation;
use crate::slots::Key;
use distsoc_engine::clock::Now;
use distsoc_engine::io::{Input, LinkId, Outputs, RequestFailure, RequestId, StreamToken};
use distsoc_engine::limits;
use distsoc_engine::node::Node;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::{Expected, Packet, PacketBytes, admit};
use rayon::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Frames in a row that a node may ask for without having anything to do.
const IDLE_FRAMES_MAX: u32 = 10_000;
/// Fewer frames than this are not worth waking other cores for.
const SIDE_BY_SIDE_MIN: usize = 3;

/// What waits for a node's next frame.
#[derive(Debug)]
pub enum Waiting {
    /// An input as it is.
    Ready(Box<Input>),
    /// A notification that passed preview, size and rate, and whose it is.
    Notification(LinkId, PacketBytes, HostNumber),
    /// A request that passed preview, size and rate, and its exchange.
    Request(LinkId, PacketBytes, Key),
    /// An answer, the code that was expected, and whose it is.
    Response(RequestId, PacketBytes, u8, Option<HostNumber>),
}

impl Waiting {
    /// Who sent it, where that is known and matters.
    fn sender(&self) -> Option<HostNumber> {
        match self {
            Self::Notification(_, _, sender) => Some(*sender),
            Self::Response(_, _, _, sender) => *sender,
            Self::Ready(_) | Self::Request(..) => None,
        }
    }

    /// What it weighs if nobody can read it.
    fn unread(&self) -> Arrived {
        match self {
            Self::Notification(_, bytes, _) | Self::Response(_, bytes, ..) => {
                Arrived::unread(bytes)
            }
            Self::Ready(_) | Self::Request(..) => Arrived::default(),
        }
    }
}

/// The input that tells of a stream that was refused.
#[must_use]
pub fn refused(link: LinkId, bytes: &[u8], refusal: Refusal) -> Input {
    Input::Refused {
        link,
        code: bytes.first().copied().unwrap_or_default(),
        refusal,
        count: 1,
    }
}

/// A node taken out of the swarm for one frame.
struct Job {
    number: HostNumber,
    node: Box<Node>,
    now: Now,
    waiting: Vec<Waiting>,
    done: Done,
}

/// What came of a frame.
#[derive(Default)]
struct Done {
    /// Or the words of a panic.
    outputs: Option<Result<Outputs, String>>,
    had_inputs: bool,
    concerns_links: bool,
    /// Streams that admission refused.
    refused: u64,
    /// The requests among them.
    dropped: Vec<(LinkId, u8, Key)>,
    /// Content, and from whom.
    content: Vec<(Option<HostNumber>, Arrived)>,
}

impl Done {
    /// Admission, exactly as in the real transport.
    fn admit(&mut self, waiting: Waiting) -> Input {
        match waiting {
            Waiting::Ready(input) => *input,
            Waiting::Notification(link, bytes, _) => match admit(&bytes, Expected::Notification) {
                Ok(packet) => Input::Packet {
                    link,
                    stream: None,
                    packet,
                },
                Err(refusal) => {
                    self.refused += 1;
                    refused(link, &bytes, refusal)
                }
            },
            Waiting::Request(link, bytes, exchange) => match admit(&bytes, Expected::Request) {
                Ok(packet) => Input::Packet {
                    link,
                    stream: Some(StreamToken(exchange.to_u64())),
                    packet,
                },
                Err(refusal) => {
                    self.refused += 1;
                    self.dropped.push((link, bytes[0], exchange));
                    refused(link, &bytes, refusal)
                }
            },
            Waiting::Response(request, bytes, answer, _) => Input::Response {
                request,
                result: admit(&bytes, Expected::Response(answer)).map_err(RequestFailure::Refused),
            },
        }
    }
}

impl Job {
    fn run(&mut self) {
        let mut done = Done::default();
        let waiting = std::mem::take(&mut self.waiting);
        let inputs: Vec<Input> = waiting
            .into_iter()
            .map(|one| {
                let sender = one.sender();
                let unread = one.unread();
                let input = done.admit(one);
                let arrived = match &input {
                    Input::Refused { .. }
                    | Input::Response {
                        result: Err(RequestFailure::Refused(_)),
                        ..
                    } => unread,
                    _ => Arrived::of(&input, &self.node),
                };
                if arrived.bytes > 0 {
                    done.content.push((sender, arrived));
                }
                input
            })
            .collect();
        done.had_inputs = !inputs.is_empty();
        done.concerns_links = inputs.iter().any(concerns_links);
        let frame = AssertUnwindSafe(|| self.node.tick(self.now, inputs));
        done.outputs = Some(catch_unwind(frame).map_err(|payload| {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).into()));
            text.unwrap_or_else(|| "without a message".into())
        }));
        self.done = done;
    }
}

fn concerns_links(input: &Input) -> bool {
    match input {
        Input::LinkUp { .. } | Input::LinkDown { .. } => true,
        Input::Packet { packet, .. } => matches!(**packet, Packet::Hello(_) | Packet::Goodbye(_)),
        _ => false,
    }
}

impl Host {
    /// Takes the node out for a frame that was planned for now; one that was planned earlier may have made it void.
    fn take_due(&mut self, number: HostNumber, now_us: u64) -> Option<Job> {
        match self.frame_at_us == Some(now_us) {
            true => self.take_out(number, now_us),
            false => None,
        }
    }

    /// Takes the node out for a frame.
    fn take_out(&mut self, number: HostNumber, now_us: u64) -> Option<Job> {
        self.frame_at_us = None;
        self.last_frame_us = Some(now_us);
        let now = self.now(now_us);
        let node = match std::mem::take(&mut self.power) {
            Power::On(node) => node,
            other => {
                self.power = other;
                return None;
            }
        };
        let taken = self.inbox.len().min(limits::INPUTS_PER_FRAME_MAX);
        let waiting = self.inbox.drain(..taken).collect();
        Some(Job {
            number,
            node,
            now,
            waiting,
            done: Done::default(),
        })
    }
}

impl Simulation {
    /// Runs the frames that are due now, beginning with this node's.
    pub fn frames(&mut self, first: HostNumber) {
        let now_us = self.now_us;
        let mut jobs: Vec<Job> = Vec::new();
        jobs.extend(self.hosts[first as usize].take_due(first, now_us));
        while let Some(number) = self.queue.pop_frame(now_us) {
            self.counts.events += 1;
            jobs.extend(self.hosts[number as usize].take_due(number, now_us));
        }
        self.run_frames(jobs);
    }

    /// Runs a frame of this node, due or not.
    pub fn frame_now(&mut self, number: HostNumber) {
        let job = self.hosts[number as usize].take_out(number, self.now_us);
        self.run_frames(Vec::from_iter(job));
    }

    fn run_frames(&mut self, mut jobs: Vec<Job>) {
        match jobs.len() < SIDE_BY_SIDE_MIN {
            true => jobs.iter_mut().for_each(Job::run),
            false => jobs.par_iter_mut().for_each(Job::run),
        }
        let mut done: Vec<(HostNumber, Done)> = Vec::with_capacity(jobs.len());
        for job in jobs {
            self.hosts[job.number as usize].power = Power::On(job.node);
            done.push((job.number, job.done));
        }
        for (number, done) in done {
            self.finish_frame(number, done);
        }
    }

    /// Carries out what a frame brought about.
    fn finish_frame(&mut self, number: HostNumber, done: Done) {
        let host = &mut self.hosts[number as usize];
        let Outputs {
            effects,
            next_wake_ms,
        } = match done.outputs.expect("the frame was run") {
            Ok(outputs) => outputs,
            Err(text) => return self.violate(Some(number), format!("the node panicked: {text}")),
        };
        host.idle_frames = match done.had_inputs || !effects.is_empty() {
            true => 0,
            false => host.idle_frames + 1,
        };
        if host.idle_frames > IDLE_FRAMES_MAX {
            let what = format!("{IDLE_FRAMES_MAX} frames in a row with nothing to do");
            return self.violate(Some(number), what);
        }
        self.counts.frames += 1;
        self.counts.refused += done.refused;
        let frame_us = self.scenario.frame_us();
        let next_us = (self.now_us / frame_us + 1) * frame_us;
        if !self.hosts[number as usize].inbox.is_empty() {
            self.plan_frame(number, next_us);
        }
        if let Some(wake_ms) = next_wake_ms {
            let wake_us = self.hosts[number as usize].at_us(wake_ms);
            let at_us = wake_us.next_multiple_of(frame_us).max(next_us);
            self.plan_frame(number, at_us);
        }
        for (from, arrived) in done.content {
            self.note_content(from, number, arrived);
        }
        for (link, code, exchange) in done.dropped {
            self.finish(link, code);
            self.ship(number, link, Cargo::Response(None, exchange));
        }
        for effect in effects {
            self.perform(number, effect);
        }
        self.note_listed(number);
        self.check_frame(number, done.concerns_links);
    }
}
