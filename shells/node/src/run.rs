//! `distsoc run`: one node until Ctrl-C.

use crate::cli::RunArgs;
use crate::exit::Exit;
use crate::{anchors, output};
use distsoc_api::{Api, Server};
use distsoc_engine::domain::ConnectString;
use distsoc_engine::io::{Notice, Standing};
use distsoc_host::{Host, HostConfig};
use distsoc_persistence::secret;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::PathBuf;

/// Whether whoever started this program wants it to outlive its terminal, as nohup does: then a hang-up is ignored already.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 << (SIGHUP - 1) != 0)
}

/// Hears Ctrl-C, SIGTERM, and the end of the terminal; a second one ends the process at once.
pub(crate) fn interrupted() -> Result<async_channel::Receiver<()>, Exit> {
    let failed = |error| Exit::failed(format!("cannot listen for Ctrl-C: {error}"));
    let mut heard = vec![SIGINT, SIGTERM];
    heard.extend((!ignores_hang_up()).then_some(SIGHUP));
    let mut signals = Signals::new(heard).map_err(failed)?;
    let (send, receive) = async_channel::bounded(1);
    let listen = move || {
        for _ in signals.forever() {
            if send.try_send(()).is_err() {
                std::process::exit(1);
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(listen).map_err(failed)?;
    Ok(receive)
}

/// Whether a connect string leads nowhere from far away.
fn is_local(place: Option<&str>) -> bool {
    let place = place.and_then(|place| place.parse::<ConnectString>().ok());
    let address = place.and_then(|place| place.address());
    address.is_some_and(|address| address.scope().is_local())
}

/// Says how well the node is connected whenever that changes, for ever.
async fn tell_standing(notices: Option<async_channel::Receiver<Notice>>) -> Option<String> {
    if let Some(notices) = notices {
        let mut told = None;
        while let Ok(notice) = notices.recv().await {
            let Notice::Standing(standing) = notice else {
                continue;
            };
            let is_offline = match standing {
                Standing::Connecting => continue,
                Standing::Offline => true,
                Standing::Growing | Standing::Connected => false,
            };
            if told.replace(is_offline) != Some(is_offline) {
                output::line(match is_offline {
                    true => {
                        "Nobody answers yet, neither the anchors nor peers of before; still trying. 'distsoc connect' takes an address by hand."
                    }
                    false => "Connected.",
                });
            }
        }
    }
    std::future::pending().await
}

pub(crate) async fn run(dir: PathBuf, args: RunArgs, as_json: bool) -> Result<(), Exit> {
    let anchors = anchors::read(args.anchors.as_deref(), &dir)?;
    let config = HostConfig {
        dir: dir.clone(),
        kind: args.profile,
        listen: args.listen,
        anchors,
        name: args.name,
        identity_seed: None,
    };
    let has_lost_database =
        !secret::has_database(&dir) && secret::load(&dir).is_ok_and(|key| key.is_some());
    let host = Host::start(config).map_err(Exit::failed)?;
    if has_lost_database {
        output::error(&format!(
            "distsoc: {} has a key and no database: this node begins without the posts and follows of before",
            dir.display()
        ));
    }
    // Until here, a signal ends the program as it does any other.
    let interrupt = interrupted()?;
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
        output::line(&format!(
            "Your node runs ({}). Give this to people who want to find you:",
            args.profile.name()
        ));
        output::line(&format!(
            "\n  {}\n",
            id["connect"].as_str().unwrap_or_default()
        ));
        if host.listen().ip().is_loopback() || is_local(id["connect"].as_str()) {
            output::line("Only this machine or its own network reaches that address as yet.\n");
        }
        output::line(&format!("Data in {}. Ctrl-C stops it.", dir.display()));
    }
    let notices = host.subscribe().filter(|_| !as_json);
    let crashed = futures_lite::future::or(
        async {
            let _ = interrupt.recv().await;
            None
        },
        async {
            Some(
                host.ended()
                    .await
                    .unwrap_or_else(|| "it ended by itself".into()),
            )
        },
    );
    let crashed = futures_lite::future::or(crashed, tell_standing(notices)).await;
    server.close();
    match crashed {
        Some(reason) => Err(Exit::failed(format!(
            "the node has crashed, which is a bug: {reason}"
        ))),
        None => {
            if !as_json {
                output::line("Stopping…");
            }
            host.stop().await;
            Ok(())
        }
    }
}
