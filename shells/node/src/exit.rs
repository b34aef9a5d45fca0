//! How the program ends: one sentence, and a number that scripts can rely on.

use crate::output;
use distsoc_api::{ApiError, ErrorCode};
use std::process::ExitCode;

/// An end other than success.
#[derive(Debug)]
pub(crate) struct Exit {
    number: u8,
    sentence: String,
}

/// No node runs on the data folder.
const NO_NODE: u8 = 3;

impl Exit {
    pub(crate) fn failed(sentence: impl std::fmt::Display) -> Self {
        Self {
            number: ErrorCode::Failed.exit_code(),
            sentence: sentence.to_string(),
        }
    }

    pub(crate) fn usage(sentence: impl std::fmt::Display) -> Self {
        Self {
            number: ErrorCode::Usage.exit_code(),
            sentence: sentence.to_string(),
        }
    }

    /// The same, said of something that is named.
    pub(crate) fn about(self, name: &str) -> Self {
        Self {
            sentence: format!("{name}: {}", self.sentence),
            ..self
        }
    }

    pub(crate) fn no_node(dir: &std::path::Path) -> Self {
        Self {
            number: NO_NODE,
            sentence: format!(
                "no node runs on {}: start one with 'distsoc run'",
                dir.display()
            ),
        }
    }

    /// Says the sentence and gives the number.
    pub(crate) fn tell(&self) -> ExitCode {
        // Whoever reads one line gets the whole sentence.
        output::error(&format!("distsoc: {}", self.sentence.replace('\n', " ")));
        ExitCode::from(self.number)
    }
}

impl From<ApiError> for Exit {
    fn from(error: ApiError) -> Self {
        Self {
            number: error.code.exit_code(),
            sentence: error.message,
        }
    }
}

/// Whether a word is the unit of a size, which a shell has cut off from its number.
fn is_unit(word: &str) -> bool {
    let units = ["kb", "mb", "gb", "tb", "kib", "mib", "gib", "tib"];
    units.contains(&word.to_ascii_lowercase().as_str())
}

/// What clap has to say: help and version to stdout, anything wrong as one sentence.
pub(crate) fn of_usage(error: &clap::Error) -> ExitCode {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        output::text(&error.render().to_string());
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Exit::usage("a command is needed: 'distsoc --help' lists them").tell();
    }
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && is_unit(word)
    {
        return Exit::usage(format!(
            "'{word}' stands alone: a size is one word, as 500MB, 10GB or 4GiB"
        ))
        .tell();
    }
    let rendered = error.render().to_string();
    let message = rendered.split("\n\n").next().unwrap_or_default();
    let sentence: Vec<&str> = message.split_whitespace().collect();
    let sentence = sentence.join(" ");
    Exit::usage(sentence.strip_prefix("error: ").unwrap_or(&sentence)).tell()
}
