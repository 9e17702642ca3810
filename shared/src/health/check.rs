//! A check, and how it went.

use serde::Serialize;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and something will stop it, or is missing.
    Warn,
    /// A job does not work.
    Fail,
}

/// A check that was made. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name, such as `page_token:<page id>`.
    pub name: String,
    /// How it went.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// What to do; `None` if it is well.
    pub remedy: Option<String>,
}

impl Check {
    /// As it should be.
    #[must_use]
    pub fn ok(name: &str, message: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            status: Status::Ok,
            message: message.into(),
            remedy: None,
        }
    }

    /// Something to do before it stops working.
    #[must_use]
    pub fn warn(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::bad(name, Status::Warn, message.into(), remedy.into())
    }

    /// Something that stops a job.
    #[must_use]
    pub fn fail(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::bad(name, Status::Fail, message.into(), remedy.into())
    }

    fn bad(name: &str, status: Status, message: String, remedy: String) -> Self {
        Self {
            name: name.to_owned(),
            status,
            message,
            remedy: Some(remedy),
        }
    }
}
