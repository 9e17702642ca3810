//! `/meta/deletion` and `/meta/deauthorize`: who is let in, what is kept, and what is told.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use data_deletion::{App, Settings};
use lambda_http::http::StatusCode;
use lambda_http::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use lambda_http::{Body, http};
use rstest::rstest;
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::config::Env;
use shared::erase::{Erasures, Order, Receipt, Source, Status, Target};
use shared::outbox::Outbox;
use shared::webhook::Answer;
use shared::webhook::signed_request::sign;
use testkit::aws::Fault;
use testkit::house::{APP_SECRET, House as Parts};

const PERSON: &str = "10200000000000042";
const SHA_1: &str = "ptuh1Gy2ImouF19vquRM_vIx12bhovt4G-oZ81Ieo9o.eyJhbGdvcml0aG0iOiJITUFDLVNIQTEiLCJpc3N1ZWRfYXQiOjE3OTYwODMyMDAsInVzZXJfaWQiOiIyMTg0NzEifQ";

struct House {
    parts: Parts,
    app: App,
    erasures: Erasures,
}

impl House {
    async fn start() -> Self {
        let parts = Parts::with(&[("ERASE_KEYWORDS", "DELETE <MY> DATA")])
            .await
            .unwrap();
        let settings = Env::new(parts.lookup("DataDeletionFunction"))
            .finish(Settings::read)
            .unwrap();
        let (secrets, dynamodb) = (parts.aws.secrets_manager(), parts.aws.dynamodb());
        let clock = parts.clock.clone();
        Self {
            app: App::new(settings, &secrets, &dynamodb, clock.clone()),
            erasures: Erasures::new(Outbox::new(
                dynamodb,
                parts.table("OutboxTable").to_owned(),
                clock,
            )),
            parts,
        }
    }

    fn signed(&self, fields: &Value) -> String {
        let mut payload =
            json!({"algorithm": "HMAC-SHA256", "issued_at": self.parts.clock.now().as_second()});
        for (name, value) in fields.as_object().unwrap() {
            payload[name] = value.clone();
        }
        sign(&SecretString::from(APP_SECRET), &payload)
    }

    async fn post(&self, path: &str, signed_request: &str) -> Answer {
        let request = http::Request::post(format!("https://api.example{path}"))
            .header("content-type", "application/x-www-form-urlencoded");
        let body = Body::Text(format!("signed_request={signed_request}"));
        self.app.handle(request.body(body).unwrap()).await
    }

    async fn get(&self, path: &str, accept: &str) -> Answer {
        let request = http::Request::get(format!("https://api.example{path}")).header("accept", accept);
        self.app.handle(request.body(Body::Empty).unwrap()).await
    }

    async fn stored(&self) -> usize {
        self.parts.items("OutboxTable").await.unwrap().len()
    }
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(answer.body().as_ref()).unwrap()
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(text(answer)).unwrap()
}

#[tokio::test]
async fn a_request_is_ordered_once_and_its_status_can_be_looked_up() {
    let house = House::start().await;
    let signed = house.signed(&json!({"user_id": PERSON}));
    let first = house.post("/meta/deletion", &signed).await;
    assert_eq!(first.status(), StatusCode::OK);
    let told = json_of(&first);
    let code = told["confirmation_code"].as_str().unwrap();
    assert_eq!(told["url"], format!("https://api.example/meta/deletion/{code}"));
    // A replay, also in another spelling of the same signature, is the same request.
    let (signature, payload) = signed.split_once('.').unwrap();
    for again in [signed.clone(), format!("{signature}%3D.{payload}")] {
        assert_eq!(json_of(&house.post("/meta/deletion", &again).await), told);
    }
    assert_eq!(house.stored().await, 1);
    let status = house
        .get(&format!("/meta/deletion/{code}"), "application/json")
        .await;
    let status = json_of(&status);
    assert_eq!(
        (&status["status"], &status["finished_at"]),
        (&json!("received"), &Value::Null)
    );
    assert_eq!(status["keyword"], "DELETE <MY> DATA");
}

#[rstest]
#[case("another app", 401)]
#[case("a changed byte", 401)]
#[case("another algorithm", 400)]
#[case("two dots", 400)]
#[case("nothing", 400)]
#[case("the future", 400)]
#[case("nobody", 400)]
#[tokio::test]
async fn what_is_forged_or_malformed_is_refused_and_leaves_nothing(
    #[case] what: &str,
    #[case] expected: u16,
) {
    let house = House::start().await;
    let good = house.signed(&json!({"user_id": PERSON}));
    let future = house.parts.clock.now().as_second() + 11 * 60;
    let text = match what {
        "another app" => sign(
            &"another secret".into(),
            &json!({"algorithm": "HMAC-SHA256", "user_id": PERSON}),
        ),
        "a changed byte" => good.replacen(".e", ".f", 1),
        "another algorithm" => {
            // Signed by a secret that is ours.
            let mut secret = testkit::house::secrets()[0].1.clone();
            secret["previous_app_secret"] = "app_secret_for_tests".into();
            house.parts.write_secret("MetaSecret", &secret).await.unwrap();
            SHA_1.to_owned()
        }
        "two dots" => format!("{good}.e30"),
        "nothing" => String::new(),
        "the future" => house.signed(&json!({"user_id": PERSON, "issued_at": future})),
        _ => house.signed(&json!({"user_id": null})),
    };
    let routes: &[&str] = if what == "nobody" {
        &["/meta/deletion"]
    } else {
        &["/meta/deletion", "/meta/deauthorize"]
    };
    for path in routes {
        let answer = house.post(path, &text).await;
        assert_eq!(answer.status().as_u16(), expected, "{what} at {path}");
        assert!(!crate::text(&answer).contains(PERSON));
    }
    assert_eq!(house.stored().await, 0);
}

