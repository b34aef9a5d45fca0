//! Every command other than `run` and `devnet`: a call to the node that runs on the data folder, shown to a person or as JSON.

use crate::cli::{Cli, Command, ProfileCommand};
use crate::exit::Exit;
use crate::ids::Given;
use crate::output::{self, safe};
use crate::{devnet, ids, pictures, place, run, storage};
use distsoc_api::{Absent, Check, Client, examine};
use distsoc_engine::domain::PostId;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) async fn carry_out(cli: Cli) -> Result<(), Exit> {
    let dir = place::data_dir(cli.data.clone())?;
    match cli.command {
        Command::Run(args) => run::run(dir, args, cli.json).await,
        Command::Devnet(args) => {
            let dir = if cli.data.is_some() {
                dir
            } else {
                dir.join("devnet")
            };
            devnet::run(dir, args, cli.json).await
        }
        Command::Id if Client::open(&dir).await.is_err() => own_id(&dir, cli.json),
        Command::Doctor => examined(&dir, cli.json).await,
        Command::Feed {
            limit, live: true, ..
        } => watch_feed(&dir, limit, cli.json).await,
        Command::Post {
            text,
            reply,
            pictures,
            descriptions,
        } if !pictures.is_empty() || !descriptions.is_empty() => {
            let chosen = pictures::choose(pictures, descriptions)?;
            let client = client(&dir).await?;
            let reply = reply.map(|id| id.to_string());
            let mut params = json!({"text": text, "reply": reply});
            // Before the pictures are sent for nothing.
            ids::complete(&client, &mut params).await?;
            params["pictures"] = pictures::upload(&client, chosen).await?.into();
            let result = client.call("post", params).await?;
            match cli.json {
                true => output::json(&result),
                false => show_post_id(&result),
            }
            Ok(())
        }
        command => ask(&dir, command, cli.json).await,
    }
}

async fn client(dir: &Path) -> Result<Client, Exit> {
    Client::open(dir).await.map_err(|absent| match absent {
        Absent::NotRunning => Exit::no_node(dir),
        Absent::Silent => Exit::failed(SILENT),
    })
}

/// What a person is told of a node that holds its folder and says nothing.
const SILENT: &str = "the node that runs there does not answer: it is stopped, or has too much to do; wait, or end it and start it again";

/// What the node says of itself, or what can be seen without it.
async fn examined(dir: &Path, as_json: bool) -> Result<(), Exit> {
    let Err(absent) = Client::open(dir).await else {
        return ask(dir, Command::Doctor, as_json).await;
    };
    let mut checks = examine(dir);
    checks.extend((absent == Absent::Silent).then(Check::silent));
    show_checks(checks.iter().map(Check::to_json).collect(), as_json)
}

fn own_id(dir: &Path, as_json: bool) -> Result<(), Exit> {
    let secret = distsoc_persistence::secret::load(dir).map_err(Exit::failed)?;
    let secret = secret.ok_or_else(|| Exit::no_node(dir))?;
    let id = json!({"node_id": secret.node_id().to_string(), "connect": null});
    match as_json {
        true => output::json(&id),
        false => output::line(&secret.node_id().to_string()),
    }
    Ok(())
}

