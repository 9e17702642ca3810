//! Reads assets and features out of JSON in every shape in which Meta and its bridges write them.
//!
//! `"0"`, `""` and null mean "none"; ids are strings or numbers; lists may be missing, null, a single id or
//! a string. What cannot be read is left out: it never costs what stands next to it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::asset::Assets;
use super::features::{AdditionalInfo, Feature};
use super::redact;
use crate::json::{self, Scalar};

/// Longer ids are not Meta's, and would not fit the keys of an index.
const MAX_ID_BYTES: usize = 256;

/// What a webhook or Graph says is granted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Granted {
    /// Ids of what is granted.
    pub assets: Assets,
    /// Installed features.
    pub features: Vec<Feature>,
    /// Top-level `onsite_eligible`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onsite_eligible: Option<bool>,
}

/// An id, or `None` if it stands for "none".
#[must_use]
pub fn id(value: &Value) -> Option<String> {
    let id = Scalar::from(value.get("id").unwrap_or(value)).id()?;
    let none = id == "0" || id.eq_ignore_ascii_case("null") || id.len() > MAX_ID_BYTES;
    // A token in the place of an id would be stored and logged as one.
    let token = redact::text(&id) != id;
    (!none && !token).then_some(id)
}

/// Lists and objects come as JSON text too: what the text holds then, else the value itself.
#[must_use]
pub fn unwrapped(value: &Value) -> Cow<'_, Value> {
    match value.as_str().map(|text| json::read(text.as_bytes())) {
        Some(Ok(inner @ (Value::Array(_) | Value::Object(_)))) => Cow::Owned(inner),
        _ => Cow::Borrowed(value),
    }
}

/// A list of ids. Text is taken as a list only where it is one: JSON, or digits.
#[must_use]
pub fn ids(value: &Value) -> BTreeSet<String> {
    let value = unwrapped(value);
    match value.get("data").filter(|data| data.is_array()).unwrap_or(&value) {
        Value::Array(items) => items.iter().filter_map(id).collect(),
        Value::String(text) if !text.bytes().all(|byte| byte.is_ascii_digit()) => BTreeSet::new(),
        _ => id(&value).into_iter().collect(),
    }
}

/// What one object says is granted: a webhook's `value` or one member of Graph's `data`.
#[must_use]
pub fn granted(value: &Map<String, Value>) -> Granted {
    let features = features(value.get("installed_features"));
    Granted {
        assets: assets(value, &features),
        onsite_eligible: value
            .get("onsite_eligible")
            .or_else(|| value.get("onsite_commerce_eligible"))
            .and_then(|eligible| Scalar::from(eligible).boolean()),
        features,
    }
}

/// Graph's whole answer to `fbe_installs` as one grant; `None` if it lists no install. The first object
/// that knows an asset decides; lists and features are united.
#[must_use]
pub fn installs(data: &[Value]) -> Option<Granted> {
    let mut objects = data.iter().filter_map(Value::as_object).map(granted);
    let mut all = objects.next()?;
    for more in objects {
        let (to, from) = (&mut all.assets, more.assets);
        to.business_manager_id = to.business_manager_id.take().or(from.business_manager_id);
        to.ad_account_id = to.ad_account_id.take().or(from.ad_account_id);
        to.catalog_id = to.catalog_id.take().or(from.catalog_id);
        to.commerce_merchant_settings_id = to
            .commerce_merchant_settings_id
            .take()
            .or(from.commerce_merchant_settings_id);
        to.commerce_partner_integration_id = to
            .commerce_partner_integration_id
            .take()
            .or(from.commerce_partner_integration_id);
        to.pixel_id = to.pixel_id.take().or(from.pixel_id);
        to.pages.extend(from.pages);
        to.instagram_profiles.extend(from.instagram_profiles);
        to.profiles.extend(from.profiles);
        all.onsite_eligible = all.onsite_eligible.or(more.onsite_eligible);
        for feature in more.features {
            if !all.features.contains(&feature) {
                all.features.push(feature);
            }
        }
    }
    sort(&mut all.features);
    Some(all)
}

/// The order in which features arrive means nothing; one order makes them comparable.
fn sort(features: &mut [Feature]) {
    features.sort_by(|a, b| (&a.feature_type, &a.instance_id).cmp(&(&b.feature_type, &b.instance_id)));
}

