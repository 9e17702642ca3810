//! The partner's platform is told.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::json;
use testkit::fault::{Answer, Fault};
use testkit::partner::FakePartner;
use testkit::time::PATIENCE;

use super::house::{House, SHOP, SIGNING_SECRET};

async fn told() -> (House, FakePartner) {
    let partner = FakePartner::start(SIGNING_SECRET, true).await.unwrap();
    let house = House::with(&[("PARTNER_WEBHOOK_URL", &partner.url())], None).await;
    (house, partner)
}

fn changes(partner: &FakePartner) -> Vec<String> {
    let notices = partner.notices().into_iter();
    notices
        .map(|notice| notice.body["data"]["change"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn it_is_told_what_the_business_is_told_with_its_assets_and_without_its_token() {
    let (house, partner) = told().await;
    house.happen("install").await;
    house.drain().await;
    house.happen("update_removes_pixel").await;
    house.drain().await;
    house.happen("uninstall").await;
    house.drain().await;
    assert_eq!(changes(&partner), ["installed", "updated", "uninstalled"]);
    assert_eq!(changes(&partner), house.changes());
    let notices = partner.notices();
    let first = &notices[0].body;
    assert_eq!(first["type"], "fbe.install.updated");
    assert_eq!(first["timestamp"], "2026-11-21T09:00:00Z");
    let data = &first["data"];
    assert_eq!(
        (&data["business"], &data["status"]),
        (&json!(SHOP), &json!("active"))
    );
    assert_eq!(data["enabled"], json!(["ads", "catalog", "fb_shop", "pixel"]));
    assert_eq!(
        (&data["pixel_id"], &data["assets"]["catalog_id"]),
        (&json!("1964583793745557"), &json!("726635365295186"))
    );
    assert_eq!(
        notices[1].body["data"]["disabled"],
        json!([{"feature": "pixel", "missing": "pixel_id"}])
    );
    assert_eq!(
        (
            &notices[1].body["data"]["pixel_id"],
            &notices[2].body["data"]["status"]
        ),
        (&json!(null), &json!("uninstalled"))
    );
    let all = format!("{notices:?}");
    assert!(!all.contains("EAAB") && !all.contains("token"), "{all}");
}

#[tokio::test]
async fn its_notices_keep_their_order_and_no_other_waits_for_them() {
    let (house, partner) = told().await;
    let down = || Fault::Answer(Answer::json(503, &json!({})));
    partner.begin_outage(down());
    house.happen("install").await;
    house.tick().await;
    house.happen("update_removes_pixel").await;
    house.tick().await;
    house.tick().await;
    assert_eq!(
        house.changes(),
        ["installed", "updated"],
        "the business is told at once"
    );
    assert!(house.install().await.reconciled_at.is_some());
    // One of the two is tried; the other waits for it.
    let tried = partner.requests();
    house.later(SignedDuration::from_hours(1));
    house.tick().await;
    assert_eq!(partner.requests(), tried + 1);
    partner.end_outage();
    house.drain().await;
    assert_eq!(changes(&partner), ["installed", "updated"]);
}

#[tokio::test]
async fn what_was_held_up_leaves_with_the_first_in_few_calls() {
    const CHANGES: usize = 60;
    let (house, partner) = told().await;
    partner.begin_outage(Fault::Answer(Answer::json(503, &json!({}))));
    for change in 0..CHANGES {
        let case = if change.is_multiple_of(2) {
            "install"
        } else {
            "uninstall"
        };
        house.happen_now(case).await;
        house.tick().await;
    }
    assert!(partner.notices().is_empty());
    partner.end_outage();
    house.aws.reset_calls();
    // The first waits for an hour at most. What it held up may be due later still.
    house.later(SignedDuration::from_hours(1));
    house.tick().await;
    assert_eq!(partner.notices().len(), CHANGES);
    let times: Vec<String> = partner
        .notices()
        .iter()
        .map(|notice| notice.body["timestamp"].to_string())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let queries = house.aws.dynamodb_calls().of("Query");
    assert!(queries < 30, "{queries} queries");
}

#[tokio::test]
async fn after_two_days_it_is_given_up_and_can_be_redriven() {
    let (house, partner) = told().await;
    partner.begin_outage(Fault::Answer(Answer::json(500, &json!({}))));
    house.happen("install").await;
    for _ in 0..50 {
        house.tick().await;
        house.later(SignedDuration::from_hours(1));
    }
    assert_eq!(
        house.reasons().await,
        [(
            "fbe_partner_notify".into(),
            "dead".into(),
            "partner_status_500".into()
        )]
    );
    partner.end_outage();
    house.redrive().await;
    house.drain().await;
    assert_eq!(changes(&partner), ["installed"]);
}

#[tokio::test]
async fn a_refusal_and_a_redirect_wait_as_faults_of_the_configuration() {
    for status in [301, 302, 308, 400, 401, 403, 404, 410, 422] {
        let (house, partner) = told().await;
        let answer = Answer::json(status, &json!({})).header("location", "http://127.0.0.1:1/elsewhere");
        partner.begin_outage(Fault::Answer(answer));
        house.happen("install").await;
        // Longer than anything else is tried.
        for _ in 0..50 {
            house.tick().await;
            house.later(SignedDuration::from_hours(1));
        }
        let reason = format!("partner_status_{status}");
        assert_eq!(
            house.reasons().await,
            [("fbe_partner_notify".into(), "pending".into(), reason)]
        );
        partner.end_outage();
        house.drain().await;
        assert_eq!(changes(&partner), ["installed"], "{status}");
    }
}

#[tokio::test]
async fn a_wait_that_it_asks_for_is_kept_and_an_answer_that_is_lost_is_sent_again_under_its_id() {
    let (house, partner) = told().await;
    partner.script(Fault::Answer(
        Answer::json(429, &json!({})).header("retry-after", 600),
    ));
    partner.script(Fault::CutAfterProcessing);
    house.happen("install").await;
    house.tick().await;
    house.later(SignedDuration::from_mins(9));
    house.tick().await;
    assert_eq!(partner.requests(), 1, "ten minutes");
    house.drain().await;
    assert_eq!((partner.requests(), partner.notices().len()), (3, 1));
}

#[tokio::test]
async fn a_platform_that_never_answers_is_left_after_a_while_and_holds_up_nothing() {
    let (house, partner) = told().await;
    // The fake closes the connection then; the platform would have 25 seconds.
    partner.begin_outage(Fault::Silence(Duration::from_millis(50)));
    house.happen("install").await;
    house.tick().await;
    assert_eq!(house.changes(), ["installed"]);
    assert_eq!(
        house.reasons().await,
        [(
            "fbe_partner_notify".into(),
            "pending".into(),
            "partner_unreachable".into()
        )]
    );
    partner.end_outage();
    house.drain().await;
    assert_eq!(changes(&partner), ["installed"]);
}

/// The only test that takes as long as the platform has: nothing else shows that its time is limited.
#[tokio::test]
async fn a_platform_that_takes_a_minute_has_25_seconds_and_holds_up_nothing() {
    let (house, partner) = told().await;
    partner.script(Fault::Late(Duration::from_mins(1)));
    house.happen("install").await;
    let began = Instant::now();
    let business_is_told = async {
        let told = house.braze.until(PATIENCE, |braze| !braze.events().is_empty());
        (told.await, began.elapsed())
    };
    let (_, (is_told, after)) = tokio::join!(house.tick(), business_is_told);
    let took = began.elapsed();
    assert!(is_told && after < took / 2, "told after {after:?} of {took:?}");
    assert!(took < Duration::from_secs(55), "{took:?}");
    let reason = (
        "fbe_partner_notify".into(),
        "pending".into(),
        "partner_unreachable".into(),
    );
    assert_eq!(house.reasons().await, [reason]);
    house.drain().await;
    assert_eq!(
        (changes(&partner), partner.requests()),
        (vec!["installed".to_owned()], 2)
    );
}

#[tokio::test]
async fn without_a_platform_nothing_is_planned_for_it() {
    let house = House::start().await;
    house.happen("install").await;
    assert!(
        house
            .reasons()
            .await
            .iter()
            .all(|(kind, ..)| kind != "fbe_partner_notify")
    );
}
