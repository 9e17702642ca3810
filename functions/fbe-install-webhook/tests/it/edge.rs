//! What arrives, how it is answered, and what is kept.

use aws_sdk_dynamodb::types::AttributeValue;
use lambda_http::{Body, Request};
use secrecy::SecretString;
use serde_json::Value;
use shared::webhook::signature::sign;
use testkit::aws::Fault;

use super::house::{House, SHOP, payload};

fn get(query: &str) -> Request {
    let uri = format!("https://host/fbe/webhook?{query}");
    let request = lambda_http::http::Request::get(&uri).body(Body::Empty).unwrap();
    let parameters: std::collections::HashMap<String, Vec<String>> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]))
        .collect();
    lambda_http::RequestExt::with_query_string_parameters(request, parameters)
}

#[tokio::test]
async fn the_handshake_asks_for_fbes_own_token() {
    let house = House::start().await;
    let query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=";
    let right = house.send(get(&format!("{query}of-fbe"))).await;
    assert_eq!(right, (200, "1158201444".to_owned()));
    assert_eq!(house.send(get(&format!("{query}v"))).await.0, 403);
    let put = lambda_http::http::Request::put("/fbe/webhook")
        .body(Body::Empty)
        .unwrap();
    assert_eq!(house.send(put).await.0, 405);
}

#[tokio::test]
async fn without_the_right_signature_nothing_is_read_or_written() {
    let house = House::start().await;
    for signature in [
        "",
        "sha256=00",
        &sign(&SecretString::from("another"), &payload("install")),
    ] {
        let request = lambda_http::http::Request::post("/fbe/webhook")
            .header("X-Hub-Signature-256", signature)
            .body(Body::Binary(payload("install")))
            .unwrap();
        assert_eq!(house.send(request).await.0, 401);
    }
    assert_eq!(house.aws.dynamodb_calls().total(), 0);
}

#[tokio::test]
async fn an_install_costs_one_read_one_secret_write_and_one_transaction() {
    let house = House::start().await;
    // The app secret comes from the warm process's cache.
    assert_eq!(house.deliver("unknown_object").await, 200);
    for (case, secret_write) in [
        ("install", "CreateSecret"),
        ("update_removes_pixel", "PutSecretValue"),
    ] {
        house.aws.reset_calls();
        assert_eq!(house.deliver(case).await, 200);
        let (dynamodb, secrets) = (house.aws.dynamodb_calls(), house.aws.secrets_manager_calls());
        assert_eq!(
            (dynamodb.of("GetItem"), dynamodb.of("TransactWriteItems")),
            (1, 1),
            "{case}"
        );
        assert_eq!(dynamodb.total(), 2, "{case}: {dynamodb:?}");
        assert_eq!(
            (secrets.of(secret_write), secrets.total()),
            (1, 1),
            "{case}: {secrets:?}"
        );
    }
    house.aws.reset_calls();
    assert_eq!(house.deliver("uninstall").await, 200);
    let secrets = house.aws.secrets_manager_calls();
    assert_eq!((secrets.of("DeleteSecret"), secrets.total()), (1, 1));
    assert_eq!(house.aws.dynamodb_calls().total(), 2);

    // A redelivery reads, and makes sure that a token which is not in force is not there.
    house.aws.reset_calls();
    assert_eq!(house.deliver("install").await, 200);
    assert_eq!(house.aws.dynamodb_calls().total(), 1);
    let secrets = house.aws.secrets_manager_calls();
    assert_eq!((secrets.of("DeleteSecret"), secrets.total()), (1, 1));

    // While the business is there, a redelivery only reads.
    assert_eq!(house.deliver("reinstall").await, 200);
    house.aws.reset_calls();
    assert_eq!(house.deliver("reinstall").await, 200);
    assert_eq!(house.aws.dynamodb_calls().total(), 1);
    assert_eq!(house.aws.secrets_manager_calls().total(), 0);
}

#[tokio::test]
async fn every_shape_of_an_install_arrives() {
    for case in [
        "install",
        "bare_value",
        "data_shape",
        "install_instagram",
        "install_without_token",
        "odd_shapes",
        "pages_as_text",
        "unknown_feature",
    ] {
        let house = House::start().await;
        assert_eq!(house.deliver(case).await, 200, "{case}");
        let installs = house.installs.scan(true, None).await.unwrap().installs;
        assert!(!installs.is_empty(), "{case}");
        for install in installs {
            let secret = house.secrets.of(&install).await.unwrap();
            assert_eq!(secret.is_some(), install.token.is_some(), "{case}");
        }
        assert!(house.pending().await >= 1, "{case}");
    }
}

#[tokio::test]
async fn what_is_signed_and_not_understood_is_kept_and_answered_200() {
    let house = House::start().await;
    for case in [
        "curly_quotes",
        "no_business_id",
        "unknown_object",
        "values_not_included",
    ] {
        assert_eq!(house.deliver(case).await, 200, "{case}");
    }
    assert_eq!(house.rows(1).await.len(), 4);
    assert!(house.rows(0).await.is_empty());
    // The dashboard's button is nothing to be alarmed about.
    assert_eq!(house.deliver("dashboard_sample").await, 200);
    assert_eq!(house.rows(1).await.len(), 4);
}

#[tokio::test]
async fn two_businesses_and_broken_items_in_one_post_lose_none() {
    let house = House::start().await;
    assert_eq!(house.deliver("two_businesses").await, 200);
    for business in ["shop-a", "shop-b"] {
        assert!(house.install(business).await.unwrap().is_installed());
    }
    let quarantined = house.rows(1).await;
    assert_eq!(
        quarantined
            .iter()
            .filter(|row| row.contains("quarantine#fbe"))
            .count(),
        3
    );
}

