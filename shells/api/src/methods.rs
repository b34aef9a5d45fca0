//! Every method: its name, what it takes, what it gives. The one table of what a person can do.

use crate::error::{ApiError, ErrorCode};
use crate::params::{Params, parse};
use crate::{doctor, lookup, posts, shapes, storage};
use distsoc_engine::domain::{Bio, ConnectString, Name, NodeId, TextError};
use distsoc_engine::io::{Call, Counter, Reply};
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::wire::Layer;
use distsoc_host::Host;
use serde_json::{Value, json};

/// Posts on one page of the feed at most.
pub const PAGE_MAX: u64 = 500;

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its name in `POST /v1/call`.
    pub name: &'static str,
    /// Its parameters: `name: type`, a `?` where it may be left out.
    pub params: &'static str,
    /// What it gives.
    pub gives: &'static str,
    /// Whether it only reads.
    pub reads: bool,
}

macro_rules! methods {
    ($($name:literal ($params:literal) -> $gives:literal, $kind:ident, $handler:expr;)*) => {
        /// The table.
        pub const METHODS: &[Method] = &[$(Method {
            name: $name,
            params: $params,
            gives: $gives,
            reads: matches!(Kind::$kind, Kind::Read),
        },)*];

        /// Calls a method.
        pub(crate) async fn call(host: &Host, method: &str, params: Value) -> Result<Value, ApiError> {
            match method {
                $($name => {
                    let mut params = Params::new(params, $params)?;
                    // Boxed, so that the future of one call is not as large as that of all methods together.
                    Box::pin($handler(host, &mut params)).await
                })*
                _ => Err(ApiError::usage(format!("there is no method '{method}'"))),
            }
        }
    };
}

enum Kind {
    Read,
    Act,
}

methods! {
    "id" ("") -> "{node_id, connect}", Read, id;
    "connect" ("to: connect string") -> "{node_id}", Act, connect;
    "status" ("") -> "the node at a glance", Read, status;
    "peers" ("") -> "[peer]", Read, peers;
    "map" ("node_id?: id") -> "{hop1, hop2, hop3, bytes} or {node_id, hop, reporters}", Read, map;
    "find" ("node_id: id") -> "{node_id, found_by, address, as_of_ms, jumps, ms, steps: [{step, ms}]}", Read, find;
    "lookup" ("prefix: first 6 or more digits of an id, of?: post or node") -> "[{id, of}], some of those known here", Read, lookup::lookup;
    "explain" ("id?: id or post id, node_id?: id, post_id?: post id") -> "{node_id, reasons: [text], hop, reporters, peer} or {post_id, reasons: [text], priority, rank, bytes, missing_bytes, …}", Read, storage::explain;
    "post" ("text?: text, reply?: post id, pictures?: [{blob, length, alt}]") -> "{post_id}", Act, posts::post;
    "feed" ("limit?: number, before?: cursor") -> "[post], newest first", Read, posts::feed;
    "show" ("post_id: post id") -> "post", Read, posts::show;
    "heart" ("post_id: post id") -> "{post_id, changed}", Act, posts::heart;
    "unheart" ("post_id: post id") -> "{post_id, changed}", Act, posts::unheart;
    "pin" ("post_id: post id") -> "{post_id, changed}", Act, posts::pin;
    "unpin" ("post_id: post id") -> "{post_id, changed}", Act, posts::unpin;
    "delete" ("post_id: post id") -> "{post_id}", Act, posts::delete;
    "storage" ("preview?: number") -> "{budget_bytes, disk_bytes, own_bytes, pinned_bytes, followed_bytes, hosted_bytes, next_to_go: [kept post], …}", Read, storage::storage;
    "storage_set" ("budget_bytes: number") -> "as storage", Act, storage::storage_set;
    "follow" ("who: connect string or id") -> "{node_id}", Act, follow;
    "unfollow" ("node_id: id") -> "{node_id}", Act, unfollow;
    "follows" ("") -> "[{node_id, name}]", Read, follows;
    "profile" ("node_id?: id") -> "profile", Read, profile;
    "profile_set" ("name?: text, bio?: text, anchors?: [connect string]") -> "profile", Act, profile_set;
    "traffic" ("") -> "[{layer, cause, in_bytes, out_bytes, day, budget_bytes}]", Read, traffic;
    "metrics" ("") -> "{text}: Prometheus", Read, metrics;
    "doctor" ("") -> "[{check, ok, detail, next_step}]", Read, doctor_checks;
}

