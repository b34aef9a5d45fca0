//! The command line of the simulator: `run` a scenario, `replay` a failure, a `model` of a large network.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use distsoc_simulator::models::{self, Done};
use distsoc_simulator::report::{Progress, Report, run};
use distsoc_simulator::scenario::Scenario;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

#[derive(Parser)]
#[command(
    name = "distsoc-simulator",
    about = "Real distsoc nodes in virtual time",
    version
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario: all of its seeds, or the one given.
    Run {
        /// A file like benchmarks/scenarios/calm.toml.
        scenario: PathBuf,
        /// This seed instead of the scenario's.
        #[arg(long)]
        seed: Option<u64>,
        /// This many nodes instead of the scenario's.
        #[arg(long)]
        nodes: Option<usize>,
        /// One JSON value for each seed on standard output, nothing else.
        #[arg(long)]
        json: bool,
    },
    /// Run again what failed with this seed.
    Replay {
        /// The seed.
        seed: u64,
        /// The scenario, where it is not the one that failed last with this seed.
        #[arg(long)]
        scenario: Option<PathBuf>,
        /// The number of nodes, likewise.
        #[arg(long)]
        nodes: Option<usize>,
        /// One JSON value on standard output, nothing else.
        #[arg(long)]
        json: bool,
    },
    /// Run a graph model of a network too large for real nodes.
    Model {
        /// reach, lookup, traffic, wide or cascade.
        name: String,
        /// Nodes in the network.
        #[arg(long, default_value_t = 2_000_000_000)]
        nodes: u64,
        /// Samples: searches, and fewer of what takes longer.
        #[arg(long, default_value_t = 100)]
        samples: u32,
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// One JSON value on standard output, nothing else.
        #[arg(long)]
        json: bool,
    },
}

/// What the command line asks for cannot be done: exit code 2.
struct Usage(String);

/// Where failures are noted, so that `replay SEED` finds their scenario.
fn failures_file() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join("simulator-failures.txt")
}

/// Failures remembered at most.
const FAILURES_MAX: usize = 100;

fn load(path: &Path, nodes: Option<usize>) -> Result<Scenario, Usage> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Usage(format!("{} cannot be read: {error}", path.display())))?;
    let mut scenario =
        Scenario::parse(&text).map_err(|error| Usage(format!("{}: {error}", path.display())))?;
    if let Some(nodes) = nodes {
        scenario.resize(nodes);
        scenario
            .check()
            .map_err(|error| Usage(format!("{}: {error}", path.display())))?;
    }
    Ok(scenario)
}

/// Notes a failure: a line of seed, nodes and scenario, the newest last.
fn remember_failure(seed: u64, nodes: Option<usize>, scenario: &Path) -> Result<()> {
    let file = failures_file();
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let mut lines: Vec<&str> = known.lines().collect();
    let nodes = nodes.map_or("-".to_owned(), |nodes| nodes.to_string());
    let line = format!("{seed} {nodes} {}", scenario.display());
    lines.retain(|known| *known != line);
    lines.push(&line);
    let skipped = lines.len().saturating_sub(FAILURES_MAX);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(&file, lines[skipped..].join("\n") + "\n")
        .with_context(|| format!("writing {}", file.display()))
}

fn recall_failure(seed: u64) -> Option<(Option<usize>, PathBuf)> {
    let known = std::fs::read_to_string(failures_file()).ok()?;
    known.lines().rev().find_map(|line| {
        let mut words = line.splitn(3, ' ');
        let noted: u64 = words.next()?.parse().ok()?;
        let nodes = words.next()?.parse().ok();
        let scenario = PathBuf::from(words.next()?);
        (noted == seed).then_some((nodes, scenario))
    })
}

fn watched(scenario: Scenario, seed: u64) -> (Report, Duration) {
    let began = Instant::now();
    let mut shown = began;
    let report = run(scenario, seed, |progress: Progress| {
        if shown.elapsed() >= Duration::from_secs(1) {
            shown = Instant::now();
            let _ = writeln!(
                std::io::stderr(),
                "seed {seed}: {} of {} virtual s, {} nodes up, {:.0} events/s",
                progress.now_us / 1_000_000,
                progress.end_us / 1_000_000,
                progress.running,
                progress.events as f64 / began.elapsed().as_secs_f64()
            );
        }
    });
    (report, began.elapsed())
}

fn repeat_command(path: &Path, seed: u64, nodes: Option<usize>) -> String {
    let nodes = nodes.map_or(String::new(), |nodes| format!(" --nodes {nodes}"));
    format!(
        "cargo run --release -p distsoc-simulator -- run {} --seed {seed}{nodes}",
        path.display()
    )
}