#[tokio::test]
async fn any_app_of_ours_signs() {
    let house = House::start().await;
    let mut secret = testkit::house::secrets()[0].1.clone();
    secret["fbe"] = json!({"app_id": "2", "app_secret": "fbe-secret"});
    secret["instagram"] = json!({"app_id": "3", "app_secret": "instagram-secret"});
    secret["previous_app_secret"] = "previous-secret".into();
    house.parts.write_secret("MetaSecret", &secret).await.unwrap();
    for secret in ["fbe-secret", "instagram-secret", "previous-secret", APP_SECRET] {
        let signed = sign(
            &secret.into(),
            &json!({"algorithm": "hmac-sha256", "user_id": PERSON}),
        );
        assert_eq!(
            house.post("/meta/deletion", &signed).await.status(),
            StatusCode::OK,
            "{secret}"
        );
    }
}

#[tokio::test]
async fn a_store_that_is_out_of_reach_is_a_503_and_the_next_try_is_the_same_request() {
    let house = House::start().await;
    let signed = house.signed(&json!({"user_id": PERSON}));
    house.parts.aws.fail_next("PutItem", 9, Fault::ServiceUnavailable);
    let failed = house.post("/meta/deletion", &signed).await;
    assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
    house.parts.aws.clear_faults();
    assert_eq!(
        house.post("/meta/deletion", &signed).await.status(),
        StatusCode::OK
    );
    assert_eq!(house.stored().await, 1);
}

#[tokio::test]
async fn who_removes_the_app_is_noted_once_and_nothing_is_erased() {
    let house = House::start().await;
    for fields in [
        json!({"user_id": PERSON}),
        json!({"user_id": null, "profile_id": "324556365474"}),
    ] {
        let signed = house.signed(&fields);
        for _ in 0..2 {
            let answer = house.post("/meta/deauthorize", &signed).await;
            assert_eq!((answer.status(), text(&answer)), (StatusCode::OK, "{}"));
        }
    }
    let items = house.parts.items("OutboxTable").await.unwrap();
    assert_eq!(items.len(), 2);
    for item in &items {
        assert_eq!(item["kind"].as_s().unwrap(), "health_check");
        assert!(!format!("{item:?}").contains(PERSON));
    }
}

#[rstest]
#[case(Status::Matched, None)]
#[case(Status::NoMatch, Some("DELETE &lt;MY&gt; DATA"))]
#[case(Status::Erased, None)]
#[tokio::test]
async fn the_page_says_what_is_true_without_scripts_or_anything_from_elsewhere(
    #[case] status: Status,
    #[case] keyword: Option<&str>,
) {
    let house = House::start().await;
    let now = house.parts.clock.now();
    let code = "0123456789abcdef0123456789abcdef";
    let order = Order::new(Target::User("somebody".into()), Source::Callback, now);
    let receipt = Receipt {
        status,
        finished_at: status.is_final().then_some(now),
        ..Receipt::received(&order)
    };
    house.erasures.keep(code, &receipt).await.unwrap();
    let page = house
        .get(
            &format!("/meta/deletion/{code}"),
            "text/html,application/json;q=0.5",
        )
        .await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(
        page.headers()[CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'")
    );
    let html = text(&page);
    assert!(html.contains("<html lang=\"en\">") && html.contains("color-scheme: light dark"));
    for forbidden in [
        "<script", "http://", "https://", "src=", "url(", "<MY>", "somebody",
    ] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert_eq!(html.contains("DELETE &lt;MY&gt; DATA"), keyword.is_some());
    assert_eq!(html.contains("<dt>Done</dt>"), status.is_final());
    let told = json_of(
        &house
            .get(&format!("/meta/deletion/{code}"), "application/json")
            .await,
    );
    assert_eq!(told["status"], status.as_str());
}

#[tokio::test]
async fn a_code_that_nobody_has_is_a_404() {
    let house = House::start().await;
    for path in [
        "/meta/deletion/0123456789abcdef0123456789abcdef",
        "/meta/deletion/x",
        "/meta/deletion",
    ] {
        let answer = house.get(path, "text/html").await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let put = http::Request::put("https://api.example/meta/deletion")
        .body(Body::Empty)
        .unwrap();
    assert_eq!(
        house.app.handle(put).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}
