//! The one API of a distsoc node: [`Api::call`] and [`Api::subscribe`], in process, and the same over loopback HTTP.
//!
//! JSON exists here and nowhere else. Ids are lower-case hex, times ms since the Unix epoch, sizes bytes. A new thing a person can do is
//! one entry of [`methods::METHODS`].

mod blobs;
mod client;
mod doctor;
mod error;
mod http;
pub mod methods;
mod notice;
mod params;
mod posts;
mod range;
mod shapes;
mod storage;

pub use client::{Absent, Client, Events};
pub use doctor::{Check, examine};
pub use error::{ApiError, ErrorCode};
pub use http::{ApiFile, Server};

use distsoc_host::Host;
use serde_json::Value;

/// A running node behind the API. Clones are the same node.
#[derive(Clone, Debug)]
pub struct Api {
    host: Host,
}

impl Api {
    /// The API of this node.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// The node.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Calls a method of [`methods::METHODS`] with named parameters (an object, or null for none).
    ///
    /// # Errors
    /// [`ApiError`]: a stable code and a sentence for a person.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, ApiError> {
        methods::call(&self.host, method, params).await
    }

    /// What happens from now on, one JSON object each: `{"event": …}`. Ends when the node does, or when its reader does
    /// not keep up. `None` where too many watch already.
    pub fn subscribe(&self) -> Option<impl futures_lite::Stream<Item = Value> + Send + 'static> {
        self.host.subscribe().map(notice::stream)
    }
}