fn assets(value: &Map<String, Value>, features: &[Feature]) -> Assets {
    let top = |name: &str| value.get(name).and_then(id);
    let connected = |owner: &str, name: &str| {
        features
            .iter()
            .filter(|feature| feature.feature_type == owner)
            .find_map(|feature| feature.connected.get(name)?.first().cloned())
    };
    let everywhere = |name: &str| -> BTreeSet<String> {
        features
            .iter()
            .filter_map(|feature| feature.connected.get(name))
            .flatten()
            .cloned()
            .collect()
    };
    let list = |name: &str| value.get(name).map(ids).unwrap_or_default();
    let mut pages = list("pages");
    pages.extend(everywhere("page_id"));
    let mut instagram_profiles = list("instagram_profiles");
    instagram_profiles.extend(everywhere("ig_profile_id"));
    // The feature that owns an asset is asked before the top level, which has been seen to lag behind.
    Assets {
        business_manager_id: top("business_manager_id")
            .or_else(|| everywhere("business_manager_id").into_iter().next()),
        ad_account_id: connected("ads", "ad_account_id")
            .or_else(|| top("ad_account_id"))
            .map(|id| id.strip_prefix("act_").map_or(id.clone(), str::to_owned)),
        catalog_id: connected("catalog", "catalog_id")
            .or_else(|| top("catalog_id"))
            .or_else(|| {
                ["fb_shop", "ig_shopping", "page_shop"]
                    .iter()
                    .find_map(|owner| connected(owner, "catalog_id"))
            }),
        commerce_merchant_settings_id: connected("fb_shop", "commerce_merchant_settings_id")
            .or_else(|| top("commerce_merchant_settings_id"))
            .or_else(|| connected("ig_shopping", "commerce_merchant_settings_id")),
        commerce_partner_integration_id: top("commerce_partner_integration_id"),
        pixel_id: connected("pixel", "pixel_id").or_else(|| top("pixel_id")),
        pages,
        instagram_profiles,
        profiles: list("profiles"),
    }
}

fn features(value: Option<&Value>) -> Vec<Feature> {
    let items = value.map(unwrapped);
    let items = items.as_deref().and_then(Value::as_array).into_iter().flatten();
    let mut features: Vec<Feature> = items.filter_map(Value::as_object).filter_map(feature).collect();
    sort(&mut features);
    // A repeated instance says nothing new.
    features.dedup();
    features
}

fn feature(value: &Map<String, Value>) -> Option<Feature> {
    let feature_type = value.get("feature_type")?.as_str()?.trim().to_ascii_lowercase();
    (!feature_type.is_empty()).then(|| Feature {
        feature_type: redact::text(&feature_type),
        instance_id: value.get("feature_instance_id").and_then(id),
        name: value
            .get("feature_name")
            .and_then(Value::as_str)
            .map(redact::text)
            .filter(|name| !name.is_empty()),
        connected: connected(value.get("connected_assets")),
        additional: additional(value.get("additional_info")),
    })
}

/// Documented as a list, recorded as an object; some send it as text.
fn objects(value: Option<&Value>) -> Vec<Map<String, Value>> {
    let value = value.map(unwrapped);
    match value.as_deref() {
        Some(Value::Object(members)) => vec![members.clone()],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_object).cloned().collect(),
        _ => Vec::new(),
    }
}

fn connected(value: Option<&Value>) -> BTreeMap<String, BTreeSet<String>> {
    let mut connected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in objects(value).into_iter().flatten() {
        let found = match &value {
            Value::Array(_) | Value::Object(_) => ids(&value),
            single => id(single).into_iter().collect(),
        };
        if !found.is_empty() && !name.contains("token") {
            connected.entry(redact::text(&name)).or_default().extend(found);
        }
    }
    connected
}

