//! What the partner's platform may read.

use lambda_http::{Body, Request, RequestExt};
use serde_json::{Value, json};

use super::house::{House, SHOP};

const PIXEL: &str = "1964583793745557";

fn get(path: &str, token: Option<&str>) -> Request {
    let mut request = lambda_http::http::Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::Empty).unwrap();
    let query = path.split_once('?').map(|(_, query)| query.to_owned());
    let parameters = query.into_iter().flat_map(|query| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]))
            .collect::<Vec<_>>()
    });
    request.with_query_string_parameters(parameters.collect::<std::collections::HashMap<_, _>>())
}

async fn read(house: &House, path: &str) -> (u16, Value) {
    let (status, body) = house.send(get(path, Some("reader"))).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn an_install_is_read_without_its_tokens() {
    let house = House::start().await;
    house.deliver("install").await;
    house.deliver("install_other_manager").await;
    let (status, install) = read(&house, "/fbe/installs/shop-42-unique-id").await;
    assert_eq!(status, 200);
    assert_eq!(
        (&install["business"], &install["status"]),
        (&json!(SHOP), &json!("active"))
    );
    assert_eq!(
        (&install["token_state"], &install["reconciled_at"]),
        (&json!("valid"), &json!(null))
    );
    assert_eq!(install["enabled"], json!(["ads", "catalog", "fb_shop", "pixel"]));
    assert_eq!(install["pixel_id"], PIXEL);
    assert_eq!(install["change"], "installed");
    let shop = &install["features"][2];
    assert_eq!(
        (&shop["feature"], &shop["additional_info"]["shop_status"]),
        (&json!("fb_shop"), &json!(["active"]))
    );
    let shown = install.to_string();
    // Nor whom else has claimed it, nor who the person was.
    for hidden in ["EAAB", "864422002200113", "1234567890", "source", "version"] {
        assert!(!shown.contains(hidden), "{hidden}: {shown}");
    }

    house.deliver("uninstall_other_manager").await;
    house.deliver("uninstall").await;
    let (status, install) = read(&house, "/fbe/installs/shop-42-unique-id").await;
    assert_eq!(status, 200);
    assert_eq!(
        (&install["status"], &install["token_state"]),
        (&json!("uninstalled"), &json!("none"))
    );
    assert_eq!(
        (&install["features"], &install["change"]),
        (&json!([]), &json!("uninstalled"))
    );
}

#[tokio::test]
async fn who_is_not_known_is_not_found() {
    let house = House::start().await;
    house.deliver("uninstall_unknown_business").await;
    house.deliver("business_integration_install").await;
    for business in [
        "nobody",
        "gone-shop",
        "business_integration%23973766133343161",
        "%2e%2e",
        "a%2Fb",
        "%ff",
    ] {
        let (status, body) = read(&house, &format!("/fbe/installs/{business}")).await;
        assert_eq!(
            (status, &body["error"]),
            (404, &json!("install_unknown")),
            "{business}"
        );
    }
}

#[tokio::test]
async fn a_pixel_leads_to_its_business() {
    let house = House::start().await;
    house.deliver("install").await;
    let found = async |query: &str| read(&house, &format!("/fbe/installs{query}")).await;
    let (status, body) = found(&format!("?pixel_id={PIXEL}")).await;
    assert_eq!((status, &body["installs"][0]["business"]), (200, &json!(SHOP)));
    // Nobody's, and one that a claim holds.
    house.deliver("install_other_manager").await;
    for pixel in ["7", "2075694804856668"] {
        assert_eq!(
            found(&format!("?pixel_id={pixel}")).await,
            (200, json!({"installs": []}))
        );
    }
    for query in ["", "?pixel_id=", "?pixel=1"] {
        let (status, body) = found(query).await;
        assert_eq!(
            (status, &body["error"]),
            (400, &json!("field_invalid")),
            "{query}"
        );
    }
    // Of two businesses the one that was granted it last comes first.
    let other = String::from_utf8(super::house::payload("install")).unwrap();
    let other = other.replace(SHOP, "shop-43").replace("1795251600", "1795251700");
    house.post(other.as_bytes()).await;
    let (_, body) = found(&format!("?pixel_id={PIXEL}")).await;
    let businesses: Vec<&Value> = body["installs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["business"])
        .collect();
    assert_eq!(businesses, ["shop-43", SHOP]);
}

#[tokio::test]
async fn only_the_token_opens_and_it_can_be_rotated() {
    let house = House::start().await;
    house.deliver("install").await;
    let path = "/fbe/installs/shop-42-unique-id";
    for token in [None, Some(""), Some("wrong"), Some("reader2")] {
        for path in [path, "/fbe/installs", "/fbe/installs/nobody"] {
            let (status, body) = house.send(get(path, token)).await;
            assert_eq!(status, 401, "{token:?} {path}: {body}");
            assert!(!body.contains("reader"));
        }
    }
    house
        .write_partner(
            json!({"api_token": "fresh", "previous_api_token": "reader", "signing_secret": "whsec_x"}),
        )
        .await;
    for token in ["reader", "fresh"] {
        house.later(jiff::SignedDuration::from_mins(6));
        assert_eq!(house.send(get(path, Some(token))).await.0, 200, "{token}");
    }
    house
        .write_partner(json!({"api_token": "", "signing_secret": ""}))
        .await;
    house.later(jiff::SignedDuration::from_mins(6));
    assert_eq!(
        house.send(get(path, Some("reader"))).await.0,
        503,
        "an empty token opens nothing"
    );
}

#[tokio::test]
async fn other_methods_and_a_store_that_is_down_are_said() {
    let house = House::start().await;
    let post = lambda_http::http::Request::post("/fbe/installs")
        .body(Body::Empty)
        .unwrap();
    assert_eq!(house.send(post).await.0, 405);
    house
        .aws
        .fail_next("GetItem", 9, testkit::aws::Fault::ServiceUnavailable);
    let (status, body) = read(&house, "/fbe/installs/shop-42-unique-id").await;
    assert_eq!((status, &body["error"]), (503, &json!("store_unavailable")));
    house.aws.clear_faults();
}
