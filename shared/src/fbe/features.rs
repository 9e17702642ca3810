//! Which features work with the assets that are granted.
//!
//! Meta publishes no table of what each feature needs. This one comes from recorded installs and from
//! Meta's rule that only the feature whose asset is missing may be switched off.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::asset::{Asset, Assets};

/// What a feature lacks whose shop at Meta is not active, as its `shop_status` says.
pub const ACTIVE_SHOP: &str = "active_shop";
/// What a feature lacks that Meta's configuration says is not enabled.
pub const SWITCHED_ON_AT_META: &str = "switched_on_at_meta";
/// What every feature lacks while Graph refuses the business's token.
pub const ACCESS_TOKEN: &str = "access_token";
/// What every feature lacks once the app is removed.
pub const INSTALLATION: &str = "installation";

/// One installed instance of a feature.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feature {
    /// `feature_type`, in lower case. Unknown types are kept.
    pub feature_type: String,
    /// `feature_instance_id`: names the instance in Meta's configuration.
    pub instance_id: Option<String>,
    /// `feature_name`
    pub name: Option<String>,
    /// `connected_assets`: kind of asset → ids, unknown kinds too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub connected: BTreeMap<String, BTreeSet<String>>,
    /// `additional_info`
    #[serde(skip_serializing_if = "AdditionalInfo::is_empty")]
    pub additional: AdditionalInfo,
}

/// What Meta adds to an installed feature.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdditionalInfo {
    /// `onsite_eligible` or `onsite_commerce_eligible`: whether checkout on Meta's side is possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onsite_eligible: Option<bool>,
    /// `shop_status`: `active`, `inactive_offsite`, `inactive_other`, `no_longer_available`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shop_status: Vec<String>,
    /// `shop_status_info`, as it came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shop_status_info: Vec<Value>,
    /// Anything else, as it came.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub other: Map<String, Value>,
}

impl Feature {
    /// Names the instance among the features of a business: `<type>#<instance>`.
    #[must_use]
    pub fn key(&self) -> String {
        let instance = self.instance_id.as_deref().unwrap_or_default();
        format!("{}#{instance}", self.feature_type)
    }

    /// Why the instance is off; `None` = it is on.
    fn lacks(
        &self,
        needs: &[Asset],
        assets: &Assets,
        switched_off: &BTreeSet<String>,
    ) -> Option<&'static str> {
        let missing = needs.iter().find(|asset| {
            let connected = self.connected.get(asset.as_str());
            connected.is_none_or(BTreeSet::is_empty) && !assets.has(**asset)
        });
        if let Some(asset) = missing {
            return Some(asset.as_str());
        }
        let shops = &self.additional.shop_status;
        if !shops.is_empty()
            && !shops
                .iter()
                .any(|status| status.trim().eq_ignore_ascii_case("active"))
        {
            return Some(ACTIVE_SHOP);
        }
        switched_off.contains(&self.key()).then_some(SWITCHED_ON_AT_META)
    }
}

impl AdditionalInfo {
    /// Whether Meta added nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// A feature that is off, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Disabled {
    /// Feature type.
    pub feature: String,
    /// What it lacks: an [`Asset`], [`ACTIVE_SHOP`], [`SWITCHED_ON_AT_META`], [`ACCESS_TOKEN`] or [`INSTALLATION`].
    pub missing: String,
}

/// Which installed feature types are on and off. Each list is sorted and without duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gating {
    /// Types of which at least one instance lacks nothing.
    pub enabled: Vec<String>,
    /// Types of which every instance lacks something, with what the first instance lacks.
    pub disabled: Vec<Disabled>,
    /// Types that this version does not know: kept, neither on nor off.
    pub unknown: Vec<String>,
}

impl Gating {
    /// Everything off for one reason that is not an asset.
    #[must_use]
    pub fn all_off(&self, missing: &str) -> Self {
        let mut disabled: Vec<Disabled> = self
            .enabled
            .iter()
            .chain(self.disabled.iter().map(|off| &off.feature))
            .map(|feature| Disabled {
                feature: feature.clone(),
                missing: missing.to_owned(),
            })
            .collect();
        disabled.sort();
        Self {
            enabled: Vec::new(),
            disabled,
            unknown: self.unknown.clone(),
        }
    }
}

/// The assets that a feature type needs, or `None` for a type that is not known.
#[must_use]
pub fn needs(feature_type: &str) -> Option<&'static [Asset]> {
    use Asset::{AdAccount, Catalog, CommerceMerchantSettings, InstagramProfile, Page, Pixel};
    Some(match feature_type {
        "pixel" | "conversions_api" => &[Pixel],
        "catalog" | "catalog_feed_scheduled" => &[Catalog],
        "ads" => &[AdAccount],
        "fb_shop" => &[Catalog, CommerceMerchantSettings, Page],
        "page_shop" | "page_card" => &[Page, Catalog],
        "ig_shopping" => &[InstagramProfile, Catalog],
        "page_cta" | "page_post" | "messenger_chat" | "chat_plugin" | "messenger_menu" | "thread_intent" => {
            &[Page]
        }
        "ig_cta" => &[InstagramProfile],
        "external_client" => &[],
        _ => return None,
    })
}

