//! The loop: inputs in, one tick, effects out.

use crate::host::Subscribers;
use crate::traffic::TrafficDays;
use async_channel::{Receiver, Sender};
use distsoc_engine::clock::Now;
use distsoc_engine::io::{Call, CallError, CallId, Effect, Input, Reply};
use distsoc_engine::limits::INPUTS_PER_FRAME_MAX;
use distsoc_engine::node::Node;
use distsoc_net::{Endpoint, runtime};
use distsoc_persistence::Store;
use futures_lite::FutureExt;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the answer to a call goes.
type Answer = Sender<Result<Reply, CallError>>;

/// What others ask of the loop.
#[allow(
    clippy::large_enum_variant,
    reason = "most are inputs: a box for each would cost more than it saves"
)]
pub(crate) enum Asked {
    /// A result of the disk.
    Input(Input),
    /// A call, and where its answer goes.
    Call(Call, Answer),
    /// End.
    Stop,
}

/// A node and everything it drives.
pub(crate) struct Loop {
    node: Node,
    endpoint: Endpoint,
    store: Store,
    network: Receiver<Input>,
    asked: Receiver<Box<Asked>>,
    subscribers: Arc<Subscribers>,
    days: Arc<Mutex<TrafficDays>>,
    answers: BTreeMap<CallId, Answer>,
    last_call: u64,
    stopping: bool,
}

/// The time, read here and nowhere else.
fn now() -> Now {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        mono_ms: runtime::mono_ms(),
        wall_ms: wall.as_millis() as u64,
    }
}

impl Loop {
    pub(crate) fn new(
        node: Node,
        endpoint: Endpoint,
        store: Store,
        network: Receiver<Input>,
        asked: Receiver<Box<Asked>>,
        subscribers: Arc<Subscribers>,
        days: Arc<Mutex<TrafficDays>>,
    ) -> Self {
        Self {
            node,
            endpoint,
            store,
            network,
            asked,
            subscribers,
            days,
            answers: BTreeMap::new(),
            last_call: 0,
            stopping: false,
        }
    }

    /// Runs until told to stop. A panic ends the node with its reason in `crash`, never silently.
    pub(crate) async fn run_to_the_end(self, crash: Arc<Mutex<Option<String>>>, ended: Sender<()>) {
        let (store, subscribers) = (self.store.clone(), self.subscribers.clone());
        let endpoint = self.endpoint.clone();
        if let Err(panic) = AssertUnwindSafe(self.run()).catch_unwind().await {
            let reason = panic.downcast_ref::<String>().cloned().or_else(|| {
                panic
                    .downcast_ref::<&str>()
                    .map(|reason| (*reason).to_owned())
            });
            let reason = reason.unwrap_or_else(|| "a panic without a message".into());
            *crash.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        }
        endpoint.shutdown().await;
        runtime::spawn_blocking(move || store.close()).await;
        subscribers.close();
        ended.close();
    }

    async fn run(mut self) {
        let mut next_wake_ms: Option<u64> = Some(0);
        while !self.stopping {
            let inputs = self.gather(next_wake_ms).await;
            let now = now();
            let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
            days.turn(now.wall_ms, || self.endpoint.traffic());
            drop(days);
            let outputs = self.node.tick(now, inputs);
            next_wake_ms = outputs.next_wake_ms;
            for effect in outputs.effects {
                self.perform(effect);
            }
        }
    }

    /// Waits for something to come in or for the time to wake, then takes what else is there.
    async fn gather(&mut self, next_wake_ms: Option<u64>) -> Vec<Input> {
        let mut inputs = Vec::new();
        if let Some(first) = self.wait(next_wake_ms).await {
            self.take(first, &mut inputs);
        }
        while inputs.len() < INPUTS_PER_FRAME_MAX {
            if let Ok(asked) = self.asked.try_recv() {
                self.take(asked, &mut inputs);
            } else if let Ok(input) = self.network.try_recv() {
                inputs.push(input);
            } else {
                break;
            }
        }
        inputs
    }

    async fn wait(&self, next_wake_ms: Option<u64>) -> Option<Box<Asked>> {
        if let Ok(asked) = self.asked.try_recv() {
            return Some(asked);
        }
        let asked = async { self.asked.recv().await.ok() };
        let network = async {
            self.network
                .recv()
                .await
                .ok()
                .map(|input| Box::new(Asked::Input(input)))
        };
        let either = asked.or(network);
        match next_wake_ms {
            Some(at_ms) => {
                let pause = Duration::from_millis(at_ms.saturating_sub(runtime::mono_ms()));
                runtime::timeout(pause, either).await.flatten()
            }
            None => either.await,
        }
    }

    fn take(&mut self, asked: Box<Asked>, inputs: &mut Vec<Input>) {
        match *asked {
            Asked::Input(input) => inputs.push(input),
            Asked::Call(what, answer) => {
                self.last_call += 1;
                let call = CallId(self.last_call);
                self.answers.insert(call, answer);
                inputs.push(Input::Call { call, what });
            }
            Asked::Stop => {
                self.stopping = true;
                inputs.push(Input::Stop);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        let Some(effect) = self.endpoint.perform(effect) else {
            return;
        };
        match effect {
            Effect::Persist {
                batch,
                writes,
                durability,
            } => self.store.persist(batch, writes, durability),
            Effect::Read { read, query } => self.store.read(read, query),
            Effect::Budget { bytes } => self.store.set_budget(bytes),
            Effect::Reply { call, result } => {
                if let Some(answer) = self.answers.remove(&call) {
                    // Whoever asked may have gone; the node did what it was asked.
                    let _ = answer.try_send(result);
                }
            }
            Effect::Notify(notice) => self.subscribers.tell(&notice),
            network => unreachable!("the endpoint takes every effect of the network: {network:?}"),
        }
    }
}
