//! The things at Meta that a business can grant.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Kind of asset that a feature can need. Named as in Meta's `connected_assets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asset {
    /// A Facebook Page.
    Page,
    /// An Instagram business profile.
    InstagramProfile,
    /// An ad account.
    AdAccount,
    /// A product catalog.
    Catalog,
    /// A pixel.
    Pixel,
    /// A commerce account's settings.
    CommerceMerchantSettings,
}

impl Asset {
    /// The key in `connected_assets`, and the name in notices.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page_id",
            Self::InstagramProfile => "ig_profile_id",
            Self::AdAccount => "ad_account_id",
            Self::Catalog => "catalog_id",
            Self::Pixel => "pixel_id",
            Self::CommerceMerchantSettings => "commerce_merchant_settings_id",
        }
    }
}

/// What one business granted, as ids of Meta. `None` and empty mean that it is not granted (any more).
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assets {
    /// The client's Business Manager.
    pub business_manager_id: Option<String>,
    /// Ad account, without `act_`.
    pub ad_account_id: Option<String>,
    /// Product catalog.
    pub catalog_id: Option<String>,
    /// Commerce account.
    pub commerce_merchant_settings_id: Option<String>,
    /// Only Graph's answers have it.
    pub commerce_partner_integration_id: Option<String>,
    /// Pixel: unique to the business.
    pub pixel_id: Option<String>,
    /// Every Facebook Page.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub pages: BTreeSet<String>,
    /// Every Instagram business profile.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub instagram_profiles: BTreeSet<String>,
    /// Pages and Instagram profiles, mixed, as Meta sent them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub profiles: BTreeSet<String>,
}

impl Assets {
    /// Whether an asset of this kind is granted.
    #[must_use]
    pub fn has(&self, asset: Asset) -> bool {
        match asset {
            Asset::Page => !self.pages.is_empty() || self.profiles.iter().any(|id| self.is_page(id)),
            Asset::InstagramProfile => {
                !self.instagram_profiles.is_empty() || self.profiles.iter().any(|id| is_instagram(id))
            }
            Asset::AdAccount => self.ad_account_id.is_some(),
            Asset::Catalog => self.catalog_id.is_some(),
            Asset::Pixel => self.pixel_id.is_some(),
            Asset::CommerceMerchantSettings => self.commerce_merchant_settings_id.is_some(),
        }
    }

    /// `profiles` mixes both kinds, and `pages` is often missing next to it.
    fn is_page(&self, profile: &str) -> bool {
        !self.instagram_profiles.contains(profile) && !is_instagram(profile)
    }

    /// Every field by name with its ids, for comparing.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, BTreeSet<String>); 9] {
        let one = |id: &Option<String>| id.iter().cloned().collect();
        [
            ("business_manager_id", one(&self.business_manager_id)),
            ("ad_account_id", one(&self.ad_account_id)),
            ("catalog_id", one(&self.catalog_id)),
            (
                "commerce_merchant_settings_id",
                one(&self.commerce_merchant_settings_id),
            ),
            (
                "commerce_partner_integration_id",
                one(&self.commerce_partner_integration_id),
            ),
            ("pixel_id", one(&self.pixel_id)),
            ("pages", self.pages.clone()),
            ("instagram_profiles", self.instagram_profiles.clone()),
            ("profiles", self.profiles.clone()),
        ]
    }
}

/// Instagram professional accounts have ids of this form; Pages do not.
fn is_instagram(profile: &str) -> bool {
    profile.len() == 17 && profile.starts_with("17841")
}
