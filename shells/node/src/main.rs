//! `distsoc`: a node, the commands that talk to it, and a whole network on one machine.

mod anchors;
mod cli;
mod commands;
mod devnet;
mod exit;
mod ids;
mod output;
mod pictures;
mod place;
mod run;
mod storage;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_usage(&error),
    };
    match distsoc_net::runtime::block_on(commands::carry_out(cli)) {
        Ok(()) => match output::lost() {
            None => ExitCode::SUCCESS,
            Some(error) => exit::Exit::failed(format!("cannot write the output: {error}")).tell(),
        },
        Err(exit) => exit.tell(),
    }
}
