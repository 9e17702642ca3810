//! A business that has installed the app.

use secrecy::SecretString;
use serde_json::{Map, Value, json};

/// An install: the business, its token, and what the installs API says of it.
#[derive(Debug, Clone)]
pub struct Install {
    pub(super) business: String,
    pub(super) access_token: SecretString,
    pub(super) data: Value,
}

impl Install {
    /// `business` is the external business id, `data` one element of the installs API's `data`. That API tells neither
    /// the business's id nor its token.
    #[must_use]
    pub fn new(business: &str, access_token: &str, data: Value) -> Self {
        Self {
            business: business.to_owned(),
            access_token: access_token.into(),
            data,
        }
    }

    /// An install with a page, a pixel, a catalog and a shop, as recorded from Graph in Meta's own tests
    /// (facebook-for-woocommerce, `tests/Unit/ApiTest.php`). It has no ad account, which Graph writes as `"0"`.
    #[must_use]
    pub fn recorded(business: &str, access_token: &str) -> Self {
        let feature = |id: &str, kind: &str, assets: Value| {
            json!({
                "feature_instance_id": id,
                "feature_type": kind,
                "connected_assets": assets,
                "additional_info": {"onsite_eligible": false},
            })
        };
        let (page, pixel, catalog) = ("101332922643063", "1964583793745557", "726635365295186");
        let shop = "1118975075354165";
        let features = [
            feature(
                "762898101511280",
                "pixel",
                json!({"page_id": page, "pixel_id": pixel}),
            ),
            feature(
                "562415265365817",
                "catalog",
                json!({"catalog_id": catalog, "page_id": page, "pixel_id": pixel}),
            ),
            feature(
                "554457382898066",
                "fb_shop",
                json!({"catalog_id": catalog, "commerce_merchant_settings_id": shop, "page_id": page}),
            ),
        ];
        let data = json!({
            "business_manager_id": "973766133343161",
            "commerce_merchant_settings_id": shop,
            "onsite_eligible": false,
            "pixel_id": pixel,
            "profiles": [page],
            "ad_account_id": "0",
            "catalog_id": catalog,
            "pages": [page],
            "token_type": "User",
            "installed_features": features,
        });
        Self::new(business, access_token, data)
    }

    /// The install that an `fbe_install` webhook's value tells of, as Graph would report it afterwards. `None` if the
    /// value names no business or no token.
    #[must_use]
    pub fn from_webhook(value: &Value) -> Option<Self> {
        let mut data = value.as_object()?.clone();
        let mut take = |name: &str| data.remove(name)?.as_str().map(str::to_owned);
        let (business, token) = (take("business_id")?, take("access_token")?);
        data.remove("fbe_event");
        data.remove("flow");
        Some(Self::new(&business, &token, data.into()))
    }

    /// The feature configuration right after the install: what was installed is on, the rest off.
    pub(super) fn configuration(&self) -> Value {
        const OFF: [&str; 8] = [
            "catalog_feed_scheduled",
            "ig_cta",
            "ig_shopping",
            "page_card",
            "page_cta",
            "page_post",
            "page_shop",
            "thread_intent",
        ];
        let mut configuration = Map::new();
        configuration.insert("business".to_owned(), json!({"name": "WordPress-Facebook"}));
        for key in OFF {
            configuration.insert(key.to_owned(), json!({"enabled": false}));
        }
        let features = self.data.get("installed_features").and_then(Value::as_array);
        for feature in features.into_iter().flatten() {
            let text = |name: &str| feature.get(name).and_then(Value::as_str).unwrap_or_default();
            let key = match text("feature_type") {
                "ads" => "ads".to_owned(),
                kind => format!("{kind}s"),
            };
            let instance = json!({"feature_instance_id": text("feature_instance_id"), "enabled": true});
            if let Some(instances) = configuration
                .entry(key)
                .or_insert_with(|| json!([]))
                .as_array_mut()
            {
                instances.push(instance);
            }
        }
        configuration.into()
    }
}
