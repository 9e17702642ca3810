use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::client::client;
use crate::signer::appsecret_proof;

const TOKEN: &str = "EAAB-user";
const CATALOG: &str = "726635365295186";
const MANAGER: &str = "973766133343161";

async fn start() -> FakeGraph {
    start_with(Options::new("app", "secret").partner_token("EAAB-partner")).await
}

async fn start_with(options: Options) -> FakeGraph {
    let graph = FakeGraph::start(options).await.unwrap();
    graph.set_install(Install::recorded("shop-42", TOKEN));
    graph
}

async fn answered(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    assert!(response.headers().contains_key("x-app-usage") || response.status() == 400);
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn get(graph: &FakeGraph, path: &str, query: &[(&str, &str)]) -> (u16, Value) {
    answered(client().get(format!("{}/v25.0/{path}", graph.url())).query(query)).await
}

async fn form(graph: &FakeGraph, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
    answered(client().post(format!("{}/v25.0/{path}", graph.url())).form(form)).await
}

async fn batch(graph: &FakeGraph, body: &Value) -> (u16, Value) {
    let url = format!("{}/v25.0/{CATALOG}/items_batch", graph.url());
    answered(client().post(url).bearer_auth(TOKEN).json(body)).await
}

fn codes(answer: &(u16, Value)) -> (u16, i64, Option<i64>) {
    let error = &answer.1["error"];
    (
        answer.0,
        error["code"].as_i64().unwrap_or_default(),
        error["error_subcode"].as_i64(),
    )
}

fn installs_of<'a>(business: &'a str, token: &'a str) -> [(&'a str, &'a str); 2] {
    [("fbe_external_business_id", business), ("access_token", token)]
}

#[tokio::test]
async fn installs_as_recorded_and_none_for_strangers() {
    let graph = start().await;
    let (status, answer) = get(
        &graph,
        "fbe_business/fbe_installs",
        &installs_of("shop-42", TOKEN),
    )
    .await;
    assert_eq!(status, 200);
    assert_eq!(
        answer["data"][0]["installed_features"][2]["feature_type"],
        "fb_shop"
    );
    assert_eq!(answer["data"][0]["ad_account_id"], "0");
    assert!(answer["data"][0].get("access_token").is_none());
    let strangers = get(
        &graph,
        "fbe_business/fbe_installs",
        &installs_of("other", "EAAB-partner"),
    )
    .await;
    assert_eq!(strangers, (200, json!({"data": []})));
    assert_eq!(
        graph.calls()[0].parameters,
        *json!({"fbe_external_business_id": "shop-42"})
            .as_object()
            .unwrap()
    );
}

#[tokio::test]
async fn a_token_is_needed_known_valid_and_of_this_business() {
    let graph = start().await;
    graph.set_install(Install::recorded("shop-7", "EAAB-seven"));
    let path = "fbe_business/fbe_installs";
    assert_eq!(
        codes(&get(&graph, path, &[("fbe_external_business_id", "shop-42")]).await),
        (400, 104, None)
    );
    assert_eq!(
        codes(&get(&graph, path, &installs_of("shop-42", "unknown")).await),
        (400, 190, None)
    );
    assert_eq!(
        codes(&get(&graph, path, &installs_of("shop-42", "EAAB-seven")).await),
        (400, 200, None)
    );
    assert_eq!(
        codes(&get(&graph, path, &[("access_token", TOKEN)]).await),
        (400, 100, None)
    );
    assert_eq!(graph.take_refusals().len(), 4);
    graph.invalidate_token(TOKEN, 460);
    assert_eq!(
        codes(&get(&graph, path, &installs_of("shop-42", TOKEN)).await),
        (400, 190, Some(460))
    );
    graph.assert_drained();
}

fn exchange<'a>(token: &'a str, proof: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("app_id", "app"),
        ("scope", "manage_business_extension"),
        ("fbe_external_business_id", "shop-42"),
        ("access_token", token),
        ("appsecret_proof", proof),
    ]
}

