//! A process that dies at any point, and a service that fails at any call: the retry ends in the same state.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;
use shared::fbe::install::Install;
use testkit::aws::Fault;
use testkit::graph::faults;

use super::house::{CATALOG, House, SHOP};
use crate::mortal::Mortal;

/// What must not depend on a crash.
#[derive(Debug, PartialEq)]
struct End {
    install: Install,
    token_is_exchanged: bool,
    items: usize,
    dead: usize,
    changes: Vec<String>,
}

async fn end(house: &House) -> End {
    house.drain().await;
    let mut install = house.install().await;
    install.version = 0;
    install.reconciled_at = None;
    if let Some(token) = &mut install.token {
        token.version.clear();
        token.exchanged_at = None;
    }
    install.history.clear();
    let mut changes = house.changes();
    // A notice whose answer never arrived is sent again; it is the same one.
    changes.dedup();
    let token = house.token().await.unwrap_or_default();
    End {
        install,
        token_is_exchanged: token.starts_with("EAAB-system-user"),
        items: house.graph.item_count(CATALOG),
        dead: house.rows("dead").await,
        changes,
    }
}

async fn house() -> House {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/feed", listener.local_addr().unwrap());
    let feed = axum::routing::get(async || "{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
    let router = axum::Router::new().route("/feed", feed);
    tokio::spawn(async move { axum::serve(listener, router).await });
    House::with(&[("CATALOG_FEED_URL", &url)], None).await
}

async fn undisturbed() -> End {
    let house = house().await;
    house.happen("install").await;
    let end = end(&house).await;
    assert!(end.token_is_exchanged && end.install.is_installed());
    assert_eq!((end.items, end.dead, end.changes.len()), (2, 0, 1));
    end
}

#[tokio::test]
async fn a_dispatcher_that_dies_anywhere_is_made_up_for() {
    let expected = undisturbed().await;
    let mut polls = 1;
    loop {
        let house = house().await;
        house.happen("install").await;
        house.later(SignedDuration::from_secs(31));
        let until = house.clock.now() + SignedDuration::from_secs(115);
        let run = Mortal::new(house.dispatch.handle_until(json!({}), until), polls);
        let survived = run.await.is_some();
        // Until the dead process's leases have run out.
        house.later(SignedDuration::from_mins(4));
        assert_eq!(end(&house).await, expected, "died at poll {polls}");
        if survived {
            assert!(polls > 15, "the run is longer than {polls} polls");
            return;
        }
        polls += 1 + polls / 12;
    }
}

#[tokio::test]
async fn a_webhook_that_dies_anywhere_is_made_up_for_by_its_redelivery() {
    let expected = undisturbed().await;
    let mut polls = 1;
    loop {
        let house = house().await;
        house
            .graph
            .set_install(testkit::graph::Install::from_webhook(&super::house::value("install")).unwrap());
        let run = Mortal::new(house.deliver("install"), polls);
        let survived = run.await.is_some();
        assert_eq!(house.deliver("install").await, 200);
        assert_eq!(end(&house).await, expected, "died at poll {polls}");
        if survived {
            return;
        }
        polls += 1;
    }
}

#[tokio::test]
async fn every_call_to_aws_may_fail_once() {
    let expected = undisturbed().await;
    let operations = [
        "GetItem",
        "UpdateItem",
        "TransactWriteItems",
        "BatchGetItem",
        "BatchWriteItem",
        "PutItem",
        "Query",
        "GetSecretValue",
        "PutSecretValue",
    ];
    for operation in operations {
        for fault in [Fault::ServiceUnavailable, Fault::AnswerLost] {
            for calls_before in [0, 1, 3] {
                let house = Arc::new(house().await);
                house.happen("install").await;
                // As many attempts as the SDK makes.
                let begin = move |house: &House| house.aws.fail_next(operation, 3, fault);
                if calls_before == 0 {
                    begin(&house);
                } else {
                    for _ in 1..calls_before {
                        house.aws.before_next(operation, |_| Box::pin(async {}));
                    }
                    let there = Arc::downgrade(&house);
                    house.aws.before_next(operation, move |_| {
                        there.upgrade().as_deref().map(begin);
                        Box::pin(async {})
                    });
                }
                house.later(SignedDuration::from_secs(31));
                let until = house.clock.now() + SignedDuration::from_secs(115);
                drop(house.dispatch.handle_until(json!({}), until).await);
                house.aws.clear_faults();
                house.later(SignedDuration::from_mins(4));
                assert_eq!(
                    end(&house).await,
                    expected,
                    "{operation} {fault:?} after {calls_before}"
                );
            }
        }
    }
}

#[tokio::test]
async fn graph_and_braze_may_fail_at_any_call() {
    use testkit::braze::{Endpoint, faults as braze_faults};
    use testkit::graph::Edge;
    let expected = undisturbed().await;
    for edge in [
        Edge::AccessToken,
        Edge::Installs,
        Edge::ItemsBatch,
        Edge::BatchStatus,
    ] {
        for fault in [
            faults::unavailable(500),
            testkit::fault::Fault::CutBeforeProcessing,
            testkit::fault::Fault::CutAfterProcessing,
            faults::not_json(),
        ] {
            let house = house().await;
            house.graph.script(edge, fault.clone());
            house.happen("install").await;
            assert_eq!(end(&house).await, expected, "{edge:?} {fault:?}");
        }
    }
    for fault in [
        braze_faults::unavailable(503),
        testkit::fault::Fault::CutBeforeProcessing,
        testkit::fault::Fault::CutAfterProcessing,
    ] {
        let house = house().await;
        house.braze.script(Endpoint::Track, fault.clone());
        house.happen("install").await;
        assert_eq!(end(&house).await, expected, "{fault:?}");
    }
    assert_eq!(expected.install.business_id, SHOP);
}
