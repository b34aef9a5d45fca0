//! `distsoc run`: one node until Ctrl-C.

use crate::cli::RunArgs;
use crate::exit::Exit;
use crate::{anchors, output};
use distsoc_api::{Api, Server};
use distsoc_host::{Host, HostConfig};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Hears Ctrl-C and SIGTERM; a second one ends the process at once.
pub(crate) fn interrupted() -> Result<async_channel::Receiver<()>, Exit> {
    let (send, receive) = async_channel::bounded(1);
    let handler = move || {
        if send.try_send(()).is_err() {
            std::process::exit(1);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Exit::failed(format!("cannot listen for Ctrl-C: {error}")))?;
    Ok(receive)
}

pub(crate) async fn run(dir: PathBuf, args: RunArgs, as_json: bool) -> Result<(), Exit> {
    let interrupt = interrupted()?;
    let anchors = anchors::read(args.anchors.as_deref(), &dir)?;
    let config = HostConfig {
        dir: dir.clone(),
        kind: args.profile,
        listen: args.listen,
        anchors,
        name: args.name,
        identity_seed: None,
    };
    let host = Host::start(config).map_err(Exit::failed)?;
    let api = Api::new(host.clone());
    let server = match Server::start(api.clone(), args.ui.listen()).await {
        Ok(server) => server,
        Err(error) => {
            host.stop().await;
            return Err(error.into());
        }
    };
    let id = api.call("id", Value::Null).await?;
    if as_json {
        let mut ready = id;
        ready["ready"] = json!(true);
        ready["api"] = json!(server.file().addr.to_string());
        ready["data"] = json!(dir.display().to_string());
        output::json(&ready);
    } else {
        output::line(&format!("Your node runs ({}). Give this to people who want to find you:", args.profile.name()));
        output::line(&format!("\n  {}\n", id["connect"].as_str().unwrap_or_default()));
        output::line(&format!("Data in {}. Ctrl-C stops it.", dir.display()));
    }
    let crashed = futures_lite::future::or(
        async {
            let _ = interrupt.recv().await;
            None
        },
        async { Some(host.ended().await.unwrap_or_else(|| "it ended by itself".into())) },
    );
    let crashed = crashed.await;
    server.close();
    match crashed {
        Some(reason) => Err(Exit::failed(format!("the node has crashed, which is a bug: {reason}"))),
        None => {
            if !as_json {
                output::line("Stopping…");
            }
            host.stop().await;
            Ok(())
        }
    }
}
