//! Where Graph is.

use crate::config::Env;

/// The version of the Graph API that is called unless told otherwise. Meta has not named its end; a version has ended
/// two years after the next one came, and v27.0 came on 2026-11-04: so about 2028-11-04.
/// <https://developers.facebook.com/docs/graph-api/changelog/versions>
pub const DEFAULT_VERSION: &str = "v26.0";

/// Where Meta's Graph API is.
#[derive(Debug, Clone)]
pub struct GraphSettings {
    /// `GRAPH_API_URL`, without a trailing slash.
    pub url: String,
    /// `GRAPH_API_VERSION`, such as `v26.0`.
    pub version: String,
}

impl GraphSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let url = env.url("GRAPH_API_URL", Some("https://graph.facebook.com"));
        let version = env.or("GRAPH_API_VERSION", DEFAULT_VERSION);
        let digits = version.strip_prefix('v').and_then(|rest| rest.split_once('.'));
        if !digits.is_some_and(|(major, minor)| major.parse::<u16>().is_ok() && minor.parse::<u16>().is_ok())
        {
            env.problem(format!(
                "GRAPH_API_VERSION is `{version}`, but expects a version such as `{DEFAULT_VERSION}`"
            ));
        }
        Self { url, version }
    }
}