#[tokio::test]
async fn a_token_is_exchanged_with_a_right_proof() {
    let graph = start().await;
    let path = format!("{MANAGER}/access_token");
    let proof = appsecret_proof("secret", TOKEN);
    let (status, answer) = form(&graph, &path, &exchange(TOKEN, &proof)).await;
    assert_eq!(status, 200);
    let issued = answer["access_token"].as_str().unwrap();
    assert_eq!(graph.issued_tokens("shop-42"), [issued]);
    let (status, _) = get(
        &graph,
        "fbe_business/fbe_installs",
        &installs_of("shop-42", issued),
    )
    .await;
    assert_eq!(status, 200);
    let of_partner = appsecret_proof("secret", "EAAB-partner");
    assert_eq!(
        form(&graph, &path, &exchange("EAAB-partner", &of_partner))
            .await
            .0,
        200
    );

    let again = appsecret_proof("secret", issued);
    for refused in [
        form(&graph, &path, &exchange(TOKEN, &of_partner)).await,
        form(&graph, &path, &exchange(TOKEN, "")).await,
        form(&graph, &path, &exchange(TOKEN, &proof)[1..]).await,
        form(
            &graph,
            &path,
            &[&exchange(TOKEN, &proof)[..1], &exchange(TOKEN, &proof)[2..]].concat(),
        )
        .await,
        form(&graph, &path, &exchange(issued, &again)).await,
    ] {
        assert_eq!(codes(&refused), (400, 100, None), "{}", refused.1);
    }
    let elsewhere = form(&graph, "1/access_token", &exchange(TOKEN, &proof)).await;
    assert_eq!(codes(&elsewhere), (400, 100, Some(33)));
    assert_eq!(graph.take_refusals().len(), 6);
    assert_eq!(graph.calls_of(Edge::AccessToken).len(), 8);
}

#[tokio::test]
async fn the_configuration_is_read_and_changed() {
    let graph = start().await;
    let (_, recorded) = get(&graph, "fbe_business", &installs_of("shop-42", TOKEN)).await;
    assert_eq!(
        recorded["pixels"],
        json!([{"feature_instance_id": "762898101511280", "enabled": true}])
    );
    assert_eq!(recorded["page_cta"], json!({"enabled": false}));
    let fields = [&installs_of("shop-42", TOKEN)[..], &[("fields", "ig_cta")]].concat();
    assert_eq!(
        get(&graph, "fbe_business", &fields).await.1,
        json!({"ig_cta": {"enabled": false}})
    );

    let config = json!({"page_cta": {"enabled": true, "cta_button_text": "Book"}}).to_string();
    let change = [
        &installs_of("shop-42", TOKEN)[..],
        &[("business_config", config.as_str())],
    ]
    .concat();
    let (status, after) = form(&graph, "fbe_business", &change).await;
    assert_eq!(
        (status, &after["page_cta"]["cta_button_text"]),
        (200, &json!("Book"))
    );
    assert_eq!(graph.configuration("shop-42").unwrap(), after);
    assert_eq!(after["pixels"], recorded["pixels"]);
}

#[tokio::test]
async fn an_uninstalled_business_has_nothing_left() {
    let graph = start().await;
    let url = format!("{}/v25.0/fbe_business/fbe_installs", graph.url());
    let delete = client().delete(url).query(&installs_of("shop-42", TOKEN));
    assert_eq!(answered(delete).await, (200, json!({"success": true})));
    let (_, answer) = get(
        &graph,
        "fbe_business/fbe_installs",
        &installs_of("shop-42", TOKEN),
    )
    .await;
    assert_eq!(answer, json!({"data": []}));
    assert_eq!(
        codes(&get(&graph, "fbe_business", &installs_of("shop-42", TOKEN)).await),
        (400, 100, None)
    );
    assert_eq!(graph.take_refusals().len(), 1);
}

fn update(id: &str) -> Value {
    json!({"method": "UPDATE", "data": {"id": id, "title": "Belt"}})
}

fn products(requests: &[Value]) -> Value {
    json!({"item_type": "PRODUCT_ITEM", "allow_upsert": true, "requests": requests})
}