/// The method, its parameters, and how its result is shown to a person.
fn method_of(command: Command) -> (&'static str, Value, fn(&Value)) {
    match command {
        Command::Id => ("id", Value::Null, |result| {
            output::line(text(&result["connect"]))
        }),
        Command::Connect { connect_string } => (
            "connect",
            json!({"to": connect_string.to_string()}),
            |result| {
                output::line(&format!("Connected to {}.", text(&result["node_id"])));
            },
        ),
        Command::Status => ("status", Value::Null, show_fields),
        Command::Peers => ("peers", Value::Null, show_peers),
        Command::Map { node_id } => (
            "map",
            json!({"node_id": node_id.map(|id| id.to_string())}),
            show_fields,
        ),
        Command::Find { node_id } => ("find", json!({"node_id": node_id.to_string()}), show_found),
        Command::Explain { id } => ("explain", json!({"id": id.to_string()}), show_reasons),
        Command::Traffic => ("traffic", Value::Null, show_traffic),
        Command::Doctor => ("doctor", Value::Null, |_| {}),
        Command::Post {
            text: words, reply, ..
        } => {
            let params = json!({"text": words, "reply": reply.map(|id| id.to_string())});
            ("post", params, show_post_id)
        }
        Command::Heart { post_id } => ("heart", of_post(post_id), |result| {
            show_change(
                result,
                "Your heart is given: the author and who keeps the post will see it.",
                "You have given your heart to it already.",
            );
        }),
        Command::Unheart { post_id } => ("unheart", of_post(post_id), |result| {
            show_change(
                result,
                "Your heart is taken back.",
                "There was no heart of yours to take back.",
            );
        }),
        Command::Pin { post_id } => ("pin", of_post(post_id), |result| {
            show_change(
                result,
                "Pinned: it is kept before all that is not.",
                "It is pinned already.",
            );
        }),
        Command::Unpin { post_id } => ("unpin", of_post(post_id), |result| {
            show_change(
                result,
                "No longer pinned: it is kept as long as it is worth it.",
                "It was not pinned.",
            );
        }),
        Command::Delete { post_id } => ("delete", of_post(post_id), |_| {
            output::line("Deleted here for good; whoever holds it drops it as they hear of it.");
        }),
        Command::Storage { budget: None } => ("storage", Value::Null, storage::show),
        Command::Storage {
            budget: Some(bytes),
        } => ("storage_set", json!({"budget_bytes": bytes}), storage::show),
        Command::Feed { limit, before, .. } => {
            ("feed", json!({"limit": limit, "before": before}), show_feed)
        }
        Command::Show { post_id } => ("show", json!({"post_id": post_id.to_string()}), show_post),
        Command::Follow { who } => ("follow", json!({"who": who}), |result| {
            output::line(&format!(
                "You follow {}. They will not learn of it.",
                text(&result["node_id"])
            ));
        }),
        Command::Unfollow { node_id } => (
            "unfollow",
            json!({"node_id": node_id.to_string()}),
            |result| {
                output::line(&format!(
                    "You no longer follow {}.",
                    text(&result["node_id"])
                ));
            },
        ),
        Command::Follows => ("follows", Value::Null, show_follows),
        Command::Profile {
            change: Some(ProfileCommand::Set { name, bio, anchors }),
            ..
        } => {
            let anchors: Vec<String> = anchors.iter().map(ToString::to_string).collect();
            let params = json!({
                "name": name.map(|name| name.as_str().to_owned()),
                "bio": bio,
                "anchors": (!anchors.is_empty()).then_some(anchors),
            });
            ("profile_set", params, show_fields)
        }
        Command::Profile {
            node_id,
            change: None,
        } => (
            "profile",
            json!({"node_id": node_id.map(|id| id.to_string())}),
            show_fields,
        ),
        Command::Metrics => ("metrics", Value::Null, |result| {
            output::text(text(&result["text"]))
        }),
        Command::Run(_) | Command::Devnet(_) => unreachable!("these start nodes and ask none"),
    }
}

fn of_post(post_id: Given<PostId>) -> Value {
    json!({"post_id": post_id.to_string()})
}

/// What was done, or that it was so already.
fn show_change(result: &Value, done: &str, was_so: &str) {
    let is_changed = result["changed"] != false;
    output::line(if is_changed { done } else { was_so });
}

fn show_post_id(result: &Value) {
    output::line(text(&result["post_id"]));
}

