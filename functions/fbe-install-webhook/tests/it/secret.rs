//! Tokens: where they are, and where they must not be.

use std::sync::Arc;

use testkit::aws::Fault;
use testkit::logged::Logged;

use super::house::{House, SHOP, payload, signed, signed_body};

#[tokio::test]
async fn a_secret_is_restored_inside_its_recovery_window() {
    let house = House::start().await;
    for case in ["install", "uninstall"] {
        assert_eq!(house.deliver(case).await, 200);
    }
    assert_eq!(house.token(SHOP).await, None);
    assert_eq!(house.deliver("reinstall").await, 200);
    assert_eq!(house.token(SHOP).await.as_deref(), Some("EAAB_reinstall_token"));
    // An old removal that is delivered once more leaves it alone.
    assert_eq!(house.deliver("uninstall").await, 200);
    assert_eq!(house.token(SHOP).await.as_deref(), Some("EAAB_reinstall_token"));
}

#[tokio::test]
async fn a_removal_that_comes_while_the_token_is_written_takes_the_token_too() {
    let house = Arc::new(House::start().await);
    let other = House::rival(&house);
    house.aws.before_next("TransactWriteItems", move |_| {
        Box::pin(async move {
            let status = other.handle(signed("uninstall")).await.status();
            assert_eq!(status, 200);
        })
    });
    assert_eq!(house.deliver("install").await, 200);
    assert!(!house.install(SHOP).await.unwrap().is_installed());
    assert_eq!(house.token(SHOP).await, None);
    assert_eq!(house.pending().await, 0);
}

#[tokio::test]
async fn a_token_whose_install_was_never_committed_goes_with_the_removal() {
    let house = House::start().await;
    house
        .aws
        .fail_next("TransactWriteItems", 9, Fault::ServiceUnavailable);
    assert_eq!(house.deliver("install").await, 503);
    house.aws.clear_faults();
    assert!(house.token(SHOP).await.is_some());
    assert_eq!(house.deliver("uninstall").await, 200);
    assert_eq!(house.token(SHOP).await, None);
    assert_eq!(house.deliver("install").await, 200, "Meta delivers it again");
    assert_eq!(house.token(SHOP).await, None);
}

#[tokio::test]
async fn a_token_that_a_failed_reinstall_restored_goes_with_the_next_removal() {
    let house = House::start().await;
    for case in ["install", "uninstall"] {
        assert_eq!(house.deliver(case).await, 200);
    }
    house
        .aws
        .fail_next("TransactWriteItems", 9, Fault::ServiceUnavailable);
    assert_eq!(house.deliver("reinstall").await, 503);
    house.aws.clear_faults();
    assert!(house.token(SHOP).await.is_some());
    // Later than the reinstall.
    let removal = String::from_utf8(payload("uninstall")).unwrap();
    let removal = removal.replace("1795254000", "1795254700");
    assert_eq!(house.post(removal.as_bytes()).await, 200);
    assert_eq!(house.token(SHOP).await, None);
}

#[tokio::test]
async fn a_deletion_that_failed_is_made_up_for_by_the_installs_redelivery() {
    let house = Arc::new(House::start().await);
    assert_eq!(house.deliver("unknown_object").await, 200);
    let other = House::rival(&house);
    let there = Arc::downgrade(&house);
    house.aws.before_next("CreateSecret", move |_| {
        Box::pin(async move {
            assert_eq!(other.handle(signed("uninstall")).await.status(), 200);
            // The install's own deletion, once it has lost.
            if let Some(house) = there.upgrade() {
                house.aws.fail_next("DeleteSecret", 9, Fault::Throttle);
            }
        })
    });
    assert_eq!(house.deliver("install").await, 503);
    house.aws.clear_faults();
    assert!(house.token(SHOP).await.is_some());
    assert_eq!(house.deliver("install").await, 200);
    assert_eq!(house.token(SHOP).await, None);
}

#[tokio::test]
async fn no_token_reaches_a_table_or_a_log() {
    let logged = Logged::begin().unwrap();
    let house = House::start().await;
    for case in [
        "install",
        "update_removes_pixel",
        "curly_quotes",
        "uninstall",
        "reinstall",
        "odd_shapes",
    ] {
        house.deliver(case).await;
    }
    house
        .aws
        .fail_next("PutSecretValue", 3, Fault::ServiceUnavailable);
    house.deliver("install_instagram").await;
    house.aws.clear_faults();
    let logged = logged.take();
    assert!(logged.contains("an install webhook was taken in"), "{logged}");
    assert!(!logged.contains("EAAB"), "{logged}");
    for table in 0..2 {
        for row in house.rows(table).await {
            assert!(!row.contains("EAAB"), "{row}");
        }
    }
}

#[tokio::test]
async fn the_token_of_an_owner_that_becomes_a_claim_stays_readable() {
    let house = House::start().await;
    assert_eq!(house.deliver("install_other_manager").await, 200);
    let first = house.install(SHOP).await.unwrap().token.unwrap().version;
    // Whatever keeps its version from getting a label: without one Secrets Manager would remove it.
    for fault in [Fault::ServiceUnavailable, Fault::Throttle] {
        house.aws.fail_next("UpdateSecretVersionStage", 9, fault);
        assert_eq!(house.deliver("install").await, 503, "{fault:?}");
        house.aws.clear_faults();
    }
    assert_eq!(house.deliver("install").await, 200);
    let versions = house.aws.secrets_manager().describe_secret();
    let versions = versions.secret_id("local/fbe/shop-42-unique-id").send().await;
    let labels = versions.unwrap().version_ids_to_stages.unwrap();
    let mut of_first = labels[&first].iter();
    assert!(of_first.any(|label| label.starts_with("manager-")), "{labels:?}");
}

#[tokio::test]
async fn a_newer_token_of_an_owner_that_becomes_a_claim_keeps_the_label() {
    let house = Arc::new(House::start().await);
    assert_eq!(house.deliver("install_other_manager").await, 200);
    let other = House::rival(&house);
    // Another process takes in a newer one just before the older one is kept.
    house.aws.before_next("UpdateSecretVersionStage", move |_| {
        Box::pin(async move {
            let newer = String::from_utf8(payload("install_other_manager")).unwrap();
            let newer = newer.replace("1795252000", "1795252001");
            let newer = newer.replace("EAAB_other_manager_token", "EAAB_newer_token");
            assert_eq!(other.handle(signed_body(newer.into_bytes())).await.status(), 200);
        })
    });
    assert_eq!(house.deliver("install").await, 200);
    let claim = house.install(SHOP).await.unwrap().claims()[0].token.clone();
    let claim = house
        .aws
        .secrets_manager()
        .get_secret_value()
        .version_id(claim.unwrap().version);
    let claim = claim
        .secret_id("local/fbe/shop-42-unique-id")
        .send()
        .await
        .unwrap();
    assert!(claim.secret_string.unwrap().contains("EAAB_newer_token"));
}
