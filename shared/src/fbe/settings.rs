//! The settings of FBE.

use crate::config::Env;

/// Where what follows from an install leads to.
#[derive(Debug, Clone)]
pub struct FbeSettings {
    /// `CATALOG_FEED_URL`; may hold `{external_business_id}` and `{catalog_id}`; `None` = no push.
    pub catalog_feed_url: Option<String>,
    /// `PARTNER_WEBHOOK_URL`: where notices to the partner's platform are posted; `None` = there are none.
    pub partner_webhook_url: Option<String>,
}

/// Which of the optional follow-ups there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configured {
    /// There is a feed to fill catalogs from.
    pub catalog_feed: bool,
    /// Notices are posted to the partner's platform.
    pub partner_webhook: bool,
}

impl Configured {
    /// For commands, which do not know the stack's settings: the dispatcher drops what is not configured.
    pub const ALL: Self = Self {
        catalog_feed: true,
        partner_webhook: true,
    };
}

impl FbeSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let mut url = |name: &'static str| {
            let url = env.optional(name);
            if let Some(url) = &url {
                env.check_url(name, url);
            }
            url
        };
        Self {
            catalog_feed_url: url("CATALOG_FEED_URL"),
            partner_webhook_url: url("PARTNER_WEBHOOK_URL"),
        }
    }

    /// Which follow-ups there are.
    #[must_use]
    pub fn configured(&self) -> Configured {
        Configured {
            catalog_feed: self.catalog_feed_url.is_some(),
            partner_webhook: self.partner_webhook_url.is_some(),
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
