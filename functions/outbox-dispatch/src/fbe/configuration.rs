//! Which installed features are switched off in Meta's configuration of the business.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use shared::fbe::features::Feature;
use shared::json;

/// The installed features that Meta's configuration (`fbe_business`) says are not enabled, as [`Feature::key`]s.
///
/// The configuration has a feature under its type (`page_cta`) and a list of its instances under the plural
/// (`page_ctas`). What it says of the very instance counts; a feature that is off stands there without an instance.
/// What it does not mention is not switched off.
pub(super) fn switched_off(features: &[Feature], configuration: &Map<String, Value>) -> BTreeSet<String> {
    let is_off = |feature: &&Feature| {
        let plural = format!("{}s", feature.feature_type);
        let entries = [feature.feature_type.as_str(), plural.as_str()]
            .into_iter()
            .filter_map(|key| configuration.get(key))
            .flat_map(|entry| {
                entry
                    .as_array()
                    .map_or(std::slice::from_ref(entry), Vec::as_slice)
            });
        let (mut own, mut all) = (None, None);
        for entry in entries {
            let Some(enabled) = json::member(entry, "enabled").boolean() else {
                continue;
            };
            match json::member(entry, "feature_instance_id").id() {
                Some(instance) if Some(&instance) == feature.instance_id.as_ref() => {
                    own = Some(own.unwrap_or(true) && enabled);
                }
                Some(_) => {}
                None => all = Some(all.unwrap_or(true) && enabled),
            }
        }
        own.or(all) == Some(false)
    };
    features.iter().filter(is_off).map(Feature::key).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn feature(feature_type: &str, instance: &str) -> Feature {
        Feature {
            feature_type: feature_type.to_owned(),
            instance_id: (!instance.is_empty()).then(|| instance.to_owned()),
            ..Feature::default()
        }
    }

    fn off(feature_type: &str, instance: &str, configuration: Value) -> bool {
        let Value::Object(configuration) = configuration else {
            panic!("a configuration is an object")
        };
        !switched_off(&[feature(feature_type, instance)], &configuration).is_empty()
    }

    #[test]
    fn what_is_said_of_the_instance_counts_under_either_key() {
        for key in ["pixels", "pixel"] {
            for (enabled, expected) in [
                (json!(true), false),
                (json!(false), true),
                (json!("false"), true),
                (json!(0), true),
                (json!("on"), false),
                (json!(null), false),
            ] {
                let entry = json!({"feature_instance_id": 1, "enabled": enabled});
                assert_eq!(
                    off("pixel", "1", json!({key: [entry]})),
                    expected,
                    "{key} {entry}"
                );
                assert_eq!(off("pixel", "1", json!({key: entry})), expected, "{key} {entry}");
            }
        }
    }

    #[test]
    fn a_feature_that_is_off_stands_there_without_an_instance() {
        assert!(off("ig_cta", "1", json!({"ig_cta": {"enabled": false}})));
        assert!(off("ig_cta", "", json!({"ig_cta": {"enabled": false}})));
        let on =
            json!({"ig_cta": {"enabled": false}, "ig_ctas": [{"feature_instance_id": "1", "enabled": true}]});
        assert!(!off("ig_cta", "1", on));
    }

    #[test]
    fn what_is_not_mentioned_is_not_switched_off() {
        for silent in [
            json!({}),
            json!({"pixels": []}),
            json!({"pixels": [{"feature_instance_id": "2", "enabled": false}]}),
            json!({"pixels": [{"feature_instance_id": "1"}]}),
            json!({"pixels": "off"}),
            json!({"catalogs": [{"enabled": false}]}),
        ] {
            assert!(!off("pixel", "1", silent.clone()), "{silent}");
        }
    }
}
