//! What the partner's platform sees of an install: in the notices that are posted to it, and in the answers to
//! `GET /fbe/installs`. Never a token, and no claims: those are the operator's.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::asset::Assets;
use super::features::{AdditionalInfo, Disabled, Feature};
use super::install::{Change, Install, Status};

/// An install as the partner's platform sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstallView {
    /// External business id.
    pub business: String,
    /// What happened last.
    pub change: Option<Change>,
    /// Feature types that are on.
    pub enabled: Vec<String>,
    /// Feature types that are off, and what each lacks.
    pub disabled: Vec<Disabled>,
    /// Ids of what is granted.
    pub assets: Assets,
    /// The business's pixel.
    pub pixel_id: Option<String>,
    /// Whether the app is installed.
    pub status: InstallStatus,
    /// What only the read route answers.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
}

/// Whether the app is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallStatus {
    /// It is.
    Active,
    /// It was removed.
    Uninstalled,
}

/// What the read route answers beyond the notice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// Every instance of an installed feature.
    pub features: Vec<FeatureView>,
    /// Whether Graph takes the token.
    pub token_state: TokenCondition,
    /// When Graph was asked last.
    pub reconciled_at: Option<Timestamp>,
}

/// One instance of an installed feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureView {
    /// Feature type.
    pub feature: String,
    /// `feature_instance_id`
    pub instance_id: Option<String>,
    /// `feature_name`
    pub name: Option<String>,
    /// `connected_assets`: kind of asset and ids.
    pub connected_assets: BTreeMap<String, Vec<String>>,
    /// `additional_info`
    pub additional_info: AdditionalInfo,
}

/// Whether Graph takes the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenCondition {
    /// It does, as far as is known.
    Valid,
    /// It refuses it.
    Invalid,
    /// There is none.
    None,
}

impl InstallView {
    /// What a notice says of an install.
    #[must_use]
    pub fn of_notice(install: &Install, change: Change, enabled: &[String], disabled: &[Disabled]) -> Self {
        Self {
            business: install.business_id.clone(),
            change: Some(change),
            enabled: enabled.to_vec(),
            disabled: disabled.to_vec(),
            assets: install.assets.clone(),
            pixel_id: install.assets.pixel_id.clone(),
            status: if install.is_installed() {
                InstallStatus::Active
            } else {
                InstallStatus::Uninstalled
            },
            detail: None,
        }
    }

    /// What the read route answers about an install.
    #[must_use]
    pub fn of(install: &Install) -> Self {
        let gating = install.gating();
        let change = install.history.last().map(|entry| entry.change);
        Self {
            change,
            detail: Some(Detail {
                features: install.features.iter().map(FeatureView::of).collect(),
                token_state: match (&install.token, install.status) {
                    (None, _) => TokenCondition::None,
                    (Some(_), Status::TokenInvalid) => TokenCondition::Invalid,
                    (Some(_), _) => TokenCondition::Valid,
                },
                reconciled_at: install.reconciled_at,
            }),
            ..Self::of_notice(install, Change::Updated, &gating.enabled, &gating.disabled)
        }
    }
}

impl FeatureView {
    fn of(feature: &Feature) -> Self {
        Self {
            feature: feature.feature_type.clone(),
            instance_id: feature.instance_id.clone(),
            name: feature.name.clone(),
            connected_assets: feature
                .connected
                .iter()
                .map(|(kind, ids)| (kind.clone(), ids.iter().cloned().collect()))
                .collect(),
            additional_info: feature.additional.clone(),
        }
    }
}
