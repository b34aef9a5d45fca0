//! The life of a devnet in the terminal: a picture that is redrawn in place, or plain lines where nobody looks.

use super::Member;
use crate::output::{self, safe};
use distsoc_engine::domain::Content;
use distsoc_engine::io::Notice;
use distsoc_persistence::FeedEntry;
use std::collections::VecDeque;
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

/// Posts shown at once.
const POSTS_SHOWN: usize = 10;
/// Cells of a bar.
const BAR_CELLS: usize = 32;

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Redrawn in place.
    Picture,
    /// A line for each thing.
    Lines,
    /// JSON lines of the contract only.
    Json,
}

/// What is shown.
pub(super) struct Display {
    mode: Mode,
    started: Instant,
    nodes: usize,
    up: usize,
    connected: usize,
    wanted: usize,
    is_ready: bool,
    posts: u64,
    deliveries: u64,
    newest: VecDeque<String>,
    drawn_lines: usize,
    told_tenth: usize,
}

fn bar(done: usize, of: usize) -> String {
    let filled = (done * BAR_CELLS).checked_div(of).unwrap_or(0).min(BAR_CELLS);
    format!("{}{} {done}/{of}", "█".repeat(filled), "░".repeat(BAR_CELLS - filled))
}

impl Display {
    pub(super) fn new(nodes: usize, as_json: bool) -> Self {
        let mode = match (as_json, output::is_terminal()) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Picture,
            (false, false) => Mode::Lines,
        };
        Self {
            mode,
            started: Instant::now(),
            nodes,
            up: 0,
            connected: 0,
            wanted: 0,
            is_ready: false,
            posts: 0,
            deliveries: 0,
            newest: VecDeque::new(),
            drawn_lines: 0,
            told_tenth: 0,
        }
    }

    pub(super) fn node_up(&mut self, member: &Member, data: &Path) {
        self.up += 1;
        match self.mode {
            Mode::Json => output::json(&member.to_json(data)),
            Mode::Lines => {
                let (name, kind, id) = (&member.name, member.host.kind().name(), member.host.node_id().short());
                output::line(&format!("node {} up: {name} ({kind}) {id} at {}", member.number, member.host.listen()));
            }
            Mode::Picture => self.draw(),
        }
    }

    pub(super) fn connections(&mut self, connected: usize, wanted: usize) {
        let changed = (connected, wanted) != (self.connected, self.wanted);
        (self.connected, self.wanted) = (connected, wanted);
        let tenth = (connected * 10).checked_div(wanted).unwrap_or(10);
        match self.mode {
            Mode::Lines if tenth > self.told_tenth => {
                self.told_tenth = tenth;
                output::line(&format!("connections: {connected} of {wanted}"));
            }
            Mode::Picture if changed => self.draw(),
            _ => {}
        }
    }

    pub(super) fn ready(&mut self, members: &[Member]) {
        self.is_ready = true;
        match self.mode {
            Mode::Lines => output::line(&format!(
                "ready after {:.1} s: {} nodes, all connected",
                self.started.elapsed().as_secs_f64(),
                members.len()
            )),
            Mode::Picture => self.draw(),
            Mode::Json => {}
        }
    }

    pub(super) fn notice(&mut self, members: &[Member], number: usize, notice: &Notice) {
        if let Notice::Post { author, .. } = notice {
            match members[number - 1].host.node_id() == *author {
                true => self.posts += 1,
                false => self.deliveries += 1,
            }
            if self.mode == Mode::Picture {
                self.draw();
            }
        }
    }

    pub(super) fn post(&mut self, name: &str, entry: &FeedEntry) {
        let Content::Public(content) = &entry.body.content else { return };
        let line = format!("{name}: {}", safe(content.text.as_str()).replace('\n', " "));
        match self.mode {
            Mode::Lines => output::line(&line),
            Mode::Picture => {
                self.newest.push_front(line);
                self.newest.truncate(POSTS_SHOWN);
                self.draw();
            }
            Mode::Json => {}
        }
    }

    pub(super) fn stopping(&mut self) {
        match self.mode {
            Mode::Json => {}
            Mode::Lines | Mode::Picture => output::line("Stopping…"),
        }
    }

    fn draw(&mut self) {
        let mut picture = String::new();
        let elapsed = self.started.elapsed().as_secs();
        let state = if self.is_ready { "alive" } else { "coming up" };
        // A string takes every line.
        let _ = writeln!(picture, "distsoc devnet · {state} · {elapsed} s");
        let _ = writeln!(picture, "  nodes        {}", bar(self.up, self.nodes));
        let _ = writeln!(picture, "  connections  {}", bar(self.connected, self.wanted));
        let _ = writeln!(picture, "  posts        {} written, {} arrived at followers", self.posts, self.deliveries);
        for line in &self.newest {
            let _ = writeln!(picture, "  {}", line.chars().take(96).collect::<String>());
        }
        let _ = writeln!(picture, "Ctrl-C stops all of them.");
        let up = if self.drawn_lines > 0 { format!("\x1b[{}A", self.drawn_lines) } else { String::new() };
        self.drawn_lines = picture.lines().count();
        let cleared: String = picture.lines().map(|line| format!("\x1b[2K{line}\n")).collect();
        output::text(&format!("{up}{cleared}"));
    }
}
