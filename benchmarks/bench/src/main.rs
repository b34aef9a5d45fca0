//! Benchmarks of distsoc. Each prints medians of interleaved rounds; what is compared runs in the same process at the
//! same time, since machines are shared and noisy.

mod blob_fetch;
mod codec;
mod delivery;
mod derive;
mod evict;
mod first_sync;
mod folder;
mod frame;
mod gossip;
mod keep;
mod live;
mod map;
mod measure;
mod raw;
mod stored;

use clap::Parser;
use std::io::Write;

/// Measures a distsoc node.
#[derive(Debug, Parser)]
#[command(name = "distsoc-bench", version)]
struct Args {
    /// Only benchmarks whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Fewer rounds, about half a minute in all
    #[arg(long)]
    quick: bool,
    /// Print JSON lines and nothing else
    #[arg(long)]
    json: bool,
}

type Benchmark = (&'static str, fn(bool) -> Vec<measure::Figure>);

const BENCHMARKS: &[Benchmark] = &[
    ("frame", frame::idle_frames),
    ("codec", codec::packets),
    ("map-lookup", map::lookups),
    ("map-memory", map::memory),
    ("map-derive", derive::derivation),
    ("map-journal", stored::journals),
    ("cold-start", stored::cold_start),
    ("map-churn", gossip::churn),
    ("keep-score", keep::scoring),
    ("keep-choose", keep::choosing),
    ("evict", evict::evicting),
    ("first-sync", first_sync::posts),
    ("blob-fetch", blob_fetch::large),
    ("delivery", delivery::factor),
    ("connection-memory", live::connection_memory),
    ("push-latency", live::push_latency),
];

fn main() {
    let args = Args::parse();
    let mut out = std::io::stdout().lock();
    // A closed pipe ends the printing, not the program with a panic.
    let mut say = |line: String| drop(writeln!(out, "{line}"));
    for (name, run) in BENCHMARKS {
        if args
            .only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        if !args.json {
            say(format!("{name} …"));
        }
        for figure in run(args.quick) {
            say(if args.json {
                figure.to_json(name)
            } else {
                figure.to_line()
            });
        }
    }
}
