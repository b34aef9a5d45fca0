//! Runs the real binary and never leaves a process behind.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "shared by several test binaries"
)]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(180);

pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_distsoc"))
}

/// A command to its end.
pub fn distsoc(dir: &Path, args: &[&str]) -> Output {
    binary()
        .arg("--data")
        .arg(dir)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A command that must work, as JSON.
pub fn json(dir: &Path, args: &[&str]) -> Value {
    let output = distsoc(dir, &[&["--json"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// Tries until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within 180 s: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A `run` or `devnet` process; killed by its pid when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        Self::start_by(binary(), dir, args)
    }

    /// Started by a command that ends with the program, such as nohup.
    pub fn start_by(mut command: Command, dir: &Path, args: &[&str]) -> Self {
        let mut child = command
            .arg("--data")
            .arg(dir)
            .arg("--json")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// A node on loopback, ready.
    pub fn node(dir: &Path) -> Self {
        let mut running = Self::start(dir, &["run", "--listen", "127.0.0.1:0"]);
        running.wait_ready();
        running
    }

    /// Every line up to the one that says ready.
    pub fn wait_ready(&mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .expect("ready within 30 s");
            let value: Value = serde_json::from_str(&line).unwrap();
            let is_ready = value["ready"] == true;
            lines.push(value);
            if is_ready {
                return lines;
            }
        }
    }

    /// As the power does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .arg(signal)
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// As Ctrl-C or a service manager does; the exit code.
    pub fn interrupt(mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
