//! Text that people wrote, with its length bounded in bytes of UTF-8.

use crate::limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::sync::Arc;

/// Why a text is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Over the limit.
    #[error("at most {max} bytes of text fit here, this has {got}")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// Nothing but white space where something is needed.
    #[error("this must not be empty")]
    Empty,
    /// A control character other than newline and tab.
    #[error("control characters are not taken")]
    Control,
}

/// What a text may hold.
pub trait TextRule {
    /// Bytes of UTF-8 at most.
    const BYTES_MAX: usize;
    /// Whether it may be empty or white space only.
    const MAY_BE_EMPTY: bool;
    /// Whether it may have newlines and tabs.
    const LINES: bool;
}

/// A bounded text by the rule `R`.
pub struct Text<R>(Arc<str>, std::marker::PhantomData<fn() -> R>);

impl<R: TextRule> Text<R> {
    /// Checks the text.
    ///
    /// # Errors
    /// [`TextError`] where it breaks the rule.
    pub fn new(text: &str) -> Result<Self, TextError> {
        if text.len() > R::BYTES_MAX {
            return Err(TextError::TooLong {
                got: text.len(),
                max: R::BYTES_MAX,
            });
        }
        if !R::MAY_BE_EMPTY && text.trim().is_empty() {
            return Err(TextError::Empty);
        }
        let allowed = |c: char| !c.is_control() || (R::LINES && matches!(c, '\n' | '\t'));
        if !text.chars().all(allowed) {
            return Err(TextError::Control);
        }
        Ok(Self(text.into(), std::marker::PhantomData))
    }
}

impl<R> Text<R> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<R> Clone for Text<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), std::marker::PhantomData)
    }
}

impl<R> PartialEq for Text<R> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<R> Eq for Text<R> {}

impl<R> fmt::Debug for Text<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl<R> Serialize for Text<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, R: TextRule> Deserialize<'de> for Text<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(|_| de::Error::custom("out-of-range"))
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $rule:ident, $max:expr, empty: $empty:literal, lines: $lines:literal) => {
        #[doc = concat!("The rule of [`", stringify!($name), "`].")]
        #[derive(Clone, Copy, Debug)]
        pub enum $rule {}
        impl TextRule for $rule {
            const BYTES_MAX: usize = $max;
            const MAY_BE_EMPTY: bool = $empty;
            const LINES: bool = $lines;
        }
        $(#[$doc])*
        pub type $name = Text<$rule>;
    };
}

text! {
    /// What a post says, at most [`limits::POST_TEXT_BYTES_MAX`]; empty only beside a picture, which the post checks.
    PostText, PostTextRule, limits::POST_TEXT_BYTES_MAX, empty: true, lines: true
}
text! {
    /// A display name, at most [`limits::NAME_BYTES_MAX`], one line.
    Name, NameRule, limits::NAME_BYTES_MAX, empty: false, lines: false
}
text! {
    /// What a person says about themselves, at most [`limits::BIO_BYTES_MAX`].
    Bio, BioRule, limits::BIO_BYTES_MAX, empty: true, lines: true
}
text! {
    /// What a picture shows, in words.
    MediaDescription, MediaDescriptionRule, limits::MEDIA_DESCRIPTION_BYTES_MAX, empty: true, lines: true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_kept() {
        assert!(Name::new("Ada").is_ok());
        assert_eq!(Name::new("  "), Err(TextError::Empty));
        assert_eq!(Name::new("a\nb"), Err(TextError::Control));
        assert_eq!(PostText::new("a\u{7}"), Err(TextError::Control));
        assert!(PostText::new("two\nlines").is_ok());
        let long = "x".repeat(limits::NAME_BYTES_MAX + 1);
        assert_eq!(
            Name::new(&long),
            Err(TextError::TooLong { got: 129, max: 128 })
        );
    }
}
