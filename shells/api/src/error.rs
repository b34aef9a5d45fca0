//! Errors with a stable code and a sentence for a person.

use distsoc_engine::io::CallError;
use serde_json::{Value, json};

/// What kind of error: the command line's exit codes are these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// It was tried and failed.
    Failed,
    /// The method or its parameters are not right.
    Usage,
    /// What was named is not there.
    NotFound,
    /// A rule forbids it.
    Refused,
}

impl ErrorCode {
    const ALL: [Self; 4] = [Self::Failed, Self::Usage, Self::NotFound, Self::Refused];

    /// The word in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Refused => "refused",
        }
    }

    /// The command line's exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 4,
            Self::Refused => 5,
        }
    }
}

/// Why a call gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub code: ErrorCode,
    /// For a person.
    pub message: String,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A wrong method or parameter.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Usage, message)
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// `{"error":{"code","message"}}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"error": {"code": self.code.name(), "message": self.message}})
    }

    /// The error in an answer, if it is one.
    #[must_use]
    pub fn from_json(answer: &Value) -> Option<Self> {
        let error = answer.get("error")?;
        let name = error.get("code")?.as_str()?;
        let code = ErrorCode::ALL.into_iter().find(|code| code.name() == name)?;
        Some(Self::new(code, error.get("message")?.as_str()?))
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::NotFound(_) => ErrorCode::NotFound,
            CallError::Refused(_) => ErrorCode::Refused,
            CallError::Storage(_) | CallError::Dial(_) => ErrorCode::Failed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<distsoc_persistence::Fault> for ApiError {
    fn from(fault: distsoc_persistence::Fault) -> Self {
        Self::new(ErrorCode::Failed, fault.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_json() {
        for code in ErrorCode::ALL {
            let error = ApiError::new(code, "a sentence");
            assert_eq!(ApiError::from_json(&error.to_json()), Some(error));
        }
        assert_eq!(ApiError::from_json(&json!({"post_id": "1"})), None);
    }
}
