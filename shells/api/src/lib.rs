//! The one API of a distsoc node: [`Api::call`] and [`Api::subscribe`], in process, and the same over loopback HTTP.
//!
//! JSON exists here and nowhere else. Ids are lower-case hex, times ms since the Unix epoch, sizes bytes. A new thing a person can do is
//! one entry of [`methods::METHODS`].

mod blobs;
mod client;
mod connections;
mod doctor;
mod error;
mod http;
mod lookup;
pub mod methods;
mod notice;
mod params;
mod posts;
mod range;
mod shapes;
mod storage;

pub use client::{Absent, Client, Events, Uploaded, Wait};
pub use doctor::{Check, examine};
pub use error::{ApiError, ErrorCode};
pub use http::{ApiFile, Server};

use distsoc_host::Host;
use distsoc_net::runtime;
use serde_json::Value;
use std::time::Duration;

/// How long a method may take. The slowest looks for somebody through the whole network and takes less than half of it, so that
/// past it the node is not slow: it has more to do than it can, or a bug.
pub const CALL_MS_MAX: u64 = 120_000;

/// The answer, or the error that there was none in time.
async fn within<T>(
    ms: u64,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let in_time = runtime::timeout(Duration::from_millis(ms), answer).await;
    in_time.unwrap_or_else(|| {
        let sentence = format!(
            "the node did not answer within {} s: it is stopped, or has too much to do; wait, or end it and start it again",
            ms.div_ceil(1_000)
        );
        Err(ApiError::new(ErrorCode::Failed, sentence))
    })
}

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
    /// [`ApiError`]: a stable code and a sentence for a person; also where there is no answer within [`CALL_MS_MAX`].
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, ApiError> {
        within(CALL_MS_MAX, methods::call(&self.host, method, params)).await
    }

    /// What happens from now on, one JSON object each: `{"event": …}`. Ends when the node does, or when its reader does
    /// not keep up. `None` where too many watch already.
    pub fn subscribe(&self) -> Option<impl futures_lite::Stream<Item = Value> + Send + 'static> {
        self.host.subscribe().map(notice::stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_ever() {
        let answers = within(1_000, async { Ok(5) });
        assert_eq!(runtime::block_on(answers), Ok(5));
        let never = within::<()>(1, std::future::pending());
        let error = runtime::block_on(never).unwrap_err();
        assert_eq!(error.code, ErrorCode::Failed);
        assert!(error.message.contains("did not answer within 1 s"));
    }
}
