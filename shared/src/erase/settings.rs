//! What an erasure does, and who may ask for one.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::Env;

/// What becomes of the person in Braze.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EraseInBraze {
    /// Our attributes become null, and profiles that only ever had an alias of ours are deleted.
    #[default]
    Attributes,
    /// The whole profile is deleted.
    Delete,
    /// Braze is left alone.
    Keep,
}

impl FromStr for EraseInBraze {
    type Err = ();

    fn from_str(value: &str) -> Result<Self, ()> {
        match value.to_ascii_lowercase().as_str() {
            "attributes" => Ok(Self::Attributes),
            "delete" => Ok(Self::Delete),
            "keep" => Ok(Self::Keep),
            _ => Err(()),
        }
    }
}

impl EraseInBraze {
    /// Reads `ERASE_IN_BRAZE`.
    pub fn read(env: &mut Env<'_>) -> Self {
        env.parsed(
            "ERASE_IN_BRAZE",
            Self::default(),
            "`attributes`, `delete` or `keep`",
        )
    }
}

/// Reads `ERASE_KEYWORDS`: who writes one of them to a page is erased.
pub fn keywords(env: &mut Env<'_>) -> Vec<String> {
    env.list("ERASE_KEYWORDS", "")
}