async fn status(graph: &FakeGraph, handle: &Value) -> Value {
    let query = [
        ("handle", handle.as_str().unwrap()),
        ("load_ids_of_invalid_requests", "true"),
        ("access_token", TOKEN),
    ];
    get(graph, &format!("{CATALOG}/check_batch_request_status"), &query)
        .await
        .1["data"][0]
        .clone()
}

#[tokio::test]
async fn a_batch_is_accepted_first_and_judged_later() {
    let graph = start().await;
    graph.finish_batches_after(1);
    graph.refuse_item(CATALOG, "late", "no image", FoundOut::InProcessing);
    graph.refuse_item(CATALOG, "early", "no price", FoundOut::AtOnce);
    let delete = json!({"method": "DELETE", "data": {"id": "none"}});
    let (code, answer) = batch(
        &graph,
        &products(&[update("a"), update("late"), update("early"), delete]),
    )
    .await;
    assert_eq!(
        (code, &answer["validation_status"][0]["retailer_id"]),
        (200, &json!("early"))
    );
    let handle = &answer["handles"][0];
    assert_eq!(status(&graph, handle).await["status"], "started");
    let finished = status(&graph, handle).await;
    assert_eq!(
        (&finished["status"], &finished["errors_total_count"]),
        (&json!("finished"), &json!(2))
    );
    assert_eq!(
        finished["errors"][0],
        json!({"line": 2, "id": "late", "message": "no image"})
    );
    assert_eq!(finished["ids_of_invalid_requests"], json!(["late", "none"]));
    let catalog = graph.catalog(CATALOG).unwrap();
    assert_eq!((catalog.count, &catalog.items["a"]["title"]), (1, &json!("Belt")));
    let calls = graph.calls_of(Edge::ItemsBatch);
    assert_eq!(
        (calls[0].items, calls[0].parameters.contains_key("requests")),
        (4, false)
    );
}

#[tokio::test]
async fn without_upsert_only_what_exists_is_updated() {
    let graph = start().await;
    batch(&graph, &products(&[update("a")])).await;
    let create = json!({"method": "CREATE", "data": {"id": "a"}});
    let body = json!({"item_type": "PRODUCT_ITEM", "allow_upsert": false, "requests": [update("a"), update("b"), create]});
    let (_, answer) = batch(&graph, &body).await;
    let finished = status(&graph, &answer["handles"][0]).await;
    assert_eq!(finished["ids_of_invalid_requests"], json!(["b", "a"]));
    assert_eq!(graph.item_count(CATALOG), 1);
}

#[tokio::test]
async fn a_wrong_batch_is_refused_whole() {
    let graph = start().await;
    let many: Vec<_> = (0..=5_000).map(|index| update(&index.to_string())).collect();
    for body in [
        products(&many),
        products(&[]),
        products(&[json!({"method": "UPDATE", "data": {"retailer_id": "a"}})]),
        products(&[json!({"method": "UPSERT", "data": {"id": "a"}})]),
        json!({"requests": [update("a")]}),
    ] {
        assert_eq!(codes(&batch(&graph, &body).await), (400, 100, None));
    }
    graph.limit_batches(1);
    assert_eq!(codes(&batch(&graph, &products(&many[..2])).await), (400, 1, None));
    let foreign = form(
        &graph,
        "1/items_batch",
        &[("access_token", TOKEN), ("item_type", "HOTEL")],
    )
    .await;
    assert_eq!(codes(&foreign), (400, 100, Some(33)));
    assert_eq!(graph.take_refusals().len(), 6);
    assert_eq!(graph.item_count(CATALOG), 0);
}

#[tokio::test]
async fn large_catalogs_can_be_kept_as_counts() {
    let graph = start_with(Options::new("app", "secret").keep_items(KeepItems::Counts)).await;
    let many: Vec<_> = (0..5_000).map(|index| update(&index.to_string())).collect();
    let requests = Value::from(many).to_string();
    // Meta's own plugins send the requests as JSON in a form.
    let fields = [
        ("access_token", TOKEN),
        ("item_type", "PRODUCT_ITEM"),
        ("requests", requests.as_str()),
    ];
    for _ in 0..2 {
        assert_eq!(
            form(&graph, &format!("{CATALOG}/items_batch"), &fields).await.0,
            200
        );
    }
    let catalog = graph.catalog(CATALOG).unwrap();
    assert_eq!(
        (catalog.count, catalog.items.len(), catalog.batches),
        (10_000, 0, 2)
    );
}

