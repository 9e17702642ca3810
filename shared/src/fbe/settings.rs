//! The settings of FBE.

use crate::config::Env;

/// FBE follow-ups.
#[derive(Debug, Clone)]
pub struct FbeSettings {
    /// `FBE_SCOPES` for the token exchange, as a comma list.
    pub scopes: Vec<String>,
    /// `CATALOG_FEED_URL`; may hold `{external_business_id}` and `{catalog_id}`; `None` = no push.
    pub catalog_feed_url: Option<String>,
}

impl FbeSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let catalog_feed_url = env.optional("CATALOG_FEED_URL");
        if let Some(url) = &catalog_feed_url {
            env.check_url("CATALOG_FEED_URL", url);
        }
        Self {
            scopes: env.list("FBE_SCOPES", "manage_business_extension"),
            catalog_feed_url,
        }
    }
}

/// Where the businesses' own secrets are.
#[derive(Debug, Clone)]
pub struct FbeSecretSettings {
    /// `FBE_SECRET_PREFIX`, such as `<stack>/fbe/`.
    pub prefix: String,
    /// `ENCRYPTION_KEY_ARN`: the KMS key that new secrets are encrypted with; `None` = Secrets Manager's own.
    pub encryption_key: Option<String>,
}

impl FbeSecretSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            prefix: env.required("FBE_SECRET_PREFIX"),
            encryption_key: env.optional("ENCRYPTION_KEY_ARN"),
        }
    }
}
