//! Where Graph is.

use crate::config::Env;

/// Where Meta's Graph API is.
#[derive(Debug, Clone)]
pub struct GraphSettings {
    /// `GRAPH_API_URL`, without a trailing slash.
    pub url: String,
    /// `GRAPH_API_VERSION`, such as `v25.0`.
    pub version: String,
}

impl GraphSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let url = env.url("GRAPH_API_URL", Some("https://graph.facebook.com"));
        let version = env.or("GRAPH_API_VERSION", "v25.0");
        let digits = version.strip_prefix('v').and_then(|rest| rest.split_once('.'));
        if !digits.is_some_and(|(major, minor)| major.parse::<u16>().is_ok() && minor.parse::<u16>().is_ok())
        {
            env.problem(format!(
                "GRAPH_API_VERSION is `{version}`, but expects a version such as `v25.0`"
            ));
        }
        Self { url, version }
    }
}