#[tokio::test]
async fn what_one_business_fails_with_does_not_cost_the_other() {
    let house = House::start().await;
    assert_eq!(house.deliver("unknown_object").await, 200);
    house
        .aws
        .fail_next("TransactWriteItems", 5, Fault::ServiceUnavailable);
    // Each tries three times, so the faults are enough for one of them.
    assert_eq!(house.deliver("two_businesses").await, 503);
    house.aws.clear_faults();
    let mut there = 0;
    for business in ["shop-a", "shop-b"] {
        there += usize::from(house.install(business).await.is_some());
    }
    assert_eq!(there, 1);
    assert_eq!(house.deliver("two_businesses").await, 200);
    assert!(house.install("shop-a").await.is_some() && house.install("shop-b").await.is_some());
}

#[tokio::test]
async fn whatever_is_out_of_reach_is_a_503_and_the_redelivery_completes_it() {
    let faults = [
        Fault::ServiceUnavailable,
        Fault::Throttle,
        Fault::AnswerLost,
        Fault::Timeout,
    ];
    for operation in ["GetItem", "CreateSecret", "TransactWriteItems"] {
        for fault in faults {
            if fault == Fault::Timeout && operation != "CreateSecret" {
                continue;
            }
            let house = House::start().await;
            assert_eq!(house.deliver("unknown_object").await, 200);
            house.aws.fail_next(operation, 3, fault);
            let deadline = std::time::Duration::from_secs(3);
            let answer = tokio::time::timeout(deadline, house.deliver("install")).await;
            // A call whose answer is lost may be found done by the SDK's own second try.
            let lost = fault == Fault::AnswerLost && answer == Ok(200);
            assert!(
                answer == Ok(503) || lost || answer.is_err(),
                "{operation} {fault:?}: {answer:?}"
            );
            house.aws.clear_faults();
            assert_eq!(house.deliver("install").await, 200, "{operation} {fault:?}");
            assert!(house.install(SHOP).await.unwrap().is_installed());
            assert_eq!(house.token(SHOP).await.as_deref(), Some("EAAB_install_token"));
            assert_eq!(house.pending().await, 4, "{operation} {fault:?}");
        }
    }
    for fault in faults.into_iter().take(3) {
        let house = House::start().await;
        house.deliver("install").await;
        house.aws.fail_next("DeleteSecret", 3, fault);
        house.deliver("uninstall").await;
        house.aws.clear_faults();
        assert_eq!(house.deliver("uninstall").await, 200);
        assert_eq!(
            house.token(SHOP).await,
            None,
            "{fault:?}: the redelivery deletes it"
        );
    }
}

#[tokio::test]
async fn removals_of_others_change_nothing_and_unknown_ones_expire() {
    let house = House::start().await;
    assert_eq!(house.deliver("uninstall_unknown_business").await, 200);
    let rows = house.rows(0).await;
    assert!(rows.len() == 1 && rows[0].contains("expires_at"), "{rows:?}");
    assert_eq!(house.pending().await, 0);
    house.deliver("install").await;
    house.deliver("uninstall_foreign_business_manager").await;
    assert!(house.install(SHOP).await.unwrap().is_installed());
    assert!(house.token(SHOP).await.is_some());
}

#[tokio::test]
async fn business_integration_events_are_recorded_under_their_business_manager() {
    let house = House::start().await;
    for case in [
        "business_integration_install",
        "business_integration_update",
        "business_integration_uninstall",
        "business_integration_install",
    ] {
        assert_eq!(house.deliver(case).await, 200, "{case}");
    }
    let rows = house.rows(0).await;
    assert!(
        rows.iter()
            .all(|row| row.contains("business_integration#") && !row.contains("expires_at")),
        "{rows:?}"
    );
    let recorded: usize = {
        let page = house.installs.scan(false, None).await.unwrap();
        page.installs
            .iter()
            .map(|install| install.integrations.len())
            .sum()
    };
    assert_eq!(recorded, 3, "the fourth was a redelivery");
    assert_eq!(
        house.pending().await,
        3,
        "each has the manager's businesses compared"
    );
}

#[tokio::test]
async fn an_install_that_cannot_be_read_is_left_alone_and_costs_nobody_else() {
    let house = House::start().await;
    assert_eq!(house.deliver("two_businesses").await, 200);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let update = house.aws.dynamodb().update_item().table_name(&house.tables[0]);
    let written = update
        .key("external_business_id", text("shop-a"))
        .update_expression("SET facts.#status = :status")
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":status", text("of_the_next_version"))
        .send();
    written.await.unwrap();
    assert_eq!(house.deliver("two_businesses").await, 200);
    let rows = house.rows(1).await;
    let kept: Vec<&String> = rows
        .iter()
        .filter(|row| row.contains("unreadable_install"))
        .collect();
    assert_eq!(kept.len(), 1, "{rows:?}");
    assert!(house.installs.read("shop-a").await.is_err(), "it is left alone");
}

#[tokio::test]
async fn the_same_change_twice_in_a_request_is_one() {
    let house = House::start().await;
    let mut body: Value = serde_json::from_slice(&payload("business_integration_uninstall")).unwrap();
    let change = body["entry"][0]["changes"][0].clone();
    body["entry"][0]["changes"].as_array_mut().unwrap().push(change);
    assert_eq!(house.post(body.to_string().as_bytes()).await, 200);
    assert_eq!(house.pending().await, 1);
}