#[tokio::test]
async fn scripted_errors_look_like_graphs() {
    let graph = start().await;
    let query = installs_of("shop-42", TOKEN);
    for (fault, expected) in [
        (faults::token_invalid(463), (400, 190, Some(463))),
        (faults::rate_limited(4), (400, 4, None)),
        (faults::rate_limited(613), (400, 613, None)),
        (faults::temporarily_down(), (400, 2, None)),
        (faults::reduce_the_data(), (400, 1, None)),
        (faults::done_in_spite_of_the_error(), (400, 1, Some(1_357_046))),
    ] {
        graph.script(Edge::Installs, fault);
        assert_eq!(
            codes(&get(&graph, "fbe_business/fbe_installs", &query).await),
            expected
        );
    }
    graph.script(Edge::ItemsBatch, faults::catalog_rate_limited(CATALOG, 7));
    let url = format!("{}/v25.0/{CATALOG}/items_batch", graph.url());
    let limited = client().post(url).send().await.unwrap();
    let usage: Value =
        serde_json::from_slice(limited.headers()["x-business-use-case-usage"].as_bytes()).unwrap();
    assert_eq!(usage[CATALOG][0]["estimated_time_to_regain_access"], 7);
    graph.begin_outage(faults::timeout(Duration::from_millis(5)));
    assert!(client().get(graph.url()).send().await.unwrap().status() == 400);
    assert!(
        client()
            .get(format!("{}/v25.0/fbe_business", graph.url()))
            .send()
            .await
            .is_err()
    );
    graph.end_outage();
    assert_eq!(graph.take_refusals().len(), 1);
    let statuses: Vec<_> = graph
        .calls_of(Edge::Configuration)
        .iter()
        .map(|call| call.status)
        .collect();
    assert_eq!(statuses, [None]);
}

#[tokio::test]
async fn a_path_without_version_or_edge_is_unknown() {
    let graph = start().await;
    for path in ["fbe_business", "v25/fbe_business", "v25.0/me/photos"] {
        let answer = client()
            .get(format!("{}/{path}", graph.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(
            codes(&(answer.status().as_u16(), answer.json().await.unwrap())),
            (400, 2500, None)
        );
    }
    assert_eq!(graph.take_refusals().len(), 3);
}

#[tokio::test]
async fn a_webhook_tells_of_an_install() {
    let graph = FakeGraph::start(Options::new("app", "secret").any_token(true))
        .await
        .unwrap();
    let value = json!({"fbe_event": "INSTALL", "business_id": "b", "access_token": "t", "pixel_id": "1"});
    graph.set_install(Install::from_webhook(&value).unwrap());
    assert_eq!(graph.install("b"), Some(json!({"pixel_id": "1"})));
    assert!(Install::from_webhook(&json!({"business_id": "b"})).is_none());
    let (_, answer) = get(&graph, "fbe_business/fbe_installs", &installs_of("b", "whatever")).await;
    assert_eq!(answer, json!({"data": [{"pixel_id": "1"}]}));
    graph.change_install("b", None);
    let (_, answer) = get(&graph, "fbe_business/fbe_installs", &installs_of("b", "t")).await;
    assert_eq!(answer, json!({"data": []}));
}

#[tokio::test]
async fn credentials_are_not_shown() {
    let graph = start().await;
    let (status, _) = get(
        &graph,
        "fbe_business/fbe_installs",
        &installs_of("shop-42", TOKEN),
    )
    .await;
    assert_eq!(status, 200);
    let options = Options::new("app", "the-secret").partner_token("EAAB-partner");
    let shown = format!(
        "{:?} {:?} {options:?}",
        graph.calls(),
        Install::recorded("b", TOKEN)
    );
    assert!(
        !shown.contains("EAAB") && !shown.contains("the-secret"),
        "{shown}"
    );
}
