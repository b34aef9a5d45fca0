//! Named parameters, taken out one by one so that what nobody asked for is told.

use crate::error::ApiError;
use serde_json::{Map, Value};

/// The parameters of one call.
pub(crate) struct Params(Map<String, Value>);

impl Params {
    pub(crate) fn new(params: Value) -> Result<Self, ApiError> {
        match params {
            Value::Null => Ok(Self(Map::new())),
            Value::Object(map) => Ok(Self(map)),
            _ => Err(ApiError::usage("the parameters must be an object")),
        }
    }

    /// A text, if given.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::usage(format!("'{name}' must be a text"))),
        }
    }

    /// A text that must be given.
    pub(crate) fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| ApiError::usage(format!("'{name}' is missing")))
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
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(ApiError::usage(format!("'{name}' must be a whole number"))),
            },
        }
    }

    /// Several texts, if given.
    pub(crate) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let wrong = || ApiError::usage(format!("'{name}' must be a list of texts"));
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(values)) => values
                .into_iter()
                .map(|value| value.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// Nothing else may have been given.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::usage(format!("'{name}' is no parameter of this method"))),
        }
    }
}

pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: T::Err| ApiError::usage(error.to_string()))
}