/// Takes the one reply a call can give, or says that the node gave another.
macro_rules! expected {
    ($reply:expr, $pattern:pat => $value:expr) => {
        match $reply? {
            $pattern => $value,
            other => {
                return Err(ApiError::new(
                    ErrorCode::Failed,
                    format!("an unexpected reply: {other:?}"),
                ))
            }
        }
    };
}
pub(crate) use expected;

async fn id(host: &Host, _: &mut Params) -> Result<Value, ApiError> {
    let status = expected!(host.call(Call::Status).await, Reply::Status(status) => status);
    let address = status.addresses.first().copied().unwrap_or(host.listen());
    let connect = ConnectString::at(host.node_id(), address);
    Ok(json!({"node_id": host.node_id().to_string(), "connect": connect.to_string()}))
}

async fn connect(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let place: ConnectString = params.required_parsed("to")?;
    let place = place
        .not_of(host.node_id())
        .map_err(|error| ApiError::usage(error.to_string()))?;
    let node = expected!(host.call(Call::Connect(place)).await, Reply::Connected(node) => node);
    Ok(json!({"node_id": node.to_string()}))
}

async fn status(host: &Host, _: &mut Params) -> Result<Value, ApiError> {
    let status = expected!(host.call(Call::Status).await, Reply::Status(status) => status);
    Ok(shapes::status(host, &status))
}

async fn peers(host: &Host, _: &mut Params) -> Result<Value, ApiError> {
    let peers = expected!(host.call(Call::Peers).await, Reply::Peers(peers) => peers);
    Ok(peers.iter().map(|peer| shapes::peer(host, peer)).collect())
}

async fn map(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let node = params.parsed::<NodeId>("node_id")?;
    let view = expected!(host.call(Call::Map(node)).await, Reply::Map(view) => view);
    Ok(shapes::map(&view))
}

async fn find(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let node: NodeId = params.required_parsed("node_id")?;
    let found = expected!(host.call(Call::Find(node)).await, Reply::Found(found) => found);
    Ok(shapes::found(&found))
}

pub(crate) fn text_error(error: TextError) -> ApiError {
    ApiError::usage(error.to_string())
}

async fn follow(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let who = params.required("who")?;
    let (node, place) = match who.contains('@') {
        true => {
            let place: ConnectString = parse(&who)?;
            (place.node_id(), Some(place))
        }
        false => {
            let node = who.parse::<NodeId>().map_err(|error| {
                let sentence = format!("whom to follow is NODE_ID@HOST:PORT or a NODE_ID: {error}");
                ApiError::usage(sentence)
            });
            (node?, None)
        }
    };
    expected!(host.call(Call::Follow { node, place }).await, Reply::Done => ());
    Ok(json!({"node_id": node.to_string()}))
}

async fn unfollow(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let node: NodeId = params.required_parsed("node_id")?;
    expected!(host.call(Call::Unfollow(node)).await, Reply::Done => ());
    Ok(json!({"node_id": node.to_string()}))
}

async fn follows(host: &Host, _: &mut Params) -> Result<Value, ApiError> {
    let nodes = expected!(host.call(Call::Follows).await, Reply::Follows(nodes) => nodes);
    let named = host.view(move |view| {
        let name = |node: NodeId| view.profile(node).map(|profile| (node, profile));
        nodes.into_iter().map(name).collect::<Result<Vec<_>, _>>()
    });
    let shape = |(node, profile): &(NodeId, Option<distsoc_engine::domain::Profile>)| {
        let name = profile.as_ref().map(|profile| profile.name.as_str());
        json!({"node_id": node.to_string(), "name": name})
    };
    Ok(named.await?.iter().map(shape).collect())
}