fn run_seeds(
    path: &Path,
    seeds: Option<u64>,
    nodes: Option<usize>,
    json: bool,
) -> Result<bool, Failure> {
    let scenario = load(path, nodes)?;
    let seeds = seeds.map_or(scenario.seeds.clone(), |seed| vec![seed]);
    let mut all_well = true;
    for seed in seeds {
        let (report, took) = watched(scenario.clone(), seed);
        let mut out = std::io::stdout().lock();
        if json {
            let text = serde_json::to_string(&report).context("writing the report")?;
            writeln!(out, "{text}").context("writing the report")?;
        } else {
            let speed = report.virtual_s as f64 / took.as_secs_f64().max(1e-9);
            writeln!(out, "{report}").context("writing the report")?;
            writeln!(
                out,
                "took          {:.2} s, {speed:.0} times faster than real time",
                took.as_secs_f64()
            )
            .context("writing the report")?;
            writeln!(out, "again         {}\n", repeat_command(path, seed, nodes))
                .context("writing the report")?;
        }
        if let Some(violation) = &report.violation {
            all_well = false;
            remember_failure(seed, nodes, path)?;
            let mut err = std::io::stderr();
            let _ = writeln!(err, "FAILED with seed {seed}: {violation}");
            let _ = writeln!(
                err,
                "replay with: cargo run --release -p distsoc-simulator -- replay {seed}"
            );
        }
    }
    Ok(all_well)
}

/// Runs a model, and says how far it is meanwhile.
fn watched_model<T: Send>(model: impl FnOnce(&Done) -> T + Send) -> T {
    let (done, began) = (Done::default(), Instant::now());
    std::thread::scope(|scope| {
        let (ended, end) = mpsc::channel::<()>();
        let model = scope.spawn(|| {
            let result = model(&done);
            drop(ended);
            result
        });
        while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(Duration::from_secs(1)) {
            let took_s = began.elapsed().as_secs();
            let _ = writeln!(std::io::stderr(), "{} samples in {took_s} s", done.count());
        }
        model
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a model and prints its figures.
fn run_model(name: &str, nodes: u64, samples: u32, seed: u64, json: bool) -> Result<(), Failure> {
    if !(400..=1 << 40).contains(&nodes) || samples == 0 {
        let text = "a model has from 400 to 2^40 nodes and at least one sample";
        return Err(Usage(text.to_owned()).into());
    }
    let began = Instant::now();
    let rows = watched_model(|done| models::run(name, nodes, samples, seed, done));
    let Some(rows) = rows else {
        let names = models::names().join(", ");
        return Err(Usage(format!("there is no model {name}: there are {names}")).into());
    };
    let mut out = std::io::stdout().lock();
    if json {
        let text = serde_json::to_string(&rows).context("writing the figures")?;
        writeln!(out, "{text}").context("writing the figures")?;
        return Ok(());
    }
    for row in rows {
        writeln!(out, "{row}").context("writing the figures")?;
    }
    let took_s = began.elapsed().as_secs_f64();
    writeln!(out, "took {took_s:.1} s").context("writing the figures")?;
    Ok(())
}

enum Failure {
    Usage(String),
    Fault(anyhow::Error),
}

impl From<Usage> for Failure {
    fn from(usage: Usage) -> Self {
        Self::Usage(usage.0)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Fault(error)
    }
}

fn carry_out(command: Command) -> Result<bool, Failure> {
    match command {
        Command::Model {
            name,
            nodes,
            samples,
            seed,
            json,
        } => run_model(&name, nodes, samples, seed, json).map(|()| true),
        Command::Run {
            scenario,
            seed,
            nodes,
            json,
        } => run_seeds(&scenario, seed, nodes, json),
        Command::Replay {
            seed,
            scenario,
            nodes,
            json,
        } => {
            let (noted_nodes, path) = match scenario {
                Some(scenario) => (None, scenario),
                None => recall_failure(seed).ok_or_else(|| {
                    Usage(format!(
                        "no failure with seed {seed} is noted here: name its file with --scenario"
                    ))
                })?,
            };
            run_seeds(&path, Some(seed), nodes.or(noted_nodes), json)
        }
    }
}

fn main() -> ExitCode {
    let code = match carry_out(Arguments::parse().command) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(Failure::Usage(text)) => {
            let _ = writeln!(std::io::stderr(), "error: {text}");
            2
        }
        Err(Failure::Fault(error)) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            1
        }
    };
    ExitCode::from(code)
}
