//! Named parameters, taken out one by one so that what nobody asked for is told.

use crate::error::ApiError;
use serde_json::{Map, Value};

/// Characters of a wrong name that are told.
const NAME_SHOWN_MAX: usize = 40;

/// The parameters of one call.
pub(crate) struct Params {
    given: Map<String, Value>,
    /// The method's line in the table.
    declared: &'static str,
}

/// The names in a method's line: `name: type, other?: type`, where a type may be `[{field, field}]`.
fn names_in(declared: &'static str) -> impl Iterator<Item = &'static str> {
    let mut depth = 0usize;
    let ends = declared.split(move |c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    let names = ends.filter_map(|one| one.trim_start().split(':').next());
    names.map(|name| name.trim_end_matches('?'))
}

impl Params {
    /// The parameters of a method, whose line says which there are: with others nothing is done at all.
    pub(crate) fn new(params: Value, declared: &'static str) -> Result<Self, ApiError> {
        let given = match params {
            Value::Null => Map::new(),
            Value::Object(map) => map,
            _ => return Err(ApiError::usage("the parameters must be an object")),
        };
        let is_declared = |name: &&String| names_in(declared).any(|declared| declared == *name);
        if let Some(name) = given.keys().find(|name| !is_declared(name)) {
            let name: String = name.chars().take(NAME_SHOWN_MAX).collect();
            return Err(ApiError::usage(format!(
                "'{name}' is no parameter of this method"
            )));
        }
        Ok(Self { given, declared })
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        assert!(
            names_in(self.declared).any(|declared| declared == name),
            "'{name}' is missing in the method's line of the table"
        );
        self.given.remove(name)
    }

    /// A text, if given.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::usage(format!("'{name}' must be a text"))),
        }
    }

    /// A text that must be given.
    pub(crate) fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?
            .ok_or_else(|| ApiError::usage(format!("'{name}' is missing")))
    }

    /// Something that is parsed from a text, if given.
    pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        self.text(name)?.map(|text| parse(&text)).transpose()
    }

    /// Something that must be given.
    pub(crate) fn required_parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
    ) -> Result<T, ApiError> {
        parse(&self.required(name)?)
    }

    /// A whole number, if given.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(ApiError::usage(format!("'{name}' must be a whole number"))),
            },
        }
    }

    /// A list of whatever it is, if given.
    pub(crate) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(ApiError::usage(format!("'{name}' must be a list"))),
        }
    }

    /// Several texts, if given.
    pub(crate) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let wrong = || ApiError::usage(format!("'{name}' must be a list of texts"));
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(values)) => values
                .into_iter()
                .map(|value| value.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }
}

pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: &str,
) -> Result<T, ApiError> {
    text.parse()
        .map_err(|error: T::Err| ApiError::usage(error.to_string()))
}
