//! Ids as a person gives them: whole, or the first digits that a screen showed.

use crate::commands::text;
use crate::exit::Exit;
use distsoc_api::{ApiError, Client};
use distsoc_persistence::IdPrefix;
use serde_json::{Value, json};
use std::fmt::Display;
use std::str::FromStr;

/// Digits of an id that are shown where several begin alike.
const SHOWN_DIGITS: usize = 16;

/// A whole id or its beginning.
#[derive(Clone, Debug)]
pub(crate) enum Given<T> {
    Whole(T),
    Beginning(IdPrefix),
}

impl<T: FromStr> FromStr for Given<T>
where
    T::Err: Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.chars().count() >= IdPrefix::DIGITS_MAX {
            let whole = text.parse().map_err(|error: T::Err| error.to_string());
            return whole.map(Self::Whole);
        }
        let beginning = text.parse().map(Self::Beginning);
        beginning.map_err(|error: &str| error.to_owned())
    }
}

impl<T: Display> Display for Given<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(id) => id.fmt(f),
            Self::Beginning(prefix) => prefix.fmt(f),
        }
    }
}

/// The parameters that are ids, and of what.
const IDS: [(&str, Option<&str>); 5] = [
    ("post_id", Some("post")),
    ("reply", Some("post")),
    ("node_id", Some("node")),
    ("who", Some("node")),
    ("id", None),
];

/// Puts whole ids in the place of their beginnings, as far as the node knows them.
pub(crate) async fn complete(client: &Client, params: &mut Value) -> Result<(), Exit> {
    for (name, of) in IDS {
        let given = params.get(name).and_then(Value::as_str);
        let prefix = given.and_then(|given| given.parse::<IdPrefix>().ok());
        let Some(prefix) = prefix.filter(|prefix| !prefix.is_whole()) else {
            continue;
        };
        let mut wanted = json!({"prefix": prefix.to_string()});
        if let Some(of) = of {
            wanted["of"] = of.into();
        }
        let found = client.call("lookup", wanted).await?;
        params[name] = the_one(&prefix, of, &found)?.into();
    }
    Ok(())
}

/// The only id that begins so.
fn the_one<'a>(prefix: &IdPrefix, of: Option<&str>, found: &'a Value) -> Result<&'a str, Exit> {
    let found = found.as_array().map_or(&[][..], Vec::as_slice);
    let (what, where_else) = match of {
        Some("post") => ("no post that is stored here", ""),
        Some(_) => ("nobody who is known here", ": give all 64 digits"),
        None => ("nothing that is known here", ": give all 64 digits"),
    };
    match found {
        [one] => Ok(text(&one["id"])),
        [] => Err(Exit::from(ApiError::not_found(format!(
            "{what} has an id that begins with {prefix}{where_else}"
        )))),
        several => {
            let shown = |one: &Value| {
                let id: String = text(&one["id"]).chars().take(SHOWN_DIGITS).collect();
                format!("{} {id}…", text(&one["of"]))
            };
            let shown: Vec<String> = several.iter().map(shown).collect();
            Err(Exit::usage(format!(
                "several begin with {prefix} ({}): give more digits",
                shown.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_taken_and_none_and_several_are_told_apart() {
        let prefix: IdPrefix = "abcdef".parse().unwrap();
        let id = |last: &str| format!("abcdef{}{last}", "0".repeat(9));
        let found = |ids: &[&str]| {
            let all = ids.iter().map(|last| json!({"id": id(last), "of": "post"}));
            Value::from(all.collect::<Vec<_>>())
        };
        assert_eq!(the_one(&prefix, None, &found(&["1"])).unwrap(), id("1"));
        let said = |of, ids: &[&str]| {
            let refused = the_one(&prefix, of, &found(ids)).unwrap_err();
            format!("{refused:?}")
        };
        let none = said(Some("post"), &[]);
        assert!(
            none.contains("number: 4") && none.contains("no post that is stored here"),
            "{none}"
        );
        let several = said(None, &["1x", "2x"]);
        assert!(several.contains("number: 2"), "{several}");
        assert!(
            several.contains("(post abcdef0000000001…, post abcdef0000000002…): give more digits"),
            "{several}"
        );
    }
}
