//! The one seam over async-std (archived upstream) and the one private tokio handle for s2n-quic's own I/O.
//!
//! Everything asynchronous in net, host and api goes through here, so that another executor is a change of this file.

use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use async_std::net::{TcpListener, TcpStream};
pub use async_std::task::JoinHandle;

/// Runs a task.
pub fn spawn<F, T>(future: F) -> JoinHandle<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    async_std::task::spawn(future)
}

/// Runs something that blocks on a thread of its own pool.
pub fn spawn_blocking<F, T>(work: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    async_std::task::spawn_blocking(work)
}

/// Waits.
pub async fn sleep(duration: Duration) {
    async_std::task::sleep(duration).await;
}

/// The future's result, or `None` once the time is over.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Option<F::Output> {
    async_std::future::timeout(duration, future).await.ok()
}

/// Runs a future to its end on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    async_std::task::block_on(future)
}

/// Milliseconds since the first call in this process; never goes back.
#[must_use]
pub fn mono_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// s2n-quic's own I/O tasks run here, on one thread for the whole process; nothing else does.
#[must_use]
pub fn quic_io() -> tokio::runtime::Handle {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("quic-io")
                .enable_all()
                .build()
                .expect("a process can start one thread")
        })
        .handle()
        .clone()
}