async fn ask(dir: &Path, command: Command, as_json: bool) -> Result<(), Exit> {
    let is_doctor = matches!(command, Command::Doctor);
    let (method, mut params, show) = method_of(command);
    let client = client(dir).await?;
    ids::complete(&client, &mut params).await?;
    let result = client.call(method, params).await?;
    if is_doctor {
        return show_checks(result, as_json);
    }
    match as_json {
        true => output::json(&result),
        false => show(&result),
    }
    Ok(())
}

async fn watch_feed(dir: &Path, limit: u64, as_json: bool) -> Result<(), Exit> {
    let client = client(dir).await?;
    // Watching begins before the page is read, so that nothing falls between.
    let mut events = client.events().await?;
    let page = client.call("feed", json!({"limit": limit})).await?;
    let mut seen: Vec<String> = Vec::new();
    let show = |post: &Value| {
        if as_json {
            output::json(post)
        } else {
            show_post(post)
        }
    };
    for post in page.as_array().into_iter().flatten().rev() {
        seen.push(text(&post["post_id"]).to_owned());
        show(post);
    }
    while let Some(event) = events.next().await {
        let id = text(&event["post_id"]);
        if event["event"] != "post" || seen.iter().any(|seen| seen == id) {
            continue;
        }
        // What was learned is committed a moment after it is told.
        for _ in 0..20 {
            match client.call("show", json!({"post_id": id})).await {
                Ok(post) => {
                    show(&post);
                    break;
                }
                Err(_) => distsoc_net::runtime::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }
    Err(Exit::failed("the node has stopped"))
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn show_checks(checks: Value, as_json: bool) -> Result<(), Exit> {
    let all = checks.as_array().cloned().unwrap_or_default();
    let bad = all.iter().filter(|check| check["ok"] != true).count();
    if as_json {
        output::json(&checks);
    } else {
        for check in &all {
            let mark = if check["ok"] == true { "ok  " } else { "FAIL" };
            output::line(&format!(
                "{mark}  {}: {}",
                text(&check["check"]),
                text(&check["detail"])
            ));
            if let Some(next) = check["next_step"].as_str() {
                output::line(&format!("      → {next}"));
            }
        }
    }
    match bad {
        0 => Ok(()),
        _ => Err(Exit::failed(format!(
            "{bad} of {} checks failed",
            all.len()
        ))),
    }
}

fn show_fields(result: &Value) {
    for (name, value) in result.as_object().into_iter().flatten() {
        let shown = match value {
            Value::String(text) => safe(text),
            Value::Null => "–".into(),
            other => other.to_string(),
        };
        output::line(&format!("{name:<16} {shown}"));
    }
}

fn show_found(result: &Value) {
    let steps = result["steps"].as_array().into_iter().flatten();
    let steps: Vec<String> = steps
        .map(|step| format!("{} {} ms", text(&step["step"]), step["ms"]))
        .collect();
    let mut shown = result.clone();
    shown["steps"] = Value::String(steps.join(", "));
    show_fields(&shown);
}

fn show_peers(result: &Value) {
    let row = |peer: &Value| {
        let name = peer["name"].as_str().map_or_else(|| "–".into(), safe);
        let anchor = if peer["is_anchor"] == true {
            "anchor"
        } else {
            ""
        };
        vec![
            text(&peer["node_id"])[..8].to_owned(),
            name,
            text(&peer["slot"]).to_owned(),
            text(&peer["direction"]).to_owned(),
            text(&peer["address"]).to_owned(),
            format!("{:.1}", peer["rtt_ms"].as_f64().unwrap_or_default()),
            anchor.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = result.as_array().into_iter().flatten().map(row).collect();
    match rows.is_empty() {
        true => {
            output::line("No peers yet. Connect to somebody: distsoc connect NODE_ID@HOST:PORT")
        }
        false => output::table(
            &["node", "name", "slot", "dir", "address", "rtt ms", ""],
            &rows,
        ),
    }
}

fn show_reasons(result: &Value) {
    for reason in result["reasons"].as_array().into_iter().flatten() {
        output::line(text(reason));
    }
}

fn show_traffic(result: &Value) {
    let number = |row: &Value, field: &str| row[field].as_u64().unwrap_or_default();
    let rows: Vec<&Value> = result.as_array().into_iter().flatten().collect();
    let today = rows.iter().map(|row| number(row, "day")).max();
    let name = |day: u64| match today.unwrap_or(day) - day {
        0 => "today".to_owned(),
        1 => "yesterday".to_owned(),
        more => format!("{more} days ago"),
    };
    let row = |row: &Value| {
        vec![
            name(number(row, "day")),
            text(&row["layer"]).to_owned(),
            text(&row["cause"]).to_owned(),
            number(row, "in_bytes").to_string(),
            number(row, "out_bytes").to_string(),
        ]
    };
    let lines: Vec<Vec<String>> = rows.iter().map(|one| row(one)).collect();
    output::table(&["day", "layer", "cause", "in bytes", "out bytes"], &lines);
    // What counts against a day's budget goes both ways.
    let mut sums: BTreeMap<(Reverse<u64>, &str), [u64; 2]> = BTreeMap::new();
    for row in rows {
        let key = (Reverse(number(row, "day")), text(&row["layer"]));
        let bytes = number(row, "in_bytes") + number(row, "out_bytes");
        let [sum, budget] = sums.entry(key).or_default();
        (*sum, *budget) = (*sum + bytes, number(row, "budget_bytes"));
    }
    let line = |((Reverse(day), layer), [sum, budget]): (&(Reverse<u64>, &str), &[u64; 2])| {
        let percent = sum * 100 / (*budget).max(1);
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        vec![
            name(*day),
            (*layer).to_owned(),
            mb(*sum),
            mb(*budget),
            format!("{percent} %"),
        ]
    };
    let lines: Vec<Vec<String>> = sums.iter().map(line).collect();
    output::line("");
    output::table(&["day", "layer", "both ways", "budget", "used"], &lines);
}

fn show_follows(result: &Value) {
    for follow in result.as_array().into_iter().flatten() {
        let name = follow["name"].as_str().map(safe).unwrap_or_default();
        output::line(format!("{}  {name}", text(&follow["node_id"])).trim_end());
    }
}

fn show_feed(result: &Value) {
    let posts = result.as_array().cloned().unwrap_or_default();
    if posts.is_empty() {
        output::line("Nothing yet. Follow somebody: distsoc follow NODE_ID@HOST:PORT");
    }
    posts.iter().for_each(show_post);
}

fn show_post(post: &Value) {
    let author = post["author_name"]
        .as_str()
        .map_or_else(|| text(&post["author"])[..8].to_owned(), safe);
    let when = ago(post["created_at_ms"].as_u64().unwrap_or_default());
    let id = text(&post["post_id"]);
    let hearts = match post["hearts"].as_u64().unwrap_or_default() {
        0 => String::new(),
        hearts => format!(" · {hearts} ♥"),
    };
    let id = &id[..8.min(id.len())];
    output::line(&format!("{author} · {when} · {id}{hearts}"));
    for line in safe(text(&post["text"])).lines() {
        output::line(&format!("  {line}"));
    }
    for picture in post["pictures"].as_array().into_iter().flatten() {
        let alt = match text(&picture["alt"]) {
            "" => "no description".to_owned(),
            alt => safe(alt).replace('\n', " "),
        };
        let kind = picture["media_type"].as_str().unwrap_or("on its way");
        let length = storage::bytes(picture["length"].as_u64().unwrap_or_default());
        output::line(&format!("  [{alt}: {kind}, {length}]"));
    }
}

/// How long ago, for a person.
fn ago(at_ms: u64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = (now.as_millis() as u64).saturating_sub(at_ms) / 1000;
    match seconds {
        0..=59 => format!("{seconds} s ago"),
        60..=3_599 => format!("{} min ago", seconds / 60),
        3_600..=86_399 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