/// Decides which installed feature types are on. An instance may use the assets that it is connected with
/// and those of the whole install. `switched_off` are the [`Feature::key`]s that are off in Meta's configuration.
#[must_use]
pub fn gate(assets: &Assets, features: &[Feature], switched_off: &BTreeSet<String>) -> Gating {
    let mut enabled = BTreeSet::new();
    let mut disabled: BTreeMap<&str, &str> = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    for feature in features {
        let feature_type = feature.feature_type.as_str();
        let Some(needs) = needs(feature_type) else {
            unknown.insert(feature_type);
            continue;
        };
        match feature.lacks(needs, assets, switched_off) {
            None => {
                enabled.insert(feature_type);
            }
            Some(missing) => {
                disabled.entry(feature_type).or_insert(missing);
            }
        }
    }
    disabled.retain(|feature_type, _| !enabled.contains(feature_type));
    Gating {
        enabled: enabled.into_iter().map(str::to_owned).collect(),
        disabled: disabled
            .into_iter()
            .map(|(feature, missing)| Disabled {
                feature: feature.to_owned(),
                missing: missing.to_owned(),
            })
            .collect(),
        unknown: unknown.into_iter().map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(feature_type: &str, connected: &[(&str, &str)]) -> Feature {
        Feature {
            feature_type: feature_type.to_owned(),
            connected: connected
                .iter()
                .map(|(key, id)| ((*key).to_owned(), BTreeSet::from([(*id).to_owned()])))
                .collect(),
            ..Feature::default()
        }
    }

    fn everything() -> Assets {
        Assets {
            ad_account_id: Some("1".into()),
            catalog_id: Some("2".into()),
            commerce_merchant_settings_id: Some("3".into()),
            pixel_id: Some("4".into()),
            pages: BTreeSet::from(["5".into()]),
            instagram_profiles: BTreeSet::from(["6".into()]),
            ..Assets::default()
        }
    }

    const KNOWN: [&str; 16] = [
        "pixel",
        "conversions_api",
        "catalog",
        "catalog_feed_scheduled",
        "ads",
        "fb_shop",
        "page_shop",
        "page_card",
        "ig_shopping",
        "page_cta",
        "page_post",
        "messenger_chat",
        "messenger_menu",
        "thread_intent",
        "ig_cta",
        "external_client",
    ];

    #[test]
    fn with_every_asset_everything_known_is_on() {
        let features: Vec<_> = KNOWN.iter().map(|name| feature(name, &[])).collect();
        let gating = gate(&everything(), &features, &BTreeSet::new());
        assert_eq!(gating.enabled.len(), KNOWN.len());
        assert!(gating.disabled.is_empty() && gating.unknown.is_empty());
    }

    #[test]
    fn without_any_asset_only_what_needs_none_is_on() {
        let features: Vec<_> = KNOWN.iter().map(|name| feature(name, &[])).collect();
        let gating = gate(&Assets::default(), &features, &BTreeSet::new());
        assert_eq!(gating.enabled, ["external_client"]);
        assert_eq!(gating.disabled.len(), KNOWN.len() - 1);
    }

    #[test]
    fn a_missing_pixel_costs_only_what_needs_the_pixel() {
        let assets = Assets {
            pixel_id: None,
            ..everything()
        };
        let features: Vec<_> = KNOWN.iter().map(|name| feature(name, &[])).collect();
        let gating = gate(&assets, &features, &BTreeSet::new());
        let off: Vec<_> = gating.disabled.iter().map(|off| off.feature.as_str()).collect();
        assert_eq!(off, ["conversions_api", "pixel"]);
        assert!(gating.disabled.iter().all(|off| off.missing == "pixel_id"));
    }

    #[test]
    fn one_complete_instance_is_enough() {
        let features = [feature("page_cta", &[]), feature("page_cta", &[("page_id", "9")])];
        assert_eq!(
            gate(&Assets::default(), &features, &BTreeSet::new()).enabled,
            ["page_cta"]
        );
    }

    #[test]
    fn an_asset_of_another_feature_does_not_count() {
        let features = [feature("pixel", &[]), feature("catalog", &[("pixel_id", "9")])];
        let gating = gate(&Assets::default(), &features, &BTreeSet::new());
        assert_eq!(gating.enabled, Vec::<String>::new());
        assert_eq!(gating.disabled.len(), 2);
    }

    #[test]
    fn unknown_types_are_reported_and_cost_nothing() {
        let gating = gate(
            &everything(),
            &[feature("teleport", &[]), feature("ads", &[])],
            &BTreeSet::new(),
        );
        assert_eq!(gating.enabled, ["ads"]);
        assert_eq!(gating.unknown, ["teleport"]);
    }

    #[test]
    fn mixed_profiles_tell_pages_from_instagram() {
        let assets = Assets {
            profiles: BTreeSet::from(["17841400000000000".into()]),
            ..Assets::default()
        };
        let gating = gate(
            &assets,
            &[feature("page_cta", &[]), feature("ig_cta", &[])],
            &BTreeSet::new(),
        );
        assert_eq!(gating.enabled, ["ig_cta"]);
        assert_eq!(gating.disabled[0].missing, "page_id");
    }
}
