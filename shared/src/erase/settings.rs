//! What an erasure does, and who may ask for one.

use serde::{Deserialize, Serialize};

use crate::config::Env;

/// What becomes of the person in Braze.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, strum::EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", ascii_case_insensitive)]
pub enum EraseInBraze {
    /// Our attributes become null, and profiles that only ever had an alias of ours are deleted.
    #[default]
    Attributes,
    /// The whole profile is deleted.
    Delete,
    /// Braze is left alone.
    Keep,
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