async fn profile(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let node = params
        .parsed::<NodeId>("node_id")?
        .unwrap_or(host.node_id());
    profile_of(host, node).await
}

async fn profile_of(host: &Host, node: NodeId) -> Result<Value, ApiError> {
    let profile = host.view(move |view| view.profile(node)).await?;
    let profile =
        profile.ok_or_else(|| ApiError::not_found("no profile of that node is known here"))?;
    Ok(shapes::profile(&profile))
}

async fn profile_set(host: &Host, params: &mut Params) -> Result<Value, ApiError> {
    let name = params
        .text("name")?
        .map(|name| Name::new(&name))
        .transpose()
        .map_err(text_error)?;
    let bio = params
        .text("bio")?
        .map(|bio| Bio::new(&bio))
        .transpose()
        .map_err(text_error)?;
    let anchors = params
        .texts("anchors")?
        .map(|anchors| anchors.iter().map(|anchor| parse(anchor)).collect());
    let anchors: Option<Vec<ConnectString>> = anchors.transpose()?;
    if name.is_none() && bio.is_none() && anchors.is_none() {
        return Err(ApiError::usage(
            "say what to change: a name, a bio, or anchors",
        ));
    }
    expected!(host.call(Call::SetProfile { name, bio, anchors }).await, Reply::Done => ());
    profile_of(host, host.node_id()).await
}

async fn traffic(host: &Host, _: &mut Params) -> Result<Value, ApiError> {
    let profile = NodeProfile::of(host.kind());
    let budget = |layer| match layer {
        Layer::Connection => profile.connection_bytes_per_day,
        Layer::Discovery => profile.discovery_bytes_per_day,
        Layer::Files => profile.files_bytes_per_day,
        Layer::Social => profile.social_bytes_per_day,
    };
    let days = host.traffic_by_day();
    let rows = days.iter().flat_map(|of| {
        let rows = of.rows.iter();
        rows.map(|row| shapes::traffic(of.day, row, budget(row.layer)))
    });
    Ok(rows.collect())
}

async fn metrics(host: &Host, _: &mut Params) -> Result<Value, ApiError> {
    let counters =
        expected!(host.call(Call::Counters).await, Reply::Counters(counters) => counters);
    let mut text = String::new();
    let mut last = "";
    for Counter {
        name,
        labels,
        value,
    } in &counters
    {
        if *name != last {
            let kind = if name.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            text.push_str(&format!("# TYPE distsoc_{name} {kind}\n"));
            last = name;
        }
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        text.push_str(&format!("distsoc_{name}{labels} {value}\n"));
    }
    text.push_str("# TYPE distsoc_bytes_total counter\n");
    for row in host.traffic() {
        for (direction, bytes) in [("in", row.in_bytes), ("out", row.out_bytes)] {
            let (layer, cause) = (row.layer.name(), row.cause);
            text.push_str(&format!(
                "distsoc_bytes_total{{layer=\"{layer}\",cause=\"{cause}\",direction=\"{direction}\"}} {bytes}\n"
            ));
        }
    }
    text.push_str(&format!(
        "# TYPE distsoc_responses_dropped_total counter\ndistsoc_responses_dropped_total {}\n",
        host.responses_dropped()
    ));
    text.push_str(&format!(
        "# TYPE distsoc_disk_bytes gauge\ndistsoc_disk_bytes {}\n",
        host.disk_bytes()
    ));
    Ok(json!({"text": text}))
}

async fn doctor_checks(host: &Host, _: &mut Params) -> Result<Value, ApiError> {
    let status = expected!(host.call(Call::Status).await, Reply::Status(status) => status);
    let mut checks = doctor::examine(host.dir());
    checks.extend(doctor::examine_running(&status));
    Ok(checks.iter().map(doctor::Check::to_json).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METHODS.len());
    }
}