fn additional(value: Option<&Value>) -> AdditionalInfo {
    let mut info = AdditionalInfo::default();
    let found = objects(value);
    if found.is_empty()
        && let Some(text) = value
            .and_then(Value::as_str)
            .filter(|text| !text.trim().is_empty())
    {
        info.other
            .insert("text".to_owned(), Value::from(redact::text(text)));
    }
    for (name, value) in found.into_iter().flatten() {
        match name.as_str() {
            "onsite_eligible" | "onsite_commerce_eligible" => {
                info.onsite_eligible = Scalar::from(&value).boolean().or(info.onsite_eligible);
            }
            "shop_status" => match redact::value(&value) {
                Value::String(status) => info.shop_status.push(status),
                Value::Array(items) => info
                    .shop_status
                    .extend(items.iter().filter_map(Value::as_str).map(str::to_owned)),
                _ => {}
            },
            "shop_status_info" => match redact::value(&value) {
                Value::Array(items) => info.shop_status_info.extend(items),
                Value::Null => {}
                other => info.shop_status_info.push(other),
            },
            _ => {
                if let Value::Object(kept) = redact::value(&Value::from_iter([(name, value)])) {
                    info.other.extend(kept);
                }
            }
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Granted {
        granted(value.as_object().unwrap())
    }

    #[test]
    fn what_stands_for_none_is_none() {
        for none in [
            json!("0"),
            json!(""),
            json!(" "),
            json!(null),
            json!(0),
            json!([]),
            json!("x".repeat(300)),
        ] {
            assert_eq!(id(&none), None, "{none}");
        }
        assert_eq!(id(&json!(12345)), Some("12345".into()));
        assert_eq!(id(&json!({"id": "7"})), Some("7".into()));
    }

    #[test]
    fn lists_are_read_in_every_recorded_shape() {
        for (value, expected) in [
            (json!(null), vec![]),
            (json!("x"), vec![]),
            (json!("12"), vec!["12"]),
            (json!("[\"1\",2]"), vec!["1", "2"]),
            (json!(["1", 2, "0", null, {"id": 3}]), vec!["1", "2", "3"]),
            (json!({"data": [{"id": "9"}]}), vec!["9"]),
        ] {
            assert_eq!(ids(&value).into_iter().collect::<Vec<_>>(), expected, "{value}");
        }
    }

    #[test]
    fn the_pixel_of_the_pixel_feature_is_taken_before_a_stale_one() {
        let granted = read(&json!({
            "pixel_id": "old",
            "installed_features": [
                {"feature_type": "ads", "connected_assets": {"pixel_id": "other"}},
                {"feature_type": "PIXEL", "connected_assets": [{"page_id": "1"}, {"pixel_id": "new"}]}
            ]
        }));
        assert_eq!(granted.assets.pixel_id.as_deref(), Some("new"));
        let without = read(&json!({
            "pixel_id": "old",
            "installed_features": [{"feature_type": "ads", "connected_assets": {"pixel_id": "other"}}]
        }));
        assert_eq!(without.assets.pixel_id.as_deref(), Some("old"));
    }

    #[test]
    fn additional_info_is_read_as_object_list_and_text() {
        let expected = AdditionalInfo {
            onsite_eligible: Some(true),
            shop_status: vec!["active".into()],
            shop_status_info: vec![json!("fine")],
            other: Map::new(),
        };
        for value in [
            json!({"onsite_eligible": "true", "shop_status": "active", "shop_status_info": "fine"}),
            json!([{"onsite_commerce_eligible": true}, {"shop_status": ["active"]}, {"shop_status_info": ["fine"]}]),
            json!(
                "[{\"onsite_eligible\":1},{\"shop_status\":[\"active\"]},{\"shop_status_info\":[\"fine\"]}]"
            ),
        ] {
            assert_eq!(additional(Some(&value)), expected, "{value}");
        }
        let text = additional(Some(&json!("under review")));
        assert_eq!(text.other["text"], "under review");
    }

    #[test]
    fn an_installs_answer_without_top_level_assets_is_complete() {
        let answer = [json!({"installed_features": [
            {"feature_type": "fb_shop", "connected_assets":
                {"catalog_id": "c", "commerce_merchant_settings_id": "m", "page_id": "p", "business_manager_id": "b"}}]})];
        let assets = installs(&answer).unwrap().assets;
        assert_eq!(assets.catalog_id.as_deref(), Some("c"));
        assert_eq!(assets.commerce_merchant_settings_id.as_deref(), Some("m"));
        assert_eq!(assets.business_manager_id.as_deref(), Some("b"));
        assert!(assets.pages.contains("p"));
        assert_eq!(installs(&[]), None);
    }

    #[test]
    fn ad_accounts_lose_their_prefix() {
        let granted = read(&json!({"ad_account_id": "act_12"}));
        assert_eq!(granted.assets.ad_account_id.as_deref(), Some("12"));
    }
}
