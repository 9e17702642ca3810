use std::sync::Mutex;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::body::{Body, to_bytes};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use shared::clock::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::aws::EmbeddedAws;
use crate::template::{Stream, Table, Template};
use crate::time::{eventually, start};

const TEMPLATE: &str = include_str!("../template/fixture.yaml");

fn route(method: &str, path: &str, handler: Handler) -> GatewayRoute {
    GatewayRoute {
        method: method.to_owned(),
        path: path.to_owned(),
        handler,
        timeout: Some(Duration::from_millis(300)),
    }
}

async fn serve(routes: Vec<GatewayRoute>, stop: &CancellationToken) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Gateway::serve(listener, routes, Clock::fixed(start()), stop.clone()).unwrap()
}

async fn request(url: &str, method: &str, body: impl Into<Body>) -> (u16, String) {
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::builder().method(method).uri(url);
    let request = request
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(Body::new(response.into_body()), usize::MAX)
        .await
        .unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_gateway_routes_by_method_and_path() {
    let echo = |name: &'static str| {
        handler(move |event| async move {
            let body = format!("{name} {} {}", event["rawQueryString"], event["body"]);
            Ok(json!({"statusCode": 200, "body": body}))
        })
    };
    let routes = vec![
        route("GET", "/w", echo("get")),
        route("POST", "/w", echo("post")),
        route("ANY", "/any", echo("any")),
    ];
    let stop = CancellationToken::new();
    let gateway = serve(routes, &stop).await;
    let url = gateway.url();
    let post = request(&format!("{url}/w?hub.mode=x"), "POST", "{}").await;
    assert_eq!(post, (200, r#"post "hub.mode=x" "{}""#.to_owned()));
    assert_eq!(request(&format!("{url}/w"), "GET", "").await.1, r#"get "" null"#);
    assert_eq!(request(&format!("{url}/any"), "DELETE", "").await.0, 200);
    for (method, path) in [("PUT", "/w"), ("POST", "/w/"), ("GET", "/")] {
        let unknown = request(&format!("{url}{path}"), method, "").await;
        assert_eq!(
            unknown,
            (404, r#"{"message":"Not Found"}"#.to_owned()),
            "{method} {path}"
        );
    }
    let large = request(&format!("{url}/w"), "POST", vec![b' '; 10 * 1024 * 1024 + 1]).await;
    assert_eq!(large.0, 413);
    stop.cancel();
    gateway.stopped().await;
}

#[tokio::test]
async fn a_function_that_fails_is_an_internal_server_error() {
    let routes = vec![
        route(
            "GET",
            "/error",
            handler(|_| async { anyhow::bail!("secret detail") }),
        ),
        route(
            "GET",
            "/panic",
            handler(|_| async { panic!("expected by the test") }),
        ),
        route("GET", "/slow", handler(|_| std::future::pending())),
        route(
            "GET",
            "/malformed",
            handler(|_| async { Ok(json!({"statusCode": 9999})) }),
        ),
    ];
    let gateway = serve(routes, &CancellationToken::new()).await;
    for path in ["/error", "/panic", "/slow", "/malformed"] {
        let (status, body) = request(&format!("{}{path}", gateway.url()), "GET", "").await;
        assert_eq!(
            (status, body.as_str()),
            (500, r#"{"message":"Internal Server Error"}"#),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_stop_lets_the_request_in_hand_finish() {
    let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, completes) = (begun.clone(), finish.clone());
    let slow = handler(move |_| {
        let (begins, completes) = (begins.clone(), completes.clone());
        async move {
            begins.notify_one();
            completes.notified().await;
            Ok(json!({"statusCode": 200, "body": "done"}))
        }
    });
    let mut unlimited = route("GET", "/", slow);
    unlimited.timeout = None;
    let stop = CancellationToken::new();
    let gateway = serve(vec![unlimited], &stop).await;
    let (url, address) = (gateway.url(), gateway.address());
    let answer = tokio::spawn(async move { request(&format!("{url}/"), "GET", "").await });
    begun.notified().await;
    stop.cancel();
    assert!(eventually(async || TcpStream::connect(address).await.is_err()).await);
    finish.notify_one();
    assert_eq!(answer.await.unwrap(), (200, "done".to_owned()));
    gateway.stopped().await;
}

/// What a function saw: the event keys of each batch.
type Seen = Arc<Mutex<Vec<Vec<String>>>>;

fn keys(event: &Value) -> Vec<String> {
    let records = event["Records"].as_array().unwrap();
    let key = |record: &Value| {
        record["dynamodb"]["NewImage"]["event_key"]["S"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    records.iter().map(key).collect()
}

/// A function that notes what it saw and then answers by `answer(number of the call from 1, event)`.
fn noting(
    seen: &Seen,
    answer: impl Fn(usize, &Value) -> anyhow::Result<Value> + Send + Sync + 'static,
) -> Handler {
    let seen = seen.clone();
    handler(move |event| {
        let call = {
            let mut seen = seen.lock().unwrap();
            seen.push(keys(&event));
            seen.len()
        };
        let answer = answer(call, &event);
        async move { answer }
    })
}

struct Setup {
    aws: EmbeddedAws,
    table: Table,
    mapping: Stream,
    stop: CancellationToken,
}

impl Setup {
    async fn new() -> Self {
        let template = Template::parse(TEMPLATE).unwrap();
        let aws = EmbeddedAws::in_memory().await.unwrap();
        aws.create_tables(&template).await.unwrap();
        let mapping = template.function("Dispatch").unwrap().streams[0].clone();
        Self {
            aws,
            table: template.table("ItemsTable").unwrap().clone(),
            mapping,
            stop: CancellationToken::new(),
        }
    }

    async fn put(&self, event_key: &str, lane: &str) {
        let put = self.aws.dynamodb().put_item().table_name("local-items");
        let text = |value: &str| AttributeValue::S(value.to_owned());
        put.item("subject", text("s"))
            .item("event_key", text(event_key))
            .item("lane", text(lane))
            .item("tries", AttributeValue::N("1".to_owned()))
            .send()
            .await
            .unwrap();
    }

    /// The batches that came, once there are so many, up to a last record: what came too much would precede it.
    async fn batches(&self, seen: &Seen, count: usize) -> Vec<Vec<String>> {
        let has = |enough: usize| seen.lock().unwrap().len() >= enough;
        assert!(
            eventually(async || has(count)).await,
            "{:?}",
            seen.lock().unwrap()
        );
        self.put("last", "sync").await;
        let last = || {
            seen.lock()
                .unwrap()
                .last()
                .is_some_and(|batch| *batch == ["last"])
        };
        assert!(eventually(async || last()).await, "{:?}", seen.lock().unwrap());
        let mut batches = std::mem::take(&mut *seen.lock().unwrap());
        batches.pop();
        batches
    }

    async fn drive(&self, handler: Handler) -> StreamDriver {
        let source = StreamSource {
            table: self.table.clone(),
            mapping: self.mapping.clone(),
            poll: Duration::from_millis(10),
            handler,
            timeout: None,
        };
        StreamDriver::start(self.aws.streams(), source, self.stop.clone())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn inserts_of_the_lane_arrive_in_batches_as_lambda_makes_them() {
    let mut setup = Setup::new().await;
    setup.mapping.batch_size = 2;
    for (key, lane) in [("1", "sync"), ("2", "relay"), ("3", "sync"), ("4", "sync")] {
        setup.put(key, lane).await;
    }
    setup.put("1", "sync").await; // MODIFY
    let seen = Seen::default();
    let event = Arc::new(Mutex::new(Value::Null));
    let kept = event.clone();
    let function = noting(&seen, move |_, event| {
        *kept.lock().unwrap() = event.clone();
        Ok(json!({"batchItemFailures": []}))
    });
    let driver = setup.drive(function).await;
    let came = || seen.lock().unwrap().len() == 2;
    assert!(eventually(async || came()).await);
    let record = event.lock().unwrap()["Records"][0].clone();
    assert_eq!(record["eventName"], "INSERT");
    assert_eq!(record["eventSource"], "aws:dynamodb");
    assert_eq!(
        record["dynamodb"]["Keys"],
        json!({"subject": {"S": "s"}, "event_key": {"S": "4"}})
    );
    assert_eq!(record["dynamodb"]["NewImage"]["tries"], json!({"N": "1"}));
    assert!(record["dynamodb"]["SequenceNumber"].as_str().unwrap().len() >= 21);
    assert!(record["eventSourceARN"].as_str().unwrap().contains("local-items"));

    let expected = [vec!["1", "3"], vec!["4"]];
    assert_eq!(setup.batches(&seen, 2).await, expected);
    setup.stop.cancel();
    driver.stopped().await;
}

#[tokio::test]
async fn latest_sees_only_what_comes_after_the_start() {
    let mut setup = Setup::new().await;
    setup.mapping.starting_position = "LATEST".to_owned();
    setup.put("1", "sync").await;
    let seen = Seen::default();
    let _driver = setup.drive(noting(&seen, |_, _| Ok(Value::Null))).await;
    setup.put("2", "sync").await;
    assert_eq!(setup.batches(&seen, 1).await, [["2"]]);
}

#[tokio::test]
async fn a_batch_is_retried_from_its_first_failure() {
    let setup = Setup::new().await;
    for key in ["1", "2", "3"] {
        setup.put(key, "sync").await;
    }
    let seen = Seen::default();
    let _driver = setup
        .drive(noting(&seen, |call, event| {
            let records = event["Records"].as_array().unwrap();
            let failed = if call == 1 { &records[1..] } else { &[] };
            let failures: Vec<_> = failed
                .iter()
                .rev()
                .map(|record| json!({"itemIdentifier": record["dynamodb"]["SequenceNumber"]}))
                .collect();
            Ok(json!({"batchItemFailures": failures}))
        }))
        .await;
    let expected = [vec!["1", "2", "3"], vec!["2", "3"]];
    assert_eq!(setup.batches(&seen, 2).await, expected);
}

#[tokio::test]
async fn a_poison_record_is_found_by_halving_and_given_up() {
    let mut setup = Setup::new().await;
    setup.mapping.maximum_retry_attempts = Some(1);
    for key in ["1", "2", "3", "4"] {
        setup.put(key, "sync").await;
    }
    let seen = Seen::default();
    let _driver = setup
        .drive(noting(&seen, |_, event| {
            anyhow::ensure!(!keys(event).contains(&"3".to_owned()), "poison");
            Ok(Value::Null)
        }))
        .await;
    let expected: [&[&str]; 6] = [
        &["1", "2", "3", "4"],
        &["1", "2"],
        &["3", "4"],
        &["3"],
        &["3"],
        &["4"],
    ];
    assert_eq!(setup.batches(&seen, 6).await, expected);
}

#[tokio::test]
async fn a_stop_lets_the_batch_in_hand_finish() {
    let setup = Setup::new().await;
    let done = Arc::new(Mutex::new(false));
    let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (completes, begins, may_finish) = (done.clone(), begun.clone(), finish.clone());
    let driver = setup
        .drive(handler(move |_| {
            let (completes, begins, may_finish) = (completes.clone(), begins.clone(), may_finish.clone());
            async move {
                begins.notify_one();
                may_finish.notified().await;
                *completes.lock().unwrap() = true;
                Ok(Value::Null)
            }
        }))
        .await;
    setup.put("1", "sync").await;
    begun.notified().await;
    setup.stop.cancel();
    let mut stopped = std::pin::pin!(driver.stopped());
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut stopped).is_pending());
        tokio::task::yield_now().await;
    }
    finish.notify_one();
    stopped.await;
    assert!(*done.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_schedule_invokes_again_and_again_and_survives_a_failure() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let schedule = |name: &str, input: Option<Value>| {
        let events = events.clone();
        let function = handler(move |event| {
            events.lock().unwrap().push(event);
            async { anyhow::bail!("expected by the test") }
        });
        ScheduledInvocation {
            name: name.to_owned(),
            every: Duration::from_millis(20),
            input,
            handler: function,
            timeout: None,
        }
    };
    let stop = CancellationToken::new();
    let driver = ScheduleDriver::start(
        vec![
            schedule("due", Some(json!({"task": "due"}))),
            schedule("plain", None),
        ],
        &Clock::fixed(start()),
        &stop,
    );
    let events_so_far = || events.lock().unwrap().len();
    assert!(eventually(async || events_so_far() >= 6).await);
    stop.cancel();
    driver.stopped().await;
    let events = events.lock().unwrap();
    assert!(events.iter().filter(|event| event["task"] == "due").count() >= 2);
    let plain = events
        .iter()
        .find(|event| event["detail-type"] == "Scheduled Event")
        .unwrap();
    assert_eq!(
        plain["resources"],
        json!(["arn:aws:events:us-east-1:123456789012:rule/plain"])
    );
}
